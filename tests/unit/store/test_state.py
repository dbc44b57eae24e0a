"""The state file: what it keeps, and what it keeps secret."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.model.change import Sequence
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.ports import StreamState
from fabric.seal.epoch import Head
from fabric.store.sealed import SealedKey, create_state
from fabric.store.state import KeyRecord, SourceState, StateFile, StoredEpoch, StreamHead
from fabric.store.vault import Vault

NOW = datetime(2026, 11, 24, 8, 0, 0, 123_456, tzinfo=UTC)
TOPIC = Topic.parse("secret.G01.notes")
ORIGIN = Origin.parse("G01/registry/main")
STREAM = Stream(ORIGIN, TOPIC, 0)
KEY = Vault.new_key()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "agent.state"
    create_state(path, SealedKey(pcrs=(0,), states=((bytes(32), b"blob"),)))
    return path


@pytest.fixture
def state(path: Path) -> Iterator[StateFile]:
    state = StateFile(path, KEY)
    yield state
    state.close()


def head(counter: int, partition: int = 0) -> StreamHead:
    link = Head(
        origin=ORIGIN, partition=partition, epoch=b"e" * 32, counter=counter, hash=b"h" * 32
    )
    stream = replace(STREAM, partition=partition)
    return StreamHead(stream=stream, head=link, upto=Sequence(7, counter, 2**63 - 1))


def epoch(number: int, secret: bytes = b"a secret of an epoch") -> StoredEpoch:
    return StoredEpoch(
        topic=TOPIC,
        number=number,
        started=NOW + timedelta(hours=number),
        start=b"start",
        secret=secret,
    )


def key(name: str, private: bytes = b"a private key's bytes") -> KeyRecord:
    return KeyRecord(name=name, kind="sign", alg=-19, store="file", made=NOW, private=private)


def test_a_capture_goes_on_where_it_stood(path: Path, state: StateFile) -> None:
    assert state.source("main") is None
    stood = SourceState(generation=7, position=2**62, resume='{"lsn": 5}')
    state.save_source("main", stood)
    state.close()
    again = StateFile(path, KEY)
    assert again.source("main") == stood
    again.close()


def test_a_capture_that_is_forgotten_keeps_the_generation_that_the_next_must_exceed(
    state: StateFile,
) -> None:
    state.forget_source("main", [])
    assert state.source("main") is None
    state.save_source("main", SourceState(generation=7, position=5, resume="token"))
    state.forget_source("main", [])
    assert state.source("main") == SourceState(
        generation=7, position=-1, resume='{"generation": 7}'
    )


def test_heads_are_kept_per_stream_and_the_last_counts(state: StateFile) -> None:
    state.save_heads([head(1), head(4, partition=1)])
    state.save_heads([head(2)], durable=True)
    assert state.heads(TOPIC) == {
        STREAM: head(2),
        replace(STREAM, partition=1): head(4, partition=1),
    }
    assert state.heads(Topic.parse("secret.G01.other")) == {}


def test_open_topics_have_an_end_and_no_link(state: StateFile) -> None:
    item = StreamHead(stream=STREAM, head=None, upto=Sequence(1, 2, 3))
    state.save_heads([item])
    assert state.heads(TOPIC) == {STREAM: item}


def test_epochs_come_back_with_their_secrets(state: StateFile) -> None:
    for number in (3, 1, 2):
        state.save_epoch(epoch(number))
    assert state.epochs(TOPIC) == [epoch(1), epoch(2), epoch(3)]


def test_old_epochs_go_but_never_the_newest(state: StateFile) -> None:
    assert state.epoch_number(TOPIC) is None
    for number in (1, 2, 3):
        state.save_epoch(epoch(number))
    state.save_granted(b"2" * 32, [("G02/health/b1", b"t" * 32)])
    state.drop_epoch(TOPIC, 2, b"2" * 32)
    assert [item.number for item in state.epochs(TOPIC)] == [1, 3]
    assert state.granted(b"2" * 32) == frozenset()
    assert state.epoch(TOPIC, 2) is None
    assert state.epoch(TOPIC, 3) == epoch(3)
    assert state.epoch_number(TOPIC) == 3


def test_what_is_erased_leaves_nothing_on_disk(path: Path, state: StateFile) -> None:
    state.save_epoch(epoch(1))
    state.save_epoch(epoch(2))
    state.save_keys([key("1/hpke/32"), key("2/hpke/32")])
    boxes = _boxes(path)
    state.drop_epoch(TOPIC, 1, b"1" * 32)
    state.drop_keys(["1/hpke/32"])
    left = _boxes(path)
    assert (len(boxes), len(left)) == (4, 2)
    data = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert all(box in data for box in left)
    assert not any(box in data for box in boxes - left)


def _boxes(path: Path) -> set[bytes]:
    with sqlite3.connect(path) as db:
        return {
            row[0]
            for table in ("epoch", "secret")
            for row in db.execute(f"SELECT box FROM {table}")
        }


def test_who_is_named_comes_back_with_the_time_it_was(state: StateFile) -> None:
    assert state.named(TOPIC) == {}
    b, c = HostId.parse("G02/health/b1"), HostId.parse("G03/tax/c1")
    state.save_named(TOPIC, {b: NOW, c: NOW + timedelta(hours=1)})
    state.save_named(TOPIC, {b: NOW})
    assert state.named(TOPIC) == {b: NOW}


def test_grants_are_remembered(state: StateFile) -> None:
    assert state.granted(b"e" * 32) == frozenset()
    state.save_granted(b"e" * 32, [("G02/health/b1", b"t" * 32)])
    state.save_granted(b"e" * 32, [("G02/health/b1", b"t" * 32)])
    assert state.granted(b"e" * 32) == {("G02/health/b1", b"t" * 32)}


def test_keys_come_back_oldest_first_and_go_by_name(state: StateFile) -> None:
    younger = replace(key("b"), made=NOW + timedelta(seconds=1))
    state.save_keys([younger, key("a")])
    assert state.keys() == [key("a"), younger]
    state.drop_keys(["a"])
    assert state.keys() == [younger]


@pytest.mark.parametrize("lacks", [(False, False), (True, False), (True, True)])
def test_positions_of_subscribers_are_kept(state: StateFile, lacks: tuple[bool, bool]) -> None:
    position = StreamState(
        high=Sequence(1, 2, 3),
        chain=b"chain",
        offset=9,
        cluster="c",
        topic_id="t",
        incomplete=lacks[0],
        in_snapshot=lacks[1],
    )
    state.save_position(STREAM, position)
    assert state.positions(TOPIC) == {STREAM: position}


@pytest.mark.parametrize(
    ("high", "stays"),
    [
        (Sequence(7, 5, 2), True),
        (Sequence(7, 4, 9), True),
        (Sequence(6, 99, 9), True),  # of the life before the source was read anew
        (Sequence(7, 5, 3), False),  # the same place in a restored log
        (Sequence(7, 5, 4), False),
        (Sequence(8, 1, 1), False),
    ],
)
def test_a_subscribers_position_never_goes_back(
    state: StateFile, high: Sequence, stays: bool
) -> None:
    stood = StreamState(
        high=Sequence(7, 5, 3), chain=b"c", offset=9, cluster="c", topic_id="t", incomplete=False
    )
    state.save_position(STREAM, stood)
    other = replace(
        stood, high=high, chain=b"d", offset=4, cluster="e", topic_id="u", incomplete=True
    )
    state.save_position(STREAM, other)
    assert state.positions(TOPIC) == {STREAM: stood if stays else other}


def test_facts_come_back(state: StateFile) -> None:
    assert state.get("result") is None
    state.put("result", b"\x00\xff")
    assert state.get("result") == b"\x00\xff"


def test_a_thief_of_the_disk_finds_no_secret(path: Path, state: StateFile) -> None:
    state.save_epoch(epoch(1))
    state.save_keys([key("a")])
    state.close()
    stolen = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"a secret of an epoch" not in stolen
    assert b"a private key's bytes" not in stolen
    assert KEY not in stolen


def test_another_key_opens_nothing(path: Path, state: StateFile) -> None:
    state.save_keys([key("a")])
    state.save_epoch(epoch(1))
    other = StateFile(path, Vault.new_key())
    for read in (other.keys, lambda: other.epochs(TOPIC)):
        with pytest.raises(DeniedError) as caught:
            read()
        assert caught.value.reason is Reason.SEALED_STATE_LOST
    other.close()


def test_one_secret_cannot_stand_in_anothers_place(path: Path, state: StateFile) -> None:
    state.save_epoch(epoch(1))
    state.save_epoch(epoch(2, secret=b"another"))
    db = sqlite3.connect(path)
    db.execute("UPDATE epoch SET box = (SELECT box FROM epoch WHERE number = 1) WHERE number = 2")
    db.commit()
    db.close()
    with pytest.raises(DeniedError):
        state.epochs(TOPIC)


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(DeniedError):
        StateFile(path, KEY)


def test_a_file_that_cannot_be_written_is_said(path: Path, state: StateFile) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    state._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UnavailableError):
        state.save_heads([head(1)])
    blocker.execute("ROLLBACK")
    blocker.close()
    state.save_heads([head(1)])


def test_a_damaged_file_is_a_lost_state_and_no_bug(path: Path, state: StateFile) -> None:
    state.save_keys([key("a")])
    [(root,)] = state._rows("SELECT rootpage FROM sqlite_schema WHERE name = 'secret'")
    [(page_bytes,)] = state._rows("PRAGMA page_size")
    state.close()
    assert isinstance(root, int)
    assert isinstance(page_bytes, int)
    with path.open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)
    damaged = StateFile(path, KEY)
    for use in (damaged.keys, lambda: damaged.save_keys([key("b")])):
        with pytest.raises(DeniedError, match="move it away") as caught:
            use()
        assert caught.value.reason is Reason.SEALED_STATE_LOST
    damaged.close()
    path.write_bytes(b"no database at all, and longer than a header of one would be")
    with pytest.raises(DeniedError, match="move it away") as caught:
        StateFile(path, KEY)
    assert caught.value.reason is Reason.SEALED_STATE_LOST


def test_text_that_is_no_utf_8_is_a_lost_state_and_not_shown(path: Path, state: StateFile) -> None:
    state.save_source("main", SourceState(generation=1, position=2, resume="{}"))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE source SET resume = CAST(x'736563726574ff' AS TEXT)")
    db.close()
    with pytest.raises(DeniedError, match="move it away") as caught:
        state.source("main")
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read_now_is_waited_for(path: Path, state: StateFile) -> None:
    with pytest.raises(UnavailableError) as caught:
        StateFile(path.parent / "gone" / "agent.state", KEY)
    assert caught.value.reason is Reason.OVERLOADED
    state.save_keys([key("a")])
    state._db.set_progress_handler(lambda: 1, 1)
    for use in (state.keys, state._empty_log):
        with pytest.raises(UnavailableError) as caught:
            use()
        assert caught.value.reason is Reason.OVERLOADED


def test_secrets_do_not_show() -> None:
    assert "secret=hidden" in repr(epoch(1))
    assert "private=hidden" in repr(key("a"))
