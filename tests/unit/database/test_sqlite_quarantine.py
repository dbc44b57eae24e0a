import sqlite3
from collections.abc import Iterator

import pytest

from fabric.database import sqlite_quarantine as quarantine
from fabric.database import sqlite_state as states
from fabric.database.datum import encode_change
from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import Malformed, UsageError
from fabric.model.limits import PARKED_KEYS_MAX
from tests.contract.sink_suite import ORIGIN, OTHER, stream, target
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, person

TARGETS = {str(PEOPLE): target()}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    states.create(connection)
    yield connection
    connection.close()


def change(number: int) -> Change:
    return Change(
        topic=PEOPLE,
        origin=ORIGIN,
        op=Op.UPSERT,
        sequence=Sequence(1, number, 1),
        commit_us=0,
        row=person(number),
    )


def park(database: sqlite3.Connection, number: int, key: bytes, **place: object) -> None:
    of = stream(**place)  # type: ignore[arg-type]  # tests pass plain values
    quarantine.park(database, change(number), target(), (of, 42, key))


def test_a_parked_change_is_listed_without_and_shown_with_its_row(
    database: sqlite3.Connection,
) -> None:
    park(database, 1, b"k")
    quarantine.explain(database, None, "because")
    (listed,) = quarantine.listing(database, PEOPLE)
    assert (listed.change, listed.reason, listed.offset) == (None, "because", 42)
    assert quarantine.listing(database, NOTES) == []
    found = quarantine.fetch(database, listed.id, TARGETS)
    assert found is not None
    assert (found[0].change, found[1]) == (change(1), stream())
    assert quarantine.fetch(database, 99, TARGETS) is None


def test_siblings_are_of_one_stream_and_key(database: sqlite3.Connection) -> None:
    park(database, 1, b"k")
    park(database, 2, b"other")
    park(database, 3, b"k", origin=OTHER)
    park(database, 4, b"k")
    assert quarantine.siblings(database, 4) == [1, 4]
    assert quarantine.parked_keys(database, stream()) == {b"k", b"other"}
    quarantine.forget(database, 1)
    assert quarantine.siblings(database, 4) == [4]
    quarantine.forget_stream(database, stream())
    assert [parked.id for parked in quarantine.listing(database, None)] == [3]


def test_numbers_are_not_given_twice(database: sqlite3.Connection) -> None:
    park(database, 1, b"k")
    quarantine.forget(database, 1)
    park(database, 2, b"k")
    assert quarantine.listing(database, None)[0].id == 2


def test_room_shrinks_with_every_parked_change(database: sqlite3.Connection) -> None:
    assert quarantine.room(database) == PARKED_KEYS_MAX
    park(database, 1, b"k")
    assert quarantine.room(database) == PARKED_KEYS_MAX - 1


def test_a_dataset_that_left_or_changed_says_so(database: sqlite3.Connection) -> None:
    park(database, 1, b"k")
    with pytest.raises(UsageError):
        quarantine.fetch(database, 1, {})
    with pytest.raises(Malformed):
        quarantine.fetch(database, 1, {str(PEOPLE): target(schema=NOTES_SCHEMA)})
    assert target().schema == PEOPLE_SCHEMA


def test_a_quarantine_from_before_schemas_were_kept_still_opens(
    database: sqlite3.Connection,
) -> None:
    database.execute("DROP TABLE fabric_schemas")
    database.execute("ALTER TABLE fabric_quarantine DROP COLUMN schema")
    database.execute(
        "INSERT INTO fabric_quarantine VALUES (1, ?, ?, 0, 42, 'because', x'00', ?)",
        (str(PEOPLE), str(ORIGIN), encode_change(change(1), PEOPLE_SCHEMA)),
    )
    states.create(database)
    park(database, 2, b"k")
    for number in (1, 2):
        found = quarantine.fetch(database, number, TARGETS)
        assert found is not None
        assert found[0].change == change(number)
