import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.database.sqlite_capture import (
    add_watermark,
    check,
    install,
    is_intact,
    is_watermark,
    next_generation,
    next_watermark,
    shape_of,
)
from fabric.model.errors import Reason, UsageError
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable

TOPIC = Topic("secret", "G01", "t")


def table_of(*key: str, name: str = "t", fields: tuple[str, ...] = ("a", "b")) -> SourceTable:
    listed = [{"name": field, "type": "string"} for field in fields]
    text = json.dumps({"type": "record", "name": "T", "fields": listed})
    return SourceTable(table=name, topic=TOPIC, schema=RowSchema.parse(text, key or ("a",)))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT)")
    yield connection
    connection.close()


def touched(connection: sqlite3.Connection) -> list[object]:
    rows = connection.execute("SELECT k1 FROM fabric_changes WHERE source NOT NULL ORDER BY id")
    return [row[0] for row in rows]


def test_every_write_notes_its_key(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    database.execute("INSERT INTO t VALUES ('x', 1), ('y', 2)")
    database.execute("UPDATE t SET b = 3 WHERE a = 'x'")
    database.execute("UPDATE t SET a = 'z' WHERE a = 'y'")
    database.execute("DELETE FROM t")
    assert touched(database) == ["x", "y", "x", "y", "z", "x", "z"]


def test_a_rolled_back_write_notes_nothing(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    database.execute("BEGIN")
    database.execute("INSERT INTO t VALUES ('x', 1)")
    database.execute("ROLLBACK")
    assert touched(database) == []


def test_writes_under_the_flag_are_not_noted(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    database.execute("INSERT INTO fabric_applying VALUES (1)")
    database.execute("INSERT INTO t VALUES ('x', 1)")
    database.execute("UPDATE t SET b = 2")
    database.execute("DELETE FROM t")
    assert touched(database) == []


def test_a_row_that_replace_deletes_by_another_unique_set_is_noted(
    database: sqlite3.Connection,
) -> None:
    database.execute("CREATE UNIQUE INDEX u ON t (b)")
    database.execute("INSERT INTO t VALUES ('x', 1), ('y', 2), ('z', 3)")
    install(database, [table_of()], frozenset())
    database.execute("INSERT OR REPLACE INTO t VALUES ('new', 1)")
    assert set(touched(database)) == {"x", "new"}
    database.execute("DELETE FROM fabric_changes")
    database.execute("UPDATE OR REPLACE t SET b = 2 WHERE a = 'z'")
    assert set(touched(database)) == {"y", "z"}
    database.execute("DELETE FROM fabric_changes")
    database.execute("UPDATE t SET b = 2 WHERE a = 'z'")
    assert touched(database) == ["z"]


COLLATED = [
    "CREATE TABLE n (a TEXT COLLATE NOCASE PRIMARY KEY, b TEXT)",
    "CREATE TABLE n (a TEXT COLLATE RTRIM, b TEXT, PRIMARY KEY (a)) WITHOUT ROWID",
    "CREATE TABLE n (a TEXT, b TEXT, PRIMARY KEY (a COLLATE NOCASE))",
    "CREATE TABLE n (a TEXT PRIMARY KEY, b TEXT); CREATE UNIQUE INDEX u ON n (a COLLATE NOCASE)",
    "CREATE TABLE n (a TEXT COLLATE NOCASE, b TEXT); CREATE UNIQUE INDEX u ON n (a COLLATE BINARY)",
    "CREATE TABLE n (a TEXT COLLATE RTRIM, b TEXT); CREATE UNIQUE INDEX u ON n (a COLLATE BINARY)",
]


@pytest.mark.parametrize("ddl", COLLATED)
def test_a_key_that_takes_two_texts_for_one_is_refused(
    database: sqlite3.Connection, ddl: str
) -> None:
    database.executescript(ddl)
    with pytest.raises(UsageError, match="table n: .* COLLATE BINARY") as caught:
        check(database, table_of(name="n"))
    assert caught.value.reason is Reason.SOURCE_UNFIT


def test_a_key_of_a_collation_that_only_the_application_has_is_refused(
    database: sqlite3.Connection,
) -> None:
    database.create_collation("vietnamese", lambda a, b: (a > b) - (a < b))
    database.executescript(
        "CREATE TABLE n (a TEXT COLLATE vietnamese, b TEXT);"
        "CREATE UNIQUE INDEX u ON n (a COLLATE BINARY)"
    )
    database.create_collation("vietnamese", None)
    with pytest.raises(UsageError, match="collation"):
        check(database, table_of(name="n"))


def test_other_columns_may_compare_as_they_like(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE TABLE n (a INTEGER, b TEXT COLLATE NOCASE UNIQUE, c TEXT, PRIMARY KEY (c, a))"
    )
    check(database, table_of("a", "c", name="n", fields=("a", "b", "c")))


def test_installing_again_changes_nothing(database: sqlite3.Connection) -> None:
    first = install(database, [table_of()], frozenset())
    version = database.execute("PRAGMA schema_version").fetchone()
    database.execute("INSERT INTO t VALUES ('x', 1)")
    again = install(database, [table_of()], frozenset({"t"}))
    assert (again.database, again.numbers) == (first.database, first.numbers)
    assert database.execute("PRAGMA schema_version").fetchone() == version
    assert (first.fresh, again.fresh) == (frozenset({"t"}), frozenset())
    assert touched(database) == ["x"]


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TRIGGER fabric_1_insert",
        "DROP TABLE t; CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT)",
        "CREATE UNIQUE INDEX u ON t (b)",
        "DROP TABLE fabric_changes",
        "ALTER TABLE t RENAME COLUMN b TO c; ALTER TABLE t ADD COLUMN b TEXT;"
        " DROP TRIGGER fabric_1_delete;"
        " CREATE TRIGGER fabric_1_delete AFTER DELETE ON t BEGIN SELECT 1; END",
    ],
)
def test_harmed_triggers_start_a_new_life(database: sqlite3.Connection, harm: str) -> None:
    first = install(database, [table_of()], frozenset())
    assert is_intact(database, [table_of()], first.numbers)
    database.executescript(harm)
    assert not is_intact(database, [table_of()], first.numbers)
    again = install(database, [table_of()], frozenset({"t"}))
    assert again.database != first.database
    database.execute("INSERT INTO t (a, b) VALUES ('q', 1)")
    assert "q" in touched(database)
    assert is_intact(database, [table_of()], again.numbers)


def test_another_column_changes_nothing(database: sqlite3.Connection) -> None:
    first = install(database, [table_of()], frozenset())
    database.execute("ALTER TABLE t ADD COLUMN more TEXT DEFAULT 'x'")
    assert is_intact(database, [table_of()], first.numbers)


def test_a_table_that_is_no_more_captured_loses_its_triggers(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    install(database, [], frozenset())
    database.execute("INSERT INTO t VALUES ('x', 1)")
    assert touched(database) == []


@pytest.mark.parametrize(
    ("made", "table", "message"),
    [
        ("", table_of(name="none"), "no such table"),
        ("CREATE VIEW v AS SELECT * FROM t", table_of(name="v"), "no such table"),
        ("", table_of(fields=("a", "c")), "column c"),
        ("", table_of("b"), "unique index on"),
        ("", table_of("a", "b"), "unique index on"),
        ("CREATE UNIQUE INDEX u ON t (b) WHERE a > 'x'", table_of("b"), "unique index on"),
        ("CREATE UNIQUE INDEX u ON t (lower(b))", table_of(), "expression"),
        (
            "CREATE TABLE w (a, b, c, d, e, f, g, h, i, PRIMARY KEY (a, b, c, d, e, f, g, h, i))",
            table_of(*"abcdefghi", name="w", fields=tuple("abcdefghi")),
            "more than 8",
        ),
    ],
)
def test_a_table_that_would_lose_changes_is_refused(
    database: sqlite3.Connection, made: str, table: SourceTable, message: str
) -> None:
    database.execute(made)
    with pytest.raises(UsageError, match=message) as caught:
        check(database, table)
    assert caught.value.reason is Reason.SOURCE_UNFIT


def test_shapes_tell_keys_from_what_only_looks_unique(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE TABLE s (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT NOT NULL DEFAULT 'x',"
        " c TEXT NOT NULL, g TEXT GENERATED ALWAYS AS (a || b));"
        "CREATE UNIQUE INDEX p ON s (c) WHERE b = 'y';"
    )
    shape = shape_of(database, "s")
    assert shape is not None
    assert shape.keys == {frozenset({"id"}), frozenset({"a"})}
    assert {frozenset(n for n, _ in u) for u in shape.uniques} == {
        frozenset({"id"}),
        frozenset({"a"}),
        frozenset({"c"}),
    }
    assert shape.required == {"b", "c"}
    assert shape.defaulted == {"b", "id"}
    assert shape.generated == {"g"}


def test_watermarks_are_found_by_id_and_mark(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    first, mark = add_watermark(database)
    database.execute("INSERT INTO t VALUES ('x', 1)")
    second, _ = add_watermark(database)
    assert second == first + 2
    found = next_watermark(database, first)
    assert found is not None
    assert found[0] == second
    assert next_watermark(database, second) is None
    assert is_watermark(database, first, mark)
    assert not is_watermark(database, first, b"another!")
    assert not is_watermark(database, first + 1, mark)


def test_generations_only_rise(database: sqlite3.Connection) -> None:
    install(database, [table_of()], frozenset())
    assert next_generation(database, 100) == 100
    assert next_generation(database, 50) == 101
    assert next_generation(database, 500) == 500
