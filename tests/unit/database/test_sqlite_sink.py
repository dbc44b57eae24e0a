"""What is SQLite's own; what every sink does is in tests/contract."""

import sqlite3
from pathlib import Path

import pytest

from fabric.database import sqlite_thread
from fabric.database.sqlite import SqliteSink
from fabric.model.change import Op
from fabric.model.errors import ConfigInvalid, UnavailableError
from tests.contract.sink_suite import OTHER, Feed, ids, stream, target
from tests.contract.test_sqlite import SqliteSinkWorld
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE_SCHEMA, POISON, note, person


@pytest.fixture
def world(tmp_path: Path) -> SqliteSinkWorld:
    return SqliteSinkWorld(tmp_path / "target.db")


async def test_a_locked_target_is_unavailable_and_unchanged(
    world: SqliteSinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_thread, "_BUSY_S_MAX", 0.05)
    sink = world.sink()
    await sink.open([target()])
    feed = Feed(sink, stream())
    other = sqlite3.connect(world.file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        await feed.upsert(person(1))
    other.execute("ROLLBACK")
    other.close()
    feed.position = 0
    await feed.upsert(person(1))
    assert ids(await world.rows(target())) == [1]
    await sink.close()


async def test_two_datasets_may_not_share_a_table(world: SqliteSinkWorld) -> None:
    with pytest.raises(ConfigInvalid, match="two datasets"):
        await world.sink().open([target(), target(NOTES, PEOPLE_SCHEMA), target()])


async def test_the_flag_is_down_after_a_failed_retry(world: SqliteSinkWorld) -> None:
    sink = world.sink()
    await sink.open([target()])
    await world.spoil(target())
    await Feed(sink, stream()).upsert(person(1, POISON))
    (parked,) = await sink.quarantined(None)
    assert await sink.retry(parked.id) == 0
    again = (await sink.quarantined(None))[0]
    assert POISON not in again.reason
    connection = sqlite3.connect(world.file.path)
    assert connection.execute("SELECT count(*) FROM fabric_applying").fetchone() == (0,)
    connection.close()
    await sink.close()


async def test_rows_that_change_hands_belong_to_the_last_writer(world: SqliteSinkWorld) -> None:
    sink = world.sink()
    await sink.open([target()])
    one, two = Feed(sink, stream()), Feed(sink, stream(origin=OTHER))
    await one.upsert(person(1), person(2))
    await two.upsert(person(1, "taken"), person(3), person(4))
    await one.upsert(person(3, "taken back"))
    await one.apply((Op.SNAPSHOT_BEGIN, []), (Op.SNAPSHOT_END, []))
    assert ids(await world.rows(target())) == [1, 4]
    await two.apply((Op.TRUNCATE, []))
    assert await world.rows(target()) == []
    await sink.close()


async def test_a_table_that_was_there_keeps_its_own_columns(world: SqliteSinkWorld) -> None:
    world.file.run(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT, mine TEXT DEFAULT 'mine',"
        " PRIMARY KEY (region, number))"
    )
    sink = SqliteSink(world.file.path)
    await sink.open([target(NOTES, NOTES_SCHEMA)])
    feed = Feed(sink, stream(NOTES))
    await feed.upsert(note("a", 1))
    world.file.run("UPDATE notes SET mine = 'changed'")
    await feed.upsert(note("a", 1, "new"))
    (row,) = world.file.rows("notes")
    assert (row["body"], row["mine"]) == ("new", "changed")
    await sink.close()


async def test_a_closed_sink_is_unavailable(world: SqliteSinkWorld) -> None:
    sink = world.sink()
    await sink.open([target()])
    await sink.close()
    with pytest.raises(UnavailableError):
        await sink.state(stream())
