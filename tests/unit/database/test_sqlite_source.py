"""What is SQLite's own; what every source does is in tests/contract."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from fabric.database.sqlite import SqliteSink, SqliteSource
from fabric.model.change import Op
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.limits import QUEUE_BYTES_MAX
from fabric.ports import SourceTable
from tests.contract.replica import Follower, Replica, follow
from tests.contract.sink_suite import Feed, stream, target
from tests.contract.source_suite import catch_up, make_replica
from tests.contract.test_sqlite import SqliteSourceWorld
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, note, person


@pytest.fixture
def world(tmp_path: Path) -> SqliteSourceWorld:
    return SqliteSourceWorld(tmp_path / "source.db")


async def synced(world: SqliteSourceWorld) -> Follower:
    await world.insert(world.people, [person(n) for n in range(1, 6)])
    follower = await follow(world.source(), None, make_replica(world))
    await follower.until_ended(PEOPLE, NOTES)
    return follower


async def test_a_second_capture_of_one_database_is_refused(world: SqliteSourceWorld) -> None:
    first, second = world.source(), world.source()
    await first.open(None)
    with pytest.raises(UnavailableError, match="another capture"):
        await second.open(None)
    await first.close()
    await second.open(None)
    await second.close()


async def test_what_a_sink_writes_is_not_captured(world: SqliteSourceWorld) -> None:
    follower = await synced(world)
    sink = SqliteSink(world.file.path)
    await sink.open([target()])
    feed = Feed(sink, stream())
    await feed.upsert(person(100), person(1, "from elsewhere"))
    await feed.apply((Op.DELETE, [{"id": 2}]))
    await sink.close()
    count = len(follower.captured)
    await world.insert(world.people, [person(200)])
    await follower.until(lambda: len(follower.captured) > count)
    assert [row["id"] for e in follower.captured[count:] for row in e.run.rows] == [200]
    await follower.close()


async def test_a_table_made_anew_while_reading_ends_the_reading(world: SqliteSourceWorld) -> None:
    follower = await synced(world)
    world.file.run("DROP TABLE notes")
    world.file.run(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT, PRIMARY KEY (region, number))"
    )
    world.file.insert("notes", [note("lost", 1)])
    with pytest.raises(UnavailableError, match="open again"):
        await follower.until(lambda: False)
    resume = follower.resume
    await follower.source.close()
    again = await follow(world.source(), resume, follower.replica)
    assert again.generation > follower.generation
    await catch_up(world, again)
    await again.close()


async def test_an_older_copy_of_the_file_is_another_life(
    world: SqliteSourceWorld, tmp_path: Path
) -> None:
    follower = await synced(world)
    await follower.close()
    shutil.copy(world.file.path, tmp_path / "backup.db")
    again = await follow(world.source(), follower.resume, follower.replica)
    await world.insert(world.people, [person(n) for n in range(100, 110)])
    await catch_up(world, again)
    await again.source.release(again.reached[-1].position)
    await again.close()
    for suffix in ("-wal", "-shm"):
        world.file.path.with_name(world.file.path.name + suffix).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", world.file.path)
    # As many ids pass as before, so that only the watermark's mark tells the lives apart.
    for number in range(20, 60):
        await world.insert(world.people, [person(number)])
    restored = await follow(world.source(), again.resume, again.replica)
    assert restored.generation > again.generation
    await catch_up(world, restored)
    await restored.close()


async def test_whoever_empties_the_change_table_has_every_table_read_anew(
    world: SqliteSourceWorld,
) -> None:
    follower = await synced(world)
    resume = follower.resume
    await follower.close()
    world.file.run("DELETE FROM fabric_changes")
    await world.insert(world.people, [person(200)])
    again = await follow(world.source(), resume, follower.replica)
    assert again.generation > follower.generation
    await again.until_ended(PEOPLE, NOTES)
    await catch_up(world, again)
    await again.close()


async def test_release_leaves_only_what_may_be_asked_for(world: SqliteSourceWorld) -> None:
    follower = await synced(world)
    await world.insert(world.people, [person(n) for n in range(100, 150)])
    await catch_up(world, follower)
    await follower.source.release(follower.reached[-1].position)
    await follower.close()
    connection = sqlite3.connect(world.file.path)
    left = connection.execute("SELECT count(*) FROM fabric_changes").fetchone()
    connection.close()
    assert left == (1,)


async def test_a_row_that_is_not_of_its_type_holds_the_capture(world: SqliteSourceWorld) -> None:
    follower = await synced(world)
    world.file.run("UPDATE people SET born = 'someday' WHERE id = 1")
    with pytest.raises(DeniedError, match="column born") as caught:
        await follower.until(lambda: False)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert "someday" not in str(caught.value)
    await follower.source.close()


@pytest.mark.parametrize("key", ["x'736563726574', 1", "'r', 'secret'"])
@pytest.mark.parametrize("mends", ["DELETE FROM notes", "UPDATE notes SET region='r', number=9"])
async def test_what_is_said_of_a_gone_row_whose_key_is_no_key_lets_the_capture_go_on(
    world: SqliteSourceWorld, key: str, mends: str
) -> None:
    follower = await synced(world)
    await world.insert(world.notes, [note("kept", 1)])
    await follower.until(
        lambda: [row["region"] for row in follower.replica.rows(NOTES)] == ["kept"]
    )
    world.file.run(f"INSERT INTO notes VALUES ({key}, 'x')")
    world.file.run(f"{mends} WHERE body = 'x'")
    world.file.run("DELETE FROM notes WHERE region = 'kept'")
    with pytest.raises(DeniedError, match="table notes") as caught:
        await follower.until(lambda: False)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert "secret" not in str(caught.value)
    await follower.source.close()
    _, told, statement = str(caught.value.args[0]).partition("run in that file: ")
    assert told
    world.file.run(statement)
    again = await follow(world.source(), follower.resume, follower.replica)
    assert again.generation == follower.generation
    await catch_up(world, again)
    assert "kept" not in [row["region"] for row in again.replica.rows(NOTES)]
    await again.close()


async def test_wide_rows_arrive_whole_in_snapshot_and_stream(world: SqliteSourceWorld) -> None:
    body = "x" * (QUEUE_BYTES_MAX // 4)
    await world.insert(world.notes, [note("a", n, body) for n in range(8)])
    follower = await follow(world.source(), None, make_replica(world))
    await follower.until_ended(PEOPLE, NOTES)
    await world.insert(world.notes, [note("b", n, body) for n in range(8)])
    await catch_up(world, follower)
    runs = [event.run for event in follower.captured if event.topic == NOTES]
    assert max(sum(len(str(row["body"])) for row in run.rows) for run in runs) <= QUEUE_BYTES_MAX
    assert [run.op for run in runs].count(Op.SNAPSHOT_END) == 1
    places = [(run.position, run.ordinal) for run in runs]
    assert places == sorted(set(places))
    await follower.close()


async def test_a_dataset_that_is_added_gets_its_snapshot_in_the_same_generation(
    world: SqliteSourceWorld,
) -> None:
    await world.insert(world.people, [person(1)])
    await world.insert(world.notes, [note("a", 1)])
    only = SqliteSource(world.file.path, [world.people], silence_s=0.2)
    replica = Replica({str(PEOPLE): PEOPLE_SCHEMA, str(NOTES): NOTES_SCHEMA})
    first = await follow(only, None, replica)
    await first.until_ended(PEOPLE)
    await first.close()
    both = await follow(world.source(), first.resume, replica)
    assert both.generation == first.generation
    await both.until_ended(NOTES)
    assert replica.rows(NOTES) == [note("a", 1)]
    marks = [e.topic for e in both.captured if e.run.op is Op.SNAPSHOT_BEGIN]
    assert marks == [NOTES]
    await both.close()


async def test_dates_and_decimals_may_be_text_in_the_source(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, born DATE, seen TEXT,"
        " active INTEGER, score REAL, photo BLOB, balance NUMERIC(12, 2))"
    )
    connection.execute(
        "INSERT INTO people VALUES (1, 'x', '1970-01-11', '1970-01-01 00:00:01', 1, 2, NULL, 12.5)"
    )
    connection.commit()
    connection.close()
    table = SourceTable(table="main.people", topic=PEOPLE, schema=PEOPLE_SCHEMA)
    replica = Replica({str(PEOPLE): PEOPLE_SCHEMA})
    follower = await follow(SqliteSource(tmp_path / "a.db", [table]), None, replica)
    await follower.until_ended(PEOPLE)
    await follower.close()
    (row,) = replica.rows(PEOPLE)
    assert (row["born"], row["seen"], row["score"]) == (10, 1_000_000, 2.0)
    assert row["balance"] == (1250).to_bytes(2, "big")


async def test_a_missing_file_is_a_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="correct the url"):
        await SqliteSource(tmp_path / "none.db", []).open(None)


async def test_reading_before_opening_is_a_bug() -> None:
    source = SqliteSource("none.db", [])
    with pytest.raises(UsageError):
        await source.status()


async def test_lag_is_the_age_of_the_oldest_change_not_released(
    world: SqliteSourceWorld,
) -> None:
    source = world.source()
    await source.open(None)
    assert (await source.status())["lag_seconds"] == 0
    await world.insert(world.people, [person(1)])
    assert 0 <= (await source.status())["lag_seconds"] < 60
    await source.close()


async def test_another_capture_gets_in_also_when_a_close_was_cancelled(
    world: SqliteSourceWorld,
) -> None:
    """The capture's thread waits for the application's lock; who ends it waits less long."""
    source, application = world.source(), sqlite3.connect(world.file.path, isolation_level=None)
    await source.open(None)
    application.execute("BEGIN IMMEDIATE")
    async with asyncio.TaskGroup() as tasks:
        releasing = tasks.create_task(source.release(0))
        await asyncio.sleep(0.05)
        closing = tasks.create_task(source.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        application.execute("ROLLBACK")
        await releasing
    application.close()
    async with asyncio.timeout(10):
        while not await _opens(world.source()):
            await asyncio.sleep(0.01)


async def _opens(source: SqliteSource) -> bool:
    try:
        await source.open(None)
    except UnavailableError:
        return False
    await source.close()
    return True
