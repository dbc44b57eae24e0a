import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fabric.database import sqlite_state as states
from fabric.database.sqlite_state import Snapshot
from fabric.model.change import ORDINAL_MAX, Sequence
from fabric.ports import StreamState
from tests.contract.sink_suite import OTHER, stream
from tests.contract.worlds import NOTES, PEOPLE

STATE = StreamState(
    high=Sequence(1_700_000_000, 2**63 - 1, ORDINAL_MAX),
    chain=b"\x00\xff",
    offset=2**62,
    cluster="c",
    topic_id="t",
    incomplete=False,
)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    states.create(connection)
    states.create(connection)
    yield connection
    connection.close()


def test_a_state_is_kept_to_the_last_bit(database: sqlite3.Connection) -> None:
    states.store(database, stream(), STATE, Snapshot.TRACKED)
    assert states.load(database, stream()) == replace(STATE, in_snapshot=True)
    assert states.snapshot_of(database, stream()) is Snapshot.TRACKED
    changed = replace(STATE, chain=b"", incomplete=True, cluster="d")
    states.store(database, stream(), changed, Snapshot.NONE)
    assert states.load(database, stream()) == changed
    assert states.snapshot_of(database, stream()) is Snapshot.NONE


def test_streams_are_told_apart_by_origin_topic_and_partition(
    database: sqlite3.Connection,
) -> None:
    for number, one in enumerate(
        (stream(), stream(partition=1), stream(origin=OTHER), stream(NOTES))
    ):
        states.store(database, one, replace(STATE, offset=number), Snapshot.NONE)
    found = states.load_all(database, PEOPLE)
    assert {one: state.offset for one, state in found.items()} == {
        stream(): 0,
        stream(partition=1): 1,
        stream(origin=OTHER): 2,
    }
    assert states.load(database, stream(NOTES, 1)) is None
    assert states.snapshot_of(database, stream(NOTES, 1)) is Snapshot.NONE


def test_the_first_origin_of_a_topic_stays_the_first(database: sqlite3.Connection) -> None:
    own, first, count = states.origin_ids(database, stream())
    assert (own, count) == (first, 1)
    later = states.origin_ids(database, stream(origin=OTHER))
    assert later == (own + 1, first, 2)
    assert states.origin_ids(database, stream(partition=3)) == (own, first, 2)
    assert states.origin_ids(database, stream(NOTES, origin=OTHER))[2] == 1


def test_incomplete_is_marked_on_one_stream(database: sqlite3.Connection) -> None:
    for one in (stream(), stream(partition=1)):
        states.store(database, one, STATE, Snapshot.NONE)
    states.mark_incomplete(database, stream())
    marked = {one: state.incomplete for one, state in states.load_all(database, PEOPLE).items()}
    assert marked == {stream(): True, stream(partition=1): False}
