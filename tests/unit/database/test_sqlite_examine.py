"""fabric.database.sqlite_examine"""

import fcntl
import os
import shlex
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fabric.database import sqlite_examine
from fabric.database.finding import MADE, Capture, Finding
from fabric.database.sqlite import SqliteSink, SqliteSource
from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.locks import Holder
from fabric.model.change import Change, Op
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import Topic
from fabric.ports import Reached, SourceTable
from tests.contract.sink_suite import Feed, stream, target
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, POISON, person

NOTES_DDL = "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT"
KEY = "PRIMARY KEY (region, number))"
TABLE = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)
CAPTURE = Capture(tables=[TABLE], slot="", publication="", resume=None, agent=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    run(tmp_path / "a.db", f"{NOTES_DDL}, {KEY}")
    return tmp_path / "a.db"


def run(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def look(path: Path, capture: Capture = CAPTURE) -> dict[str, Finding]:
    return {found.part: found for found in sqlite_examine.examine_source(str(path), capture)}


def look_at_target(path: Path) -> dict[str, Finding]:
    return {found.part: found for found in sqlite_examine.examine_target(str(path), [target()])}


def ills(found: dict[str, Finding]) -> set[str]:
    return {part for part, item in found.items() if item.reason is not None}


async def captured(path: Path) -> Capture:
    """The capture after it has run once."""
    source = SqliteSource(path, [TABLE])
    await source.open(None)
    async for event in source.read():
        if isinstance(event, Reached):
            resume = event.resume
            break
    await source.close()
    return replace(CAPTURE, resume=resume)


def test_a_fresh_database_is_fit_and_stays_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    found = look(path)
    assert not ills(found)
    assert "makes it" in found["change table"].seen
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["a.db"]


async def test_a_capture_that_has_run_is_well_until_somebody_meddles(path: Path) -> None:
    shutil.copy(path, path.with_name("old.db"))
    capture = await captured(path)
    assert not ills(look(path, capture))
    run(path, "DROP TRIGGER fabric_1_update")
    assert ills(look(path, capture)) == {"change table"}
    shutil.copy(path.with_name("old.db"), path)
    assert ills(look(path, capture)) == {"change table"}


async def test_an_older_copy_that_was_put_back_is_told(path: Path) -> None:
    await captured(path)
    shutil.copy(path, path.with_name("old.db"))
    run(path, "INSERT INTO notes VALUES ('a', 1, 'x')")
    capture = await captured(path)
    shutil.copy(path.with_name("old.db"), path)
    found = look(path, capture)
    assert ills(found) == {"change table"}
    assert "older copy" in found["change table"].seen
    assert not ills(look(path, replace(capture, agent=os.getpid())))  # a running one moves on


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("CREATE TABLE other (id INTEGER)", "no such table"),
        (f"{NOTES_DDL})", "nothing makes the key unique"),
        (f"{NOTES_DDL.replace(', body TEXT', '')}, {KEY}", "column body"),
    ],
)
def test_a_table_that_cannot_be_captured_is_named(tmp_path: Path, ddl: str, words: str) -> None:
    run(tmp_path / "b.db", ddl)
    found = look(tmp_path / "b.db")
    assert ills(found) == {"table notes"}
    assert words in found["table notes"].seen


def test_another_reader_is_named_and_ours_is_not_another(path: Path) -> None:
    with Path(f"{path}-fabric").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = look(path)
        assert ills(found) == {"reader"}
        assert f"process {os.getpid()} " in found["reader"].seen
        assert not ills(look(path, replace(CAPTURE, agent=os.getpid())))


def test_a_reader_that_is_a_guess_is_not_to_be_stopped_unseen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = Holder(pid=7, is_sure=False)
    monkeypatch.setattr("fabric.database.sqlite_examine.holder", lambda _path: guess)
    found = look(path)["reader"]
    assert found.seen == "perhaps process 7 captures this database"
    assert found.remedy.startswith("see what that process is before you stop it")


@pytest.mark.parametrize("data", [None, b"no database, but long enough to be taken for one" * 99])
def test_a_file_that_is_none_is_one_finding(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "c.db").write_bytes(data)
    found = look(tmp_path / "c.db")
    assert list(found) == ["file"]
    assert found["file"].reason is Reason.CONFIG_INVALID


def test_a_file_that_may_not_be_written_is_told(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != path)
    assert look(path)["file"].reason is Reason.SOURCE_UNFIT
    assert look_at_target(path)["file"].reason is Reason.TARGET_UNFIT


