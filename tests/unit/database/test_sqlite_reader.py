import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from fabric.database.sqlite_capture import install
from fabric.database.sqlite_reader import TableReader
from fabric.model.change import Op
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import QUEUE_BYTES_MAX
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable
from tests.contract.worlds import NOTES, NOTES_SCHEMA, note

TABLE = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT, PRIMARY KEY (region, number))"
    )
    install(connection, [TABLE], frozenset())
    yield connection
    connection.close()


def test_a_page_holds_rows_as_they_are_now(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO notes VALUES ('a', 1, 'old'), ('a', 2, 'x'), ('b', 1, NULL)")
    database.execute("UPDATE notes SET body = 'new' WHERE number = 1 AND region = 'a'")
    database.execute("DELETE FROM notes WHERE number = 2")
    page = TableReader(TABLE, 1).page(database, after=0, position=100, ordinal=5, limit=10)
    assert [(run.op, run.ordinal, run.rows) for run in page.runs] == [
        (Op.UPSERT, 5, [note("a", 1, "new")]),
        (Op.DELETE, 6, [{"region": "a", "number": 2}]),
        (Op.UPSERT, 7, [note("b", 1, None), note("a", 1, "new")]),
        (Op.DELETE, 9, [{"region": "a", "number": 2}]),
    ]
    assert (page.count, page.last) == (5, 5)
    assert all(run.position == 100 and run.commit_us > 0 for run in page.runs)


def test_pages_go_on_where_the_last_ended(database: sqlite3.Connection) -> None:
    database.executemany("INSERT INTO notes VALUES ('a', ?, 'x')", [(n,) for n in range(10)])
    reader = TableReader(TABLE, 1)
    first = reader.page(database, after=0, position=9, ordinal=1, limit=5)
    rest = reader.page(database, after=first.last, position=9, ordinal=6, limit=5)
    assert (first.count, rest.count) == (5, 3)
    assert rest.runs[0].ordinal == 6


def test_chunks_follow_the_key(database: sqlite3.Connection) -> None:
    rows = [(region, number, "x") for region in "ab" for number in range(3)]
    database.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)
    reader, cursor, seen = TableReader(TABLE, 1), None, []
    while True:
        chunk = reader.chunk(database, cursor, 4)
        seen += chunk.rows
        if chunk.cursor is None:
            break
        cursor = chunk.cursor
    assert seen == [note(*row) for row in rows]
    assert reader.total(database) == 6


def test_wide_rows_make_pages_and_chunks_shorter(database: sqlite3.Connection) -> None:
    width, count = QUEUE_BYTES_MAX // 4, 10
    rows = [("a", number, "x" * width) for number in range(count)]
    database.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)
    reader, after, cursor = TableReader(TABLE, 1), 0, None
    pages, chunks = [], []
    while not (pages and pages[-1].is_last):
        page = reader.page(database, after=after, position=99, ordinal=1, limit=count)
        after = page.last
        pages.append(page)
    while not (chunks and chunks[-1].is_last):
        chunk = reader.chunk(database, cursor, count)
        cursor = chunk.cursor
        chunks.append(chunk)
    assert [page.count for page in pages] == [4, 4, 2]
    assert [len(chunk.rows) for chunk in chunks] == [4, 4, 2]
    read = [row["number"] for chunk in chunks for row in chunk.rows]
    assert read == [row["number"] for page in pages for run in page.runs for row in run.rows]
    assert read == [*range(count)]
    assert not database.in_transaction
    database.execute("DROP TABLE notes")  # no statement is left open


def test_a_row_wider_than_the_bound_is_read_alone(database: sqlite3.Connection) -> None:
    body = "x" * (QUEUE_BYTES_MAX + 1)
    database.executemany("INSERT INTO notes VALUES ('a', ?, ?)", [(1, body), (2, body)])
    chunk = TableReader(TABLE, 1).chunk(database, None, 10)
    assert (len(chunk.rows), chunk.is_last) == (1, False)


def test_a_value_of_another_type_names_its_column_only(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO notes VALUES ('a', 1, x'736563726574')")
    with pytest.raises(DeniedError, match="column body") as caught:
        TableReader(TABLE, 1).chunk(database, None, 10)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert "secret" not in str(caught.value)
    with pytest.raises(DeniedError, match="column body"):
        TableReader(TABLE, 1).page(database, after=0, position=9, ordinal=1, limit=9)


@pytest.mark.parametrize(
    "text", ['{"street": "a", "secret": "b"}', '{"street": "secret", "street": "b"}']
)
def test_json_that_a_block_would_hold_a_part_of_names_its_column_only(text: str) -> None:
    place = {"type": "record", "name": "Place", "fields": [{"name": "street", "type": "string"}]}
    fields = [{"name": "id", "type": "int"}, {"name": "place", "type": place}]
    schema = RowSchema.parse(
        json.dumps({"type": "record", "name": "Home", "fields": fields}), ("id",)
    )
    table = SourceTable(table="homes", topic=NOTES, schema=schema)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE homes (id INTEGER PRIMARY KEY, place TEXT)")
        install(connection, [table], frozenset())
        connection.execute("INSERT INTO homes VALUES (1, ?)", (text,))
        source = TableReader(table, 1)
        for read in (
            partial(source.chunk, connection, None, 10),
            partial(source.page, connection, after=0, position=9, ordinal=1, limit=9),
        ):
            with pytest.raises(DeniedError, match="table homes: a value in column place") as caught:
                read()
            assert caught.value.reason is Reason.SCHEMA_MISMATCH
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["NULL, 1", "x'736563726574', NULL", "CAST(x'736563726574ff' AS TEXT), 1", "'a', 'b'"]
)
def test_a_statement_takes_the_changes_of_a_key_that_is_none_away_and_no_others(
    database: sqlite3.Connection, key: str
) -> None:
    database.execute("INSERT INTO notes VALUES ('a', 1, 'x')")
    database.execute(f"INSERT INTO notes VALUES ({key}, 'bad')")  # noqa: S608
    database.execute("DELETE FROM notes WHERE body = 'bad'")
    database.execute("DELETE FROM notes")
    reader = TableReader(TABLE, 1)
    with pytest.raises(DeniedError, match="table notes: a value in column") as caught:
        reader.page(database, after=0, position=9, ordinal=1, limit=9)
    assert "secret" not in str(caught.value)
    _, told, statement = str(caught.value.args[0]).partition("run in that file: ")
    assert told
    assert database.execute(statement).rowcount == 2
    (run,) = reader.page(database, after=0, position=9, ordinal=1, limit=9).runs
    assert (run.op, run.rows) == (Op.DELETE, [{"region": "a", "number": 1}] * 2)


@pytest.mark.parametrize("column", ["region", "body"])
def test_text_that_is_no_utf_8_names_its_column_only(
    database: sqlite3.Connection, column: str
) -> None:
    database.execute("INSERT INTO notes VALUES ('a', 1, 'x')")
    database.execute(f"UPDATE notes SET {column} = CAST(x'736563726574ff' AS TEXT)")  # noqa: S608
    reader = TableReader(TABLE, 1)
    for read in (
        partial(reader.chunk, database, None, 10),
        partial(reader.page, database, after=0, position=9, ordinal=1, limit=9),
    ):
        with pytest.raises(DeniedError, match=f"table notes: a value in column {column}") as caught:
            read()
        assert caught.value.reason is Reason.SCHEMA_MISMATCH
        assert "secret" not in str(caught.value)
