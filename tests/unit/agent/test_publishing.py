"""A capture from its source to the log and to another host's table, all in memory."""

from tests.fakes.platform import SECRET, Platform, TestHost
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.unit.agent.conftest import running, table, until


async def test_rows_arrive_sealed_and_in_order(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), [{"id": i, "text": f"note {i}"} for i in range(50)])
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await until(lambda: len(store.rows(SECRET)) == 50)
        database.upsert(table(), [{"id": 3, "text": "changed"}])
        database.delete(table(), [{"id": 4}])
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert not any(b"note 1" in value for value in platform.log.values(str(SECRET)))
    assert a.board.is_ready, a.board.problems
    assert b.board.is_ready, b.board.problems