def test_a_target_that_is_not_there_will_be_made_where_there_is_a_folder(tmp_path: Path) -> None:
    assert not ills(look_at_target(tmp_path / "t.db"))
    assert ills(look_at_target(tmp_path / "no" / "t.db")) == {"file"}
    assert list(tmp_path.iterdir()) == []


async def test_a_target_is_well_until_a_change_waits_in_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sink = SqliteSink(path)
    await sink.open([target()])
    found = look_at_target(path)
    assert not ills(found)
    assert set(found) == {"file", "table people", f"dataset {PEOPLE}", "quarantine"}
    run(
        path,
        "CREATE TRIGGER spoilt BEFORE INSERT ON people WHEN NEW.name = 'poison'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    await Feed(sink, stream()).upsert(person(1, POISON))
    await sink.close()
    assert ills(look_at_target(path)) == {"quarantine"}


async def test_a_dataset_that_may_lack_rows_is_named_until_its_snapshot_has_ended(
    tmp_path: Path,
) -> None:
    path, part = tmp_path / "t.db", f"dataset {PEOPLE}"
    sink = SqliteSink(path)
    await sink.open([target()])
    feed = Feed(sink, stream())
    await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(1)]))
    found = look_at_target(path)
    assert ills(found) == {part}
    assert "its end has not come" in found[part].seen
    await feed.apply((Op.SNAPSHOT_END, []))
    assert not ills(look_at_target(path))
    await sink.close()


def test_a_target_table_that_does_not_fit_is_named(tmp_path: Path) -> None:
    run(tmp_path / "t.db", "CREATE TABLE people (id INTEGER PRIMARY KEY)")
    assert ills(look_at_target(tmp_path / "t.db")) == {"table people"}


# The outbox


async def outbox(folder: Path, *topics: str) -> Path:
    """An outbox with one change for each topic."""
    path = folder / "outbox.db"
    known = [replace(TABLE, topic=Topic.parse(topic)) for topic in topics]
    made = SqliteOutbox(path, known)
    await made.open(None)
    for topic in topics:
        await made.put(Topic.parse(topic), Op.UPSERT, {"region": "a", "number": 1, "body": None})
    await made.close()
    return path


async def test_an_outbox_says_how_much_waits(tmp_path: Path) -> None:
    absent = sqlite_examine.examine_outbox(tmp_path / "no" / "outbox.db", [])
    assert (absent.reason, absent.seen) == (None, MADE)
    found = sqlite_examine.examine_outbox(await outbox(tmp_path, str(NOTES)), [str(NOTES)])
    assert (found.reason, found.seen) == (None, "1 changes wait")


async def test_changes_that_no_setting_publishes_any_more_are_told(tmp_path: Path) -> None:
    found = sqlite_examine.examine_outbox(await outbox(tmp_path, str(NOTES)), [])
    assert found.reason is Reason.TOPIC_UNKNOWN
    assert f"1 changes for {NOTES} wait" in found.seen
    assert found.remedy


async def test_a_full_outbox_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_examine, "OUTBOX_ROWS_MAX", 1)
    found = sqlite_examine.examine_outbox(await outbox(tmp_path, str(NOTES)), [str(NOTES)])
    assert found.reason is Reason.OVERLOADED


async def test_a_change_that_can_never_be_sent_is_told_with_a_way_out_that_works(
    tmp_path: Path,
) -> None:
    def room(change: Change) -> None:
        if change.row and len(change.row["body"]) > 150_000:
            raise DeniedError(Reason.TOO_LARGE, "is 7 bytes, more than one block holds")

    path = tmp_path / "out box.db"
    made = SqliteOutbox(path, [TABLE])
    await made.open(None)
    for number, size in enumerate((1, 150_000, 150_001)):
        row = {"region": "a", "number": number, "body": "x" * size}
        last = await made.put(NOTES, Op.UPSERT, row)
    await made.close()
    look = partial(sqlite_examine.examine_outbox, path, [str(NOTES)], tables=[TABLE], room=room)
    found = look()
    assert found.reason is Reason.TOO_LARGE
    assert f"change {last.position} for {NOTES} is 7 bytes, more than one block holds" in found.seen
    command, file, statement = shlex.split(found.remedy.removeprefix("take it out with "))[:3]
    assert (command, file) == ("sqlite3", str(path))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement.rstrip(","))
    assert (look().reason, look().seen) == (None, "2 changes wait")


def test_an_outbox_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"nothing of ours" * 100)
    assert sqlite_examine.examine_outbox(tmp_path / "outbox.db", []).reason is not None
