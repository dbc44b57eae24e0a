"""Reads changes and snapshot chunks of one captured SQLite table as runs.

A change row says only that a key was touched; what is sent is the row as it is
now, or a delete. That is right because any later touch has a later change, and
it keeps triggers cheap. A repeat has the same sequences but may hold newer rows.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fabric.database.sqlite_capture import KEYS
from fabric.database.sqlite_thread import quote, read_text
from fabric.database.sqlite_values import RowReader, SqlValue, columns_of
from fabric.model.change import Op, Row, Run
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import QUEUE_BYTES_MAX
from fabric.ports import SourceTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some changes of one table below a watermark.

    Attributes:
        runs: with rising ordinals.
        count: changes in them.
        last: id of the last change; read on from here.
        is_last: whether no more are there below the watermark.
    """

    runs: list[Run]
    count: int
    last: int
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows of a snapshot in key order, and the key of the last one (None: no rows).

    Attributes:
        is_last: whether no more were there.
    """

    rows: list[Row]
    cursor: tuple[SqlValue, ...] | None
    is_last: bool


class TableReader:
    """Statements and codecs for one table; `number` is its `fabric_changes.source`."""

    def __init__(self, table: SourceTable, number: int) -> None:
        self.topic = table.topic
        self._table = table.table
        self._number = number
        columns = columns_of(table.schema, {})
        by_name = {column.name: column for column in columns}
        self._rows = RowReader(columns)
        self._keys = RowReader(tuple(by_name[name] for name in table.schema.key))
        self._key_count = len(table.schema.key)
        names = [quote(name) for name in table.schema.fields]
        key = [quote(name) for name in table.schema.key]
        joins = " AND ".join(f"t.{n} = c.{k}" for n, k in zip(key, KEYS, strict=False))
        fields = [f"c.{k}" for k in KEYS[: len(key)]] + [f"t.{n}" for n in names]
        self._page = (
            f"SELECT c.id, c.commit_us, t.{key[0]} IS NOT NULL, {', '.join(fields)}"  # noqa: S608  # quoted
            f" FROM fabric_changes AS c LEFT JOIN {quote(self._table)} AS t ON {joins}"
            " WHERE c.id > ? AND c.id < ? AND c.source = ? ORDER BY c.id LIMIT ?"
        )
        listed = ", ".join(key)
        select = f"SELECT {listed}, {', '.join(names)} FROM {quote(self._table)}"  # noqa: S608  # quoted
        order = f" ORDER BY {listed} LIMIT ?"
        self._first = select + order
        self._next = f"{select} WHERE ({listed}) > ({', '.join('?' * len(key))}){order}"
        self._count = f"SELECT count(*) FROM {quote(self._table)}"  # noqa: S608  # quoted

    def page(
        self,
        connection: sqlite3.Connection,
        *,
        after: int,
        position: int,
        ordinal: int,
        limit: int,
    ) -> Page:
        """Changes with ids between `after` and the watermark `position`.

        At most `limit`, and no more once their rows have QUEUE_BYTES_MAX bytes.

        Args:
            ordinal: of the first change.

        Raises:
            DeniedError: SCHEMA_MISMATCH, a value is not of its declared type.
        """
        place = (after, position, self._number)
        found, is_last = read_text(connection, lambda: _some(connection, self._page, place, limit))
        runs: list[Run] = []
        for is_there, group in groupby(found, key=lambda row: row[2]):
            items = list(group)
            op = Op.UPSERT if is_there else Op.DELETE
            runs.append(
                Run(
                    op=op,
                    position=position,
                    ordinal=ordinal,
                    commit_us=items[0][1],
                    rows=list(self._decoded(items, op)),
                )
            )
            ordinal += len(items)
        last = found[-1][0] if found else after
        return Page(runs=runs, count=len(found), last=last, is_last=is_last)

    def _decoded(self, items: list[tuple[Any, ...]], op: Op) -> Iterator[Row]:
        start, middle = 3, 3 + self._key_count
        for item in items:
            if op is Op.DELETE:
                yield self._key(item[0], item[start:middle])
            else:
                yield self._row(item[middle:])

    def _row(self, values: tuple[Any, ...]) -> Row:
        try:
            return self._rows.row(values)
        except ValueError as exc:
            raise self._mismatch(str(exc), "correct the row") from None

    def _key(self, ident: int, values: tuple[Any, ...]) -> Row:
        """The key of a row that is gone: no row is there to be corrected, only its changes."""
        try:
            return self._keys.row(values)
        except ValueError as exc:
            is_same = "".join(
                f" AND {k} IS (SELECT {k} FROM fabric_changes WHERE id = {ident})"  # noqa: S608  # constants
                for k in KEYS[: self._key_count]
            )
            statement = f"DELETE FROM fabric_changes WHERE source = {self._number}{is_same}"  # noqa: S608  # numbers
            remedy = "its row is gone or has no key: correct a row that is still so, then run"
            raise self._mismatch(str(exc), f"{remedy} in that file: {statement}") from None

    def _mismatch(self, column: str, remedy: str) -> DeniedError:
        return DeniedError(
            Reason.SCHEMA_MISMATCH,
            f"table {self._table}: a value in column {column} is not of its declared type;"
            f" {remedy}",
        )

    def chunk(
        self, connection: sqlite3.Connection, cursor: tuple[SqlValue, ...] | None, limit: int
    ) -> Chunk:
        """Rows after `cursor` in key order, as many as `page`; raises DeniedError as it does."""
        query = self._first if cursor is None else self._next
        found, is_last = read_text(
            connection, lambda: _some(connection, query, cursor or (), limit)
        )
        rows = [self._row(item[self._key_count :]) for item in found]
        last = found[-1][: self._key_count] if found else None
        return Chunk(rows=rows, cursor=last, is_last=is_last)

    def total(self, connection: sqlite3.Connection) -> int:
        """Rows in the table now."""
        return int(connection.execute(self._count).fetchone()[0])


def _some(
    connection: sqlite3.Connection, query: str, values: Sequence[SqlValue], limit: int
) -> tuple[list[tuple[Any, ...]], bool]:
    """What a query that ends in `LIMIT ?` finds, and whether that is all of it.

    Few wide rows are as much memory as many narrow ones, so bytes count, too.
    """
    found: list[tuple[Any, ...]] = []
    size = 0
    with closing(connection.execute(query, (*values, limit))) as cursor:
        for row in cursor:
            found.append(row)
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if size >= QUEUE_BYTES_MAX:
                return found, False
    return found, len(found) < limit
