"""fabric.database.postgresql_snapshot"""

import asyncio
import json
import re
from typing import Any, LiteralString

import psycopg
import pytest

from fabric.database import postgresql_session, postgresql_snapshot
from fabric.database.postgresql import PostgresSource
from fabric.model.change import Op
from fabric.model.names import Topic
from fabric.ports import SourceTable
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS,
    ITEMS_DDL,
    TOPIC,
    Reading,
    item,
    new_source,
    reading,
)
from tests.contract.postgresql_world import Application, standby_away, until_held

database = postgresql_world.database


async def insert(application: Application, first: int, count: int, note: str = "") -> None:
    rows: list[Any] = [(n, note) for n in range(first, first + count)]
    await application.run("INSERT INTO items VALUES (%s, 'n', %s)", rows)


@pytest.mark.integration
async def test_a_snapshot_under_many_writers_equals_the_table(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("INSERT INTO items SELECT i, 'n' FROM generate_series(1, 3000) i")
    async with reading(new_source(database, chunk_rows=50)) as read:
        async with asyncio.TaskGroup() as group:
            for worker in range(3):
                group.create_task(write(database, worker))
            await read.until_ended()
        rows = {row["id"]: row for row in await application.rows("items")}
        await read.until(lambda: read.rows() == rows)
        begun = [run for run in read.runs if run.op is Op.SNAPSHOT_BEGIN]
        assert len(begun) == 1


async def write(url: str, worker: int) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for number in range(150):
            key = 1 + (number * 37 + worker * 1000) % 3000
            await connection.execute(
                "UPDATE items SET name = %s WHERE id = %s", (f"u{number}", key)
            )
            await connection.execute("DELETE FROM items WHERE id = %s", (key + 1,))
            await connection.execute(
                "UPDATE items SET id = %s WHERE id = %s",
                (10_000 + worker * 1000 + number, key + 2),
            )


@pytest.mark.integration
async def test_a_row_that_changes_in_part_is_read_again(database: str) -> None:
    """Its unchanged TOAST value is in no message; only a chunk can bring it."""
    big = "".join(f"{n:x}" for n in range(9000))
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 40, big)
    async with reading(new_source(database, chunk_rows=4)) as read, asyncio.TaskGroup() as group:
        group.create_task(touch(database))
        await read.until_ended()
        await read.until(lambda: [row["name"] for row in read.rows().values()] == ["end"] * 40)
        assert {row["note"] for row in read.rows().values()} == {big}


async def touch(url: str) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for number in range(200):
            await connection.execute(
                "UPDATE items SET name = %s WHERE id = %s", (f"u{number}", 1 + number % 40)
            )
        await connection.execute("UPDATE items SET name = 'end'")


@pytest.mark.integration
async def test_a_truncate_in_the_middle_of_a_snapshot_holds(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 100)
    async with reading(new_source(database, chunk_rows=10)) as read:
        await read.until(lambda: bool(read.rows()))
        await application.run("TRUNCATE items")
        await insert(application, 50, 2)
        await read.until_ended()
        await read.until(lambda: set(read.rows()) == {50, 51})


