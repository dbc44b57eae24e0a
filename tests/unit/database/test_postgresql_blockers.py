"""fabric.database.postgresql_blockers"""

import psycopg
import pytest

from fabric.database.postgresql_blockers import Blocker, blockers, told
from fabric.database.postgresql_connect import connect, shut
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL
from tests.contract.postgresql_world import Application

database = postgresql_world.database
NOON = "2026-11-27 12:00:00"


@pytest.mark.parametrize(
    ("pid", "gid", "since", "is_committing", "words"),
    [
        (7, None, NOON, False, "process 7 (pg_stat_activity), open since 2026-11-27 12:00:00 UTC:"),
        (7, None, None, None, "process 7 (pg_stat_activity), open: let it commit"),
        (7, None, NOON, True, "process 7, whose commit waits for a standby since 2026"),
        (None, "pay\n1", NOON, None, r"transaction 'pay\n1', prepared since 2026"),
    ],
)
def test_a_blocker_is_named_with_what_to_do(
    pid: int | None, gid: str | None, since: str | None, is_committing: bool | None, words: str
) -> None:
    one = Blocker(pid=pid, gid=gid, since=since, is_committing=is_committing)
    assert told([one]).startswith(words)


def test_of_many_some_are_named() -> None:
    many = [Blocker(pid=n, gid=None, since=NOON, is_committing=False) for n in range(9)]
    assert told(many).endswith("; 6 more in pg_locks")


@pytest.mark.integration
async def test_who_writes_and_who_locks_is_found_and_nobody_else(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL + " PARTITION BY RANGE (id)")
    await application.run("CREATE TABLE items_1 PARTITION OF items DEFAULT")
    await application.run("CREATE TABLE other (id int)")
    begin = psycopg.AsyncConnection.connect
    asking = await connect(database)
    table = await asking.fetchval("SELECT 'items'::regclass::oid")
    async with await begin(database) as writes, await begin(database) as locks:
        await writes.execute("LOCK TABLE other; INSERT INTO other VALUES (1); SAVEPOINT s;"
                             "INSERT INTO other VALUES (2)")  # fmt: skip
        cursor = await writes.execute("SELECT pg_current_xact_id()::xid::text::int8")
        (xid,) = await cursor.fetchone() or (0,)
        await locks.execute("LOCK TABLE items_1")
        for xids, of, pids in (
            ([xid], None, {writes.info.backend_pid}),
            ([], table, {locks.info.backend_pid}),
            ([xid], table, {writes.info.backend_pid, locks.info.backend_pid}),
        ):
            found = await blockers(asking, xids=xids, table=of)
            assert {each.pid for each in found} == pids
            assert len(found) == len(pids)
            assert all(each.since for each in found)
    assert not await blockers(asking, xids=[xid], table=table)
    await shut(asking)
