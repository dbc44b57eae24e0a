"""fabric.database.postgresql_blockers"""

import asyncio

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
    ("pid", "prepared", "since", "is_committing", "words"),
    [
        (7, None, NOON, False, "process 7 (pg_stat_activity), open since 2026-11-27 12:00:00 UTC:"),
        (7, None, None, False, "process 7 (pg_stat_activity), open: let it commit"),
        (7, None, NOON, True, "process 7, whose commit waits for a standby since 2026"),
        (None, 745, NOON, None, "transaction 745, prepared since 2026-11-27 12:00:00 UTC (pg_prep"),
        (None, None, None, None, "transaction, prepared (pg_prepared_xacts): commit or roll back"),
    ],
)
def test_a_blocker_is_named_with_what_to_do(
    pid: int | None, prepared: int | None, since: str | None, is_committing: bool | None, words: str
) -> None:
    one = Blocker(ident="3/4", pid=pid, prepared=prepared, since=since, is_committing=is_committing)
    assert told([one]).startswith(words)


def test_nobody_is_told_to_end_what_may_wait_for_a_standby() -> None:
    one = Blocker(ident="3/4", pid=7, prepared=None, since=None, is_committing=None)
    assert told([one]).startswith("process 7: as a superuser look at its wait_event")
    assert "if that is SyncRep bring the standby back and do not end it" in told([one])


def test_of_many_some_are_named() -> None:
    many = [
        Blocker(ident=str(n), pid=n, prepared=None, since=NOON, is_committing=False)
        for n in range(9)
    ]
    assert told(many).endswith("; 6 more in pg_locks")


@pytest.mark.integration
@pytest.mark.parametrize("may_know", [False, True])
async def test_whether_a_commit_waits_is_unknown_to_who_may_not_know_alone(
    database: str, may_know: bool
) -> None:
    role = f"looks_{next(postgresql_world.NUMBERS)}"
    await Application(database).run(f"CREATE ROLE {role}; CREATE TABLE items (id int)")
    asking = await connect(database)
    table = await asking.fetchval("SELECT 'items'::regclass::oid")
    await asking.execute("SELECT 1" if may_know else f"SET ROLE {role}")
    works = await psycopg.AsyncConnection.connect(database)

    async def work() -> None:
        """Work, and therefore wait for nothing."""
        with pytest.raises(psycopg.errors.QueryCanceled):
            await works.execute("DO $$BEGIN LOCK TABLE items; LOOP END LOOP; END$$")
        await works.close()

    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        group.create_task(work())
        while not (found := await blockers(asking, xids=[], table=table)):
            await asyncio.sleep(0.02)
        works.cancel()
    await asking.execute(f"RESET ROLE; DROP ROLE {role}")
    await shut(asking)
    assert [each.is_committing for each in found] == [False if may_know else None]


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
