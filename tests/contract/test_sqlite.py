"""The contract suites on real SQLite files, written by connections of an application's kind."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from fabric.database.sqlite import SqliteSink, SqliteSource
from fabric.database.sqlite_decimal import decimal_reader, decimal_writer
from fabric.model.change import Row, Value
from fabric.ports import SourceTable, Target
from tests.contract.sink_suite import SinkSuite
from tests.contract.source_suite import SourceSuite
from tests.contract.worlds import (
    CHUNK_ROWS,
    NOTES,
    NOTES_SCHEMA,
    PEOPLE,
    PEOPLE_SCHEMA,
    POISON,
)

_DDL = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, born INTEGER NOT NULL,
  seen INTEGER NOT NULL, active BOOLEAN NOT NULL, score REAL, photo BLOB, balance TEXT);
CREATE TABLE notes (region TEXT NOT NULL, number INTEGER NOT NULL, body TEXT,
  PRIMARY KEY (region, number));
"""


def to_sql(row: Row) -> dict[str, object]:
    """A row as an application stores it; decimals are text."""
    result: dict[str, object] = dict(row)
    balance = row.get("balance")
    if isinstance(balance, bytes):
        result["balance"] = decimal_writer(2)(balance)
    return result


def from_sql(row: sqlite3.Row) -> Row:
    result: dict[str, Value] = dict(row)
    if result.get("balance") is not None:
        result["balance"] = decimal_reader(2, None, precision=20)(str(result["balance"]))
    if "active" in result:
        result["active"] = bool(result["active"])
    return result


class SqliteFile:
    """Plain writes to one file, each in a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, sql: str, rows: Sequence[object] = ()) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            if rows:
                connection.executemany(sql, rows)  # type: ignore[arg-type]  # mappings or tuples
            else:
                connection.executescript(sql)
        connection.close()

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        names = ", ".join(rows[0])
        marks = ", ".join(f":{name}" for name in rows[0])
        self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", [to_sql(r) for r in rows])

    def rows(self, table: str) -> list[Row]:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        found = connection.execute(f"SELECT * FROM {table}").fetchall()
        connection.close()
        return [from_sql(row) for row in found]


class SqliteSourceWorld:
    truncates = False

    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path)
        self.file.run(_DDL)
        self.people = SourceTable(table="people", topic=PEOPLE, schema=PEOPLE_SCHEMA)
        self.notes = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)

    def source(self) -> SqliteSource:
        tables = [self.people, self.notes]
        return SqliteSource(self.file.path, tables, chunk_rows=CHUNK_ROWS, silence_s=0.5)

    async def insert(self, table: SourceTable, rows: Sequence[Row]) -> None:
        self.file.insert(table.table, rows)

    async def update(self, table: SourceTable, key: Row, row: Row) -> None:
        sets = ", ".join(f"{name} = :{name}" for name in row)
        where = " AND ".join(f"{name} = :old_{name}" for name in key)
        values = {**to_sql(row), **{f"old_{name}": value for name, value in key.items()}}
        self.file.run(f"UPDATE {table.table} SET {sets} WHERE {where}", [values])

    async def delete(self, table: SourceTable, keys: Sequence[Row]) -> None:
        where = " AND ".join(f"{name} = :{name}" for name in keys[0])
        self.file.run(f"DELETE FROM {table.table} WHERE {where}", keys)

    async def truncate(self, table: SourceTable) -> None:
        raise NotImplementedError

    async def rows(self, table: SourceTable) -> list[Row]:
        return self.file.rows(table.table)

    async def forget(self) -> None:
        connection = sqlite3.connect(self.file.path)
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in found.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DROP TABLE fabric_changes")
        connection.commit()
        connection.close()


class TestSqliteSource(SourceSuite):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SqliteSourceWorld:
        return SqliteSourceWorld(tmp_path / "source.db")


class SqliteSinkWorld:
    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path)

    def sink(self) -> SqliteSink:
        return SqliteSink(self.file.path)

    async def rows(self, target: Target) -> list[Row]:
        return self.file.rows(target.table)

    async def insert(self, target: Target, rows: Sequence[Row]) -> None:
        self.file.insert(target.table, rows)

    async def spoil(self, target: Target) -> None:
        for event in ("INSERT", "UPDATE"):
            self.file.run(
                f"CREATE TRIGGER spoil_{event} BEFORE {event} ON {target.table}"
                f" WHEN NEW.name = '{POISON}' BEGIN SELECT RAISE(ABORT, 'not {POISON}'); END"
            )

    async def heal(self, target: Target) -> None:
        self.file.run("DROP TRIGGER spoil_INSERT; DROP TRIGGER spoil_UPDATE;")


class TestSqliteSink(SinkSuite):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SqliteSinkWorld:
        return SqliteSinkWorld(tmp_path / "target.db")
