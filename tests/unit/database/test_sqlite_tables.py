import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fabric.database import sqlite_state as states
from fabric.database.sqlite_tables import prepare
from fabric.model.change import Sequence
from fabric.model.errors import Reason, UsageError
from fabric.ports import StreamState
from tests.contract.sink_suite import stream, target
from tests.contract.worlds import NOTES, NOTES_SCHEMA, note

TARGET = target(NOTES, NOTES_SCHEMA)
_KEY = "PRIMARY KEY (region, number)"
_GOOD = "region TEXT NOT NULL, number INTEGER NOT NULL, body TEXT"


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def test_an_absent_table_is_made_from_the_schema(database: sqlite3.Connection) -> None:
    prepare(database, TARGET)
    prepare(database, TARGET)
    info = database.execute("SELECT name, type, \"notnull\", pk FROM pragma_table_info('notes')")
    assert info.fetchall() == [
        ("region", "TEXT", 1, 1),
        ("number", "INTEGER", 1, 2),
        ("body", "TEXT", 0, 0),
    ]


@pytest.mark.parametrize(
    "columns",
    [
        f"{_GOOD}, {_KEY}",
        f"number BIGINT, region VARCHAR(5), body CLOB, {_KEY}",
        f"{_GOOD}, more TEXT NOT NULL DEFAULT 'x', {_KEY}",
        f"{_GOOD}, more TEXT, UNIQUE (number, region)",
        f"{_GOOD}, id INTEGER PRIMARY KEY, UNIQUE (region, number)",
        f"{_GOOD}, twice TEXT GENERATED ALWAYS AS (body || body), {_KEY}",
        "region, number, body, PRIMARY KEY (number, region)",
    ],
)
def test_a_table_that_keeps_every_value_is_taken(
    database: sqlite3.Connection, columns: str
) -> None:
    database.execute(f"CREATE TABLE notes ({columns})")
    table = prepare(database, TARGET)
    insert, _ = table.upsert(())
    for body in ("one", "two", None):
        database.execute(insert.sql, insert.values(note("a", 1, body)))
    assert database.execute("SELECT region, number, body FROM notes").fetchall() == [("a", 1, None)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (f"region TEXT, number INTEGER, {_KEY}", "ADD COLUMN body TEXT"),
        (f"region TEXT, number TEXT, body TEXT, {_KEY}", "column number is TEXT"),
        (f"region NUMERIC, number INTEGER, body TEXT, {_KEY}", "column region is NUMERIC"),
        (f"region TEXT, number INTEGER, body TEXT NOT NULL, {_KEY}", "body is NOT NULL"),
        (_GOOD, "unique index on"),
        (f"{_GOOD}, UNIQUE (region)", "unique index on"),
        (f"{_GOOD}, more TEXT NOT NULL, {_KEY}", "column more"),
        (f"region TEXT COLLATE NOCASE, number INTEGER, body TEXT, {_KEY}", "COLLATE BINARY"),
        (
            "region TEXT COLLATE NOCASE, number INTEGER, body TEXT,"
            " PRIMARY KEY (region COLLATE BINARY, number)",
            "COLLATE BINARY",
        ),
        (
            f"region TEXT, number INTEGER, body TEXT GENERATED ALWAYS AS (region), {_KEY}",
            "generated",
        ),
    ],
)
def test_a_table_that_would_change_or_refuse_values_is_unfit(
    database: sqlite3.Connection, columns: str, message: str
) -> None:
    database.execute(f"CREATE TABLE notes ({columns})")
    with pytest.raises(UsageError, match=message) as caught:
        prepare(database, TARGET)
    assert caught.value.reason is Reason.TARGET_UNFIT


def test_a_view_is_no_target(database: sqlite3.Connection) -> None:
    database.execute("CREATE VIEW notes AS SELECT 1 AS region, 2 AS number, 3 AS body")
    with pytest.raises(UsageError, match="ordinary table"):
        prepare(database, TARGET)


def test_a_name_with_quotes_is_a_name(database: sqlite3.Connection) -> None:
    odd = replace(TARGET, table='no"tes; --')
    table = prepare(database, odd)
    insert, _ = table.upsert(())
    database.execute(insert.sql, insert.values(note("a", 1)))
    assert database.execute('SELECT count(*) FROM "no""tes; --"').fetchone() == (1,)


def test_a_table_that_was_dropped_is_not_made_empty_but_made_when_it_is_to_be_filled_anew(
    database: sqlite3.Connection,
) -> None:
    states.create(database)
    prepare(database, TARGET)
    done = StreamState(
        high=Sequence(1, 1, 1), chain=b"", offset=1, cluster="", topic_id="", incomplete=False
    )
    states.store(database, stream(NOTES), done, states.Snapshot.NONE)
    prepare(database, TARGET)
    database.execute("DROP TABLE notes")
    with pytest.raises(UsageError, match="is gone") as caught:
        prepare(database, TARGET)
    assert caught.value.reason is Reason.TARGET_UNFIT
    _, _, remedy = str(caught.value).partition("anew: ")
    database.execute(remedy)
    prepare(database, TARGET)
    assert states.load(database, stream(NOTES)) is None


def test_a_table_of_keys_alone_can_be_written_twice(database: sqlite3.Connection) -> None:
    table = prepare(database, TARGET)
    insert, update = table.upsert(("body",))
    assert update is None
    for _ in range(2):
        database.execute(insert.sql, insert.values(note("a", 1)))
    assert database.execute("SELECT count(*) FROM notes").fetchone() == (1,)
