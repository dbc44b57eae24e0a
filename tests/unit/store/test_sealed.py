"""The birth of a state file."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from fabric.model.change import Sequence
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import Origin, Stream, Topic
from fabric.seal.epoch import Head
from fabric.store.sealed import (
    SealedKey,
    create_state,
    mapped,
    read_heads,
    read_resume,
    read_sealed_key,
)
from fabric.store.state import SourceState, StateFile, StreamHead

SEALED = SealedKey(pcrs=(0, 7), states=((bytes(32), b"blob"),))


def test_a_new_file_holds_the_sealed_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "agent.state"
    assert read_sealed_key(path) is None
    create_state(path, SEALED)
    assert read_sealed_key(path) == SEALED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_birth_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "agent.state"
    path.with_suffix(".part").write_bytes(b"half")
    assert read_sealed_key(path) is None
    create_state(path, SEALED)
    assert read_sealed_key(path) == SEALED


@pytest.mark.parametrize("spoil", ["garbage", "foreign", "key"])
def test_a_file_that_is_not_ours_is_said_and_left(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "agent.state"
    if spoil == "garbage":
        path.write_bytes(b"no database at all, and longer than a header of one would be")
    elif spoil == "foreign":
        sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    else:
        create_state(path, SEALED)
        db = sqlite3.connect(path)
        db.execute("UPDATE meta SET value = '{}' WHERE name = 'sealed'")
        db.commit()
        db.close()
    before = path.read_bytes()
    with pytest.raises(DeniedError) as caught:
        read_sealed_key(path)
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    assert path.read_bytes() == before


def test_nobody_is_told_to_put_an_old_copy_back(tmp_path: Path) -> None:
    """It sends what was sent before: every stream of the host would stop at its readers."""
    path = tmp_path / "agent.state"
    path.write_bytes(b"no database at all, and longer than a header of one would be" * 99)
    with pytest.raises(DeniedError) as caught:
        read_sealed_key(path)
    assert str(caught.value) == (
        f"sealed_state_lost: {path} cannot be read (SQLITE_NOTADB); move it away to begin a new"
        " generation"
    )


def test_a_file_that_cannot_be_opened_now_is_not_called_lost(tmp_path: Path) -> None:
    path = tmp_path / "agent.state"
    path.mkdir()  # the same answer as when there is no room for the files beside it
    with pytest.raises(UnavailableError) as caught:
        read_sealed_key(path)
    assert caught.value.reason is Reason.OVERLOADED


def test_where_a_capture_stood_is_read_without_the_key_and_beside_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.state"
    assert read_resume(path, "main") is None
    create_state(path, SEALED)
    assert read_resume(path, "main") is None
    state = StateFile(path, bytes(32))
    state.save_source("main", SourceState(generation=1, position=2, resume="here"))
    assert read_resume(path, "main") == "here"
    assert read_resume(path, "other") is None
    state.close()
    path.write_bytes(b"no database at all, and longer than a header of one would be")
    assert read_resume(path, "main") is None


def test_heads_are_read_without_the_key_and_beside_the_agent(tmp_path: Path) -> None:
    path, topic = tmp_path / "agent.state", "secret.G01.notes"
    create_state(path, SEALED)
    state = StateFile(path, bytes(32))
    stream = Stream(Origin.parse("G01/registry/main"), Topic.parse(topic), 1)
    opened = Stream(stream.origin, Topic.parse("public.G01.notes"), 0)
    link = Head(origin=stream.origin, partition=1, epoch=b"e", counter=7, hash=b"h" * 32)
    state.save_heads(
        [
            StreamHead(stream=stream, head=link, upto=Sequence(1, 1, 1)),
            StreamHead(stream=opened, head=None, upto=Sequence(1, 1, 1)),
        ]
    )
    assert read_heads(path, [topic, str(opened.topic)]) == {str(stream): b"h" * 32}
    assert read_heads(path, ["secret.G01.other"]) == {}
    state.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE head SET origin = CAST(x'736563726574ff' AS TEXT)")
    db.close()
    with pytest.raises(UnavailableError) as caught:
        read_heads(path, [topic])
    assert "secret" not in str(caught.value)
    with pytest.raises(UnavailableError):
        read_heads(tmp_path / "none.state", [topic])


def test_a_full_disk_is_told_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "agent.state"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA max_page_count = 2")
        db.execute("CREATE TABLE t (x BLOB)")
        with pytest.raises(UnavailableError) as caught, mapped(path):
            db.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert str(caught.value) == f"overloaded: no room on the disk of {tmp_path}; make room"