@pytest.mark.integration
async def test_progress_is_shown_and_kept_over_a_restart(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with reading(source) as read:
        await read.until(lambda: len(read.rows()) >= 20)
        status = await source.status()
        assert status["snapshot_total"] == 60
        resume, seen = read.reached.resume, status["snapshot_rows"]
        assert 20 <= seen <= 60
    async with reading(source, resume) as read:
        await read.until_ended()
        status = await source.status()
        assert status["snapshot_rows"] == 60
        assert len(read.rows()) == 60 - seen


@pytest.mark.integration
async def test_wide_rows_leave_in_short_runs(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 40, "w" * 60_000)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        assert max(run.count for run in read.runs) <= 3
        assert read.rows()[7] == item(7, "n", "w" * 60_000)


@pytest.mark.integration
async def test_a_table_without_rows_has_both_marks(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        assert [run.op for run in read.runs] == [Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END]
        assert isinstance(read, Reading)


def without_unseen(resume: str) -> str:
    """A token that does not say what may be unseen."""
    return json.dumps({k: v for k, v in json.loads(resume).items() if k != "unseen"})


async def change_unseen(database: str, read: Reading, group: asyncio.TaskGroup) -> None:
    """Row 55 changes, and the stream gives the change out before its commit is visible."""
    await read.until(lambda: bool(read.rows()))
    update = "UPDATE items SET name = 'new' WHERE id = 55"
    group.create_task(Application(database).run(update))
    await until_held(database)
    await read.until(lambda: 55 in read.rows())


@pytest.mark.integration
@pytest.mark.parametrize("says", [True, False])
async def test_after_a_restart_no_chunk_is_older_than_what_is_out(
    database: str, says: bool
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with asyncio.TaskGroup() as group, standby_away(database):
        async with reading(source) as read:
            await change_unseen(database, read, group)
            resume = read.reached.resume
        if not says:  # a token of an earlier version
            resume = without_unseen(resume)
        async with reading(source, resume) as read:
            for count in range(3):
                await read.until(lambda had=count: len(read.events) > had)  # type: ignore[misc]  # a default
            assert read.rows() == {}
    async with reading(source, read.reached.resume) as read:
        await read.until_ended()
        assert read.rows()[55] == item(55, "new", "")


@pytest.mark.integration
async def test_a_chunk_that_waits_long_is_named_once_and_the_stream_goes_on(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgresql_snapshot, "_HELD_SAID_S", 0.2)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with reading(source) as read, asyncio.TaskGroup() as group:
        async with standby_away(database):
            await change_unseen(database, read, group)
            for _ in range(4):
                await read.until(lambda: True)
            assert Op.SNAPSHOT_END not in [run.op for run in read.runs]
        await read.until_ended()
        assert len(read.rows()) == 60
    (said,) = [each.getMessage() for each in caplog.records if "waits for" in each.msg]
    assert "table public.items waits for transactions that are not visible yet" in said
    assert re.search("standby .* long or prepared", said)


@pytest.mark.integration
async def test_the_stream_does_not_wait_for_the_lock_of_what_holds_a_chunk_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session, "_COUNT_S_MAX", 0.2)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with reading(source) as read:
        await read.until(lambda: bool(read.rows()))
        resume = without_unseen(read.reached.resume)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("UPDATE items SET name = 'x' WHERE id = 55")
        await connection.execute("LOCK TABLE items")
        async with reading(source, resume) as read:
            async with asyncio.timeout(10):
                for _ in range(4):
                    await read.until(lambda: True)
            await connection.commit()
            await read.until_ended()
            assert read.rows()[55]["name"] == "x"


@pytest.mark.integration
async def test_after_a_restart_no_chunk_waits_for_what_never_went_by(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE other (id int)")
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        async with reading(source) as read:
            await read.until(lambda: bool(read.rows()))
            await application.run("UPDATE items SET name = 'x' WHERE id = 1")
            await connection.execute("INSERT INTO other VALUES (1)")
            await application.run("UPDATE items SET name = 'y' WHERE id = 1")
            await read.until(lambda: read.rows()[1]["name"] == "y")
            resume = read.reached.resume
        async with reading(source, resume) as read:
            await read.until_ended()


@pytest.mark.integration
@pytest.mark.parametrize("what", ["UPDATE items SET name = 'x' WHERE id = 55", "LOCK TABLE items"])
async def test_a_snapshot_that_waits_says_for_whom_and_no_longer_when_it_goes_on(
    database: str, monkeypatch: pytest.MonkeyPatch, what: LiteralString
) -> None:
    monkeypatch.setattr(postgresql_snapshot, "_HELD_SHOWN_S", 0.2)
    monkeypatch.setattr(postgresql_session, "_COUNT_S_MAX", 0.2)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await insert(application, 1, 60)
    source = new_source(database, chunk_rows=10)
    async with reading(source) as read:
        await read.until(lambda: bool(read.rows()))
        assert await source.waits() is None
        resume = without_unseen(read.reached.resume)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(what)
        async with reading(source, resume) as read:
            for _ in range(4):
                await read.until(lambda: True)
            said = await source.waits() or ""
            assert said.startswith("the snapshot of table public.items waits for ")
            assert f"process {connection.info.backend_pid} (pg_stat_activity), open since" in said
            await connection.commit()
            await read.until_ended()
            assert await source.waits() is None


@pytest.mark.integration
async def test_the_stream_goes_on_while_a_table_that_is_to_be_read_is_locked(
    database: str,
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE more (LIKE items INCLUDING ALL)")
    await insert(application, 1, 60)
    more = Topic("secret", "G01", "more")
    tables = [
        SourceTable(table=f"public.{topic.dataset}", topic=topic, schema=ITEMS)
        for topic in (more, TOPIC)
    ]
    slot = f"fabric_locked_{next(postgresql_world.NUMBERS)}"
    source = PostgresSource(
        database, tables, slot=slot, publication="fabric", chunk_rows=10, silence_s=0.3
    )
    async with reading(source) as read:
        await read.until(lambda: 1 in read.rows())
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("LOCK TABLE items")
            async with asyncio.timeout(10):
                for number in range(100, 103):
                    await application.run(f"INSERT INTO more VALUES ({number}, 'n')")
                    await read.until(lambda number=number: number in read.rows())  # type: ignore[misc]  # a default
            assert Op.SNAPSHOT_END in [run.op for run in read.runs]
