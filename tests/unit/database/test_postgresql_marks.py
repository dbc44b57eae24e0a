"""fabric.database.postgresql_marks"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fabric.database import (
    postgresql_connect,
    postgresql_marks,
    postgresql_origin,
    postgresql_sink,
    postgresql_write,
)
from fabric.database.postgresql_marks import has_marks
from fabric.database.postgresql_reduce import Plan
from fabric.database.postgresql_write import TableWriter
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Row, Run, end_of
from fabric.model.errors import Reason, UnavailableError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS_DDL,
    STREAM,
    TOPIC,
    Applying,
    applying,
    item,
    target,
)
from tests.contract.postgresql_world import Application

database = postgresql_world.database
OTHERS = replace(TOPIC, dataset="others")
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(2.5); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE DELETE ON items FOR EACH STATEMENT EXECUTE FUNCTION slow();
"""


@pytest.mark.parametrize("op", Op)
def test_marks_that_touch_rows_are_told_from_what_has_its_rows_with_it(op: Op) -> None:
    run = Run(op=op, position=1, ordinal=1, commit_us=0, rows=[{"id": 1}])
    block = Block(stream=STREAM, after=ZERO, upto=end_of(1, 1), runs=(run,))
    assert has_marks(block) is (op not in (Op.UPSERT, Op.DELETE, Op.SCHEMA))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_connect, "STATEMENT_S_MAX", 1.0)
    monkeypatch.setattr(postgresql_sink, "_APPLY_S_MAX", 1.5)


@pytest.mark.integration
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("op", [Op.TRUNCATE, Op.SNAPSHOT_END])
async def test_a_mark_may_take_long_and_other_topics_go_on(database: str, op: Op) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW)
    more = replace(target(), topic=OTHERS, table="others")
    async with applying(database, target(), more) as sink:
        other = Applying(sink.sink, replace(STREAM, topic=OTHERS))
        await sink.upsert(item(1), item(2))
        if op is Op.SNAPSHOT_END:
            await sink.apply((Op.SNAPSHOT_BEGIN, []))
            await sink.upsert(item(2))
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(sink.apply((op, []), (Op.UPSERT, [item(3)])))
            await asyncio.sleep(0.5)
            await other.upsert(item(1))
            await other.apply((Op.TRUNCATE, []), (Op.UPSERT, [item(2)]))
            assert await sink.sink.quarantined(None) == []
            assert not ending.done()
        assert (sink.state, other.state) == (
            await sink.sink.state(sink.stream), await other.sink.state(other.stream)
        )  # fmt: skip
    left = {row["id"] for row in await application.rows("items")}
    assert left == ({3} if op is Op.TRUNCATE else {2, 3})
    assert [row["id"] for row in await application.rows("others")] == [2]


@pytest.mark.integration
async def test_a_mark_ends_however_long_the_server_works_at_it(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("_SILENT_S", 1.0), ("_LOOK_S", 0.2), ("_LONG_S", 1.0)):
        monkeypatch.setattr(postgresql_marks, name, seconds)
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW)
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await sink.apply((Op.TRUNCATE, []))
    assert await application.rows("items") == []
    said = [each for each in caplog.messages if "removing rows of table items for" in each]
    assert len(said) == 2


@pytest.mark.integration
@pytest.mark.parametrize("sign", ["SELECT false", "SELECT 1/0"])
async def test_a_mark_is_given_up_when_the_server_gives_no_sign(
    database: str, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    for name, seconds in (("_SILENT_S", 1.0), ("_LOOK_S", 0.2)):
        monkeypatch.setattr(postgresql_marks, name, seconds)
    monkeypatch.setattr(postgresql_marks, "_WORKS", f"{sign} WHERE $1::int > 0 AND $2::text > ''")
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW.replace("2.5", "600"))
    async with applying(database) as sink:
        await sink.upsert(item(1))
        with pytest.raises(UnavailableError) as caught:
            await sink.apply((Op.TRUNCATE, []))
        assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
        assert sink.state == await sink.sink.state(STREAM)


@pytest.fixture
async def limited(database: str) -> AsyncIterator[str]:
    """The URL of a role that can be given a limit of connections, with the table `items`."""
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW + "CREATE ROLE limited LOGIN")
    await application.run("GRANT ALL ON items TO limited")
    await application.run(f"GRANT CREATE ON DATABASE {database.rpartition('/')[2]} TO limited")
    yield database.replace("//postgres@", "//limited@")
    await application.run("REASSIGN OWNED BY limited TO postgres; DROP OWNED BY limited")
    await application.run("DROP ROLE limited")


@pytest.mark.integration
@pytest.mark.parametrize("free", [0, 1])
async def test_a_mark_that_finds_no_connection_for_its_watch_says_so_before_its_work(
    database: str, limited: str, free: int
) -> None:
    application = Application(database)
    async with applying(limited) as sink:
        await sink.upsert(item(1))
        await application.run(f"ALTER ROLE limited CONNECTION LIMIT {1 + free}")
        with pytest.raises(UnavailableError, match="takes two connections more") as caught:
            await sink.apply((Op.TRUNCATE, []))
        assert caught.value.reason is Reason.NOT_READY
        assert sink.state == await sink.sink.state(STREAM)
    assert len(await application.rows("items")) == 1


