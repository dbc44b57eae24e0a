"""Host A's own application: it fills its tables and changes them, as any program would.

It writes plain SQL and knows nothing of the fabric. Two databases speak two
dialects of dates and placeholders; that difference ends here.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg

from fabric.demo.people import ResidentRow, WardRow, residents, wards

_EPOCH = date(1970, 1, 1)
_RESIDENT_COLUMNS = ", ".join(item.name for item in fields(ResidentRow))
_WARD_COLUMNS = ", ".join(item.name for item in fields(WardRow))
_TABLES = """
CREATE TABLE wards (code integer PRIMARY KEY, name text NOT NULL, division text NOT NULL,
    province_code integer NOT NULL, province_name text NOT NULL);
CREATE TABLE residents (id bigint PRIMARY KEY, full_name text NOT NULL, birth_date {date} NOT NULL,
    gender text NOT NULL, id_number text NOT NULL, phone text, address text NOT NULL,
    ward_code integer NOT NULL REFERENCES wards (code), is_active boolean NOT NULL,
    updated_at {stamp} NOT NULL);
"""
_BATCH = 1_000


class Registry(Protocol):
    """What the demo does to host A's database."""

    def create(self, count: int) -> None:
        """Make the tables and fill them with the wards and `count` residents."""

    def change(self, first: int, count: int) -> int:
        """Insert `count` residents from `first` on, update and delete others; changes made."""

    def close(self) -> None:
        """Close the connection."""


class SqlRegistry:
    """The registry over any DB-API connection."""

    def __init__(self, connection: Any, mark: str, kind: str) -> None:
        self._connection = connection
        self._mark = mark
        self._kind = kind

    def create(self, count: int) -> None:
        """Make the tables and fill them."""
        types = ("date", "timestamptz") if self._kind == "postgresql" else ("integer", "integer")
        cursor = self._connection.cursor()
        for statement in _TABLES.format(date=types[0], stamp=types[1]).split(";"):
            if statement.strip():
                cursor.execute(statement)
        self._insert("wards", _WARD_COLUMNS, (astuple(row) for row in wards()))
        self._insert("residents", _RESIDENT_COLUMNS, map(self._values, residents(count)))
        self._connection.commit()

    def change(self, first: int, count: int) -> int:
        """One transaction each: inserts, updates, deletes, a ward renamed and renamed back."""
        cursor = self._connection.cursor()
        self._insert(
            "residents", _RESIDENT_COLUMNS, map(self._values, residents(count, first=first))
        )
        self._connection.commit()
        mark = self._mark
        changes = count
        for number in range(first, first + count, 4):
            moved = (f"Đường số {number}", not number % 8, number)
            cursor.execute(
                f"UPDATE residents SET address = {mark}, is_active = {mark} WHERE id = {mark}",  # noqa: S608
                moved,
            )
            cursor.execute(f"DELETE FROM residents WHERE id = {mark}", (number + 1,))  # noqa: S608
            changes += 2
            self._connection.commit()
        cursor.execute(f"UPDATE wards SET name = {mark} WHERE code = 4", (f"Phường {first}",))  # noqa: S608
        self._connection.commit()
        return changes + 1

    def _values(self, row: ResidentRow) -> tuple[Any, ...]:
        values = list(astuple(row))
        if self._kind != "postgresql":  # SQLite has no dates: days and microseconds as integers
            values[2] = (row.birth_date - _EPOCH).days
            values[9] = int((row.updated_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
            values[9] *= 1_000_000
        return tuple(values)

    def _insert(self, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        if self._kind == "postgresql":
            with self._connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            return
        marks = ", ".join([self._mark] * (columns.count(",") + 1))
        statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        cursor = self._connection.cursor()
        batch: list[Sequence[Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                cursor.executemany(statement, batch)
                batch = []
        if batch:
            cursor.executemany(statement, batch)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def open_registry(kind: str, url: str) -> Registry:
    """Connect to host A's database."""
    if kind == "postgresql":
        return SqlRegistry(psycopg.connect(url), "%s", kind)
    Path(url).parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(url, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    return SqlRegistry(connection, "?", kind)


def count_rows(kind: str, url: str, table: str) -> int:
    """Rows of a table; 0 while the table does not exist."""
    try:
        if kind == "postgresql":
            with psycopg.connect(url) as server:
                row = server.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        else:
            file = sqlite3.connect(f"file:{url}?mode=ro", uri=True, timeout=30)
            row = file.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            file.close()
    except (psycopg.errors.UndefinedTable, sqlite3.OperationalError):
        return 0
    return int(row[0]) if row else 0