@pytest.mark.integration
@pytest.mark.parametrize("change", ["CONNECTION LIMIT 1", "NOLOGIN"])
async def test_a_server_that_refuses_the_watch_a_connection_works_all_the_same(
    database: str, limited: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for name, seconds in (("_SILENT_S", 1.0), ("_LOOK_S", 0.2)):
        monkeypatch.setattr(postgresql_marks, name, seconds)
    application = Application(database)
    async with applying(limited) as sink:
        await sink.upsert(item(1))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sink.apply((Op.TRUNCATE, [])))
            await asyncio.sleep(0.5)
            await application.run(
                f"ALTER ROLE limited {change};"
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'limited' AND query LIKE '%SELECT EXISTS%pg_stat_activity%'"
            )
    assert await application.rows("items") == []


@pytest.mark.integration
async def test_streams_of_the_topic_wait_for_the_mark(database: str) -> None:
    """A row that goes over to another origin meanwhile is not taken from it."""
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW)
    async with applying(database) as sink:
        origin = replace(STREAM.origin, system="second")
        second = Applying(sink.sink, replace(STREAM, origin=origin))
        await sink.upsert(item(1), item(2))
        await second.upsert(item(9))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sink.apply((Op.TRUNCATE, [])))
            await asyncio.sleep(0.3)
            tasks.create_task(second.upsert(item(1, "taken over")))
    rows = {row["id"]: row["name"] for row in await application.rows("items")}
    assert rows == {1: "taken over", 9: "n"}


@pytest.mark.integration
async def test_streams_of_the_topic_wait_for_a_mark_whose_sink_is_replaced(database: str) -> None:
    """A reader of another topic threw their sink away; the mark goes on all the same."""
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW)
    origin = replace(STREAM.origin, system="second")
    async with applying(database) as sink, asyncio.TaskGroup() as tasks:
        second = Applying(sink.sink, replace(STREAM, origin=origin))
        await sink.upsert(item(1), item(2))
        await second.upsert(item(9))
        tasks.create_task(sink.apply((Op.TRUNCATE, [])))
        await asyncio.sleep(0.3)
        await sink.sink.close()
        async with applying(database) as other:
            second.sink = other.sink
            await second.upsert(item(1, "taken over"))
    rows = {row["id"]: row["name"] for row in await application.rows("items")}
    assert rows == {1: "taken over", 9: "n"}


@pytest.mark.integration
async def test_a_sink_opens_while_a_mark_empties_the_quarantine(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql_connect._SETTINGS, "lock_timeout", "500")
    application = Application(database)
    await application.run(ITEMS_DDL.replace("name text", "name text CHECK (name <> 'bad')"))
    async with applying(database) as sink, asyncio.TaskGroup() as tasks:
        await sink.upsert(item(1), item(2, "bad"))
        slow = SLOW.replace("BEFORE DELETE ON items", "AFTER DELETE ON fabric.quarantine")
        await application.run(slow)
        ending = tasks.create_task(sink.apply((Op.TRUNCATE, [])))
        await asyncio.sleep(0.5)
        async with applying(database):
            assert not ending.done()


@pytest.mark.integration
async def test_a_mark_that_is_cancelled_ends_on_the_server_too(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL + ";" + SLOW.replace("2.5", "600"))
    async with applying(database) as sink:
        await sink.upsert(item(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sink.apply((Op.TRUNCATE, []))
        assert sink.state == await sink.sink.state(STREAM)
        await application.run("DROP TRIGGER slow ON items")  # waits for who still runs
        await sink.apply((Op.TRUNCATE, []))
    assert await application.rows("items") == []


@pytest.mark.integration
async def test_the_server_looks_whether_its_client_is_still_there(database: str) -> None:
    async with applying(database) as sink:
        table = sink.sink._tables[str(TOPIC)]
        async with postgresql_marks.apart(database, table, has_origin=True) as connection:
            said = await connection.fetchval("SHOW client_connection_check_interval")
            assert said == "10s"


@pytest.mark.integration
async def test_a_mark_is_not_written_without_an_origin_where_the_sink_has_one(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture of the same table would send the deletes back."""
    async with applying(database) as sink:
        await sink.upsert(item(1))
        monkeypatch.setattr(postgresql_origin, "_ORIGINS_MAX", 0)
        with pytest.raises(UnavailableError) as caught:
            await sink.apply((Op.TRUNCATE, []))
        assert caught.value.reason is Reason.NOT_READY
    assert len(await Application(database).rows("items")) == 1


@pytest.mark.integration
async def test_keys_are_chosen_piece_by_piece(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dataset with partitions a stream deletes its own keys; they never are all in memory."""
    monkeypatch.setattr(postgresql_write, "PIECE_ROWS", 600, raising=False)
    pieces: list[int] = []
    write = TableWriter.write

    async def noted(self: TableWriter, plan: Plan) -> None:
        pieces.append(len(plan.deletes))
        await write(self, plan)

    two = replace(target(), partitions=2, salt=b"s" * 32)
    async with applying(database, two) as sink:
        await sink.upsert(*(item(number) for number in range(3000)))
        monkeypatch.setattr(TableWriter, "write", noted)
        await sink.apply((Op.TRUNCATE, []))
    assert max(pieces) <= 600
    assert len(pieces) > 2
    left: Sequence[Row | Any] = await Application(database).rows("items")
    assert len(left) == 3000 - sum(pieces)
    assert 1200 < len(left) < 1800
