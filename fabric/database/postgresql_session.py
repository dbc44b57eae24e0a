"""The session beside the stream: rows as they are now, what is visible, marks for the log.

Whatever is read is read in one snapshot of the server, which says what it saw.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import asyncpg

from fabric.database.postgresql_blockers import Blocker, blockers
from fabric.database.postgresql_changes import PREFIX
from fabric.database.postgresql_columns import converter_of, quoted, rows_of, table_sql
from fabric.database.postgresql_connect import translated
from fabric.database.postgresql_identity import changed
from fabric.database.postgresql_preflight import FitTable
from fabric.database.postgresql_types import NATIVE, PASSED, ServerColumn, fields_of
from fabric.database.postgresql_window import XID_MASK, Key, Visible, is_before
from fabric.database.postgresql_wire import parse_lsn
from fabric.model.change import Row
from fabric.model.errors import DeniedError, Reason, UnavailableError

_COUNT_S_MAX = 5.0
_COUNT_ROWS_MAX = 1_000_000
"""Above it the planner's estimate is good enough to show progress."""
_CONVERT_ROWS = 500
"""Rows converted between two turns of the event loop."""
_ROW_HELD_S_MAX = 30.0
"""How long the rows of one run wait for it, while the stream stands; well below its deadline."""
_POLL_S = 0.05
_LOCK_S_MAX = 0.5
"""How long a read waits for a table's lock at once, while the stream stands."""
_LOCK_LONG_S_MAX = 5.0
"""How long one try of `_LOCK_TRIES` does: where exclusive locks queue, its turn comes."""
_LOCK_TRIES = 10


def held_until() -> float:
    """Until when rows that are to be fetched now may be waited for."""
    return time.monotonic() + _ROW_HELD_S_MAX


class Held(Enum):
    """What keeps a table from being read now."""

    UNSEEN = "transactions that are not visible yet"
    LOCKED = "the lock of the table"


class Session:
    """One connection, which serves one question at a time.

    Args:
        connection: nobody else uses it.
        tables: by topic, how each is read, and its object id: only that one is read, whatever
            its name has come to mean.
    """

    def __init__(
        self, connection: "asyncpg.Connection[Any]", tables: Mapping[str, tuple[FitTable, int]]
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._lock = asyncio.Lock()
        self._locked_out = 0

    @contextlib.asynccontextmanager
    async def asking(self, doing: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """The connection for one question; the driver's errors become ours."""
        async with self._lock:
            with translated(doing):
                yield self._connection

    def fit(self, topic: str) -> FitTable:
        """How the table of a dataset is read."""
        return self._tables[topic][0]

    async def emit(self, kind: str) -> str:
        """Write a watermark into the log; its id."""
        ident = secrets.token_hex(8)
        content = json.dumps({"kind": kind, "id": ident})
        async with self.asking("write a watermark") as connection:
            await connection.fetchval(
                "SELECT pg_catalog.pg_logical_emit_message(true, $1, $2::text)::text",
                PREFIX,
                content,
            )
        return ident

    async def visible(self) -> Visible:
        """What a statement of now would see."""
        async with self.asking("ask what is visible") as connection:
            return await _visible(connection)

    async def under_way(self) -> frozenset[int]:
        """Every transaction so far that may not be visible yet."""
        async with self.asking("ask what is visible") as connection:
            # A snapshot names what runs below the newest that has ended: that is ours.
            ours = await connection.fetchval("SELECT pg_catalog.pg_current_xact_id()::text")
            visible = await _visible(connection)
        return frozenset(xid for xid in visible.running if is_before(xid, int(ours) & XID_MASK))

    async def log_end(self) -> int:
        """A position that no transaction which is visible by now lies behind."""
        async with self.asking("ask where the log ends") as connection:
            lsn: str = await connection.fetchval(
                "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
            )
        return parse_lsn(lsn)

    async def count(self, topic: str) -> int:
        """Rows of the table, for the progress bar; 0 when it would take long."""
        name = table_sql(self.fit(topic).table.table)
        async with self.asking("count rows") as connection:
            estimate: int = await connection.fetchval(
                "SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = $1::regclass", name
            )
            if estimate >= _COUNT_ROWS_MAX:
                return estimate
            try:
                return int(
                    await connection.fetchval(
                        f"SELECT count(*) FROM {name}",  # noqa: S608  # quoted
                        timeout=_COUNT_S_MAX,
                    )
                )
            except TimeoutError:
                return 0

    async def blockers(self, topic: str, xids: frozenset[int]) -> list[Blocker]:
        """Who has one of these transactions open, or locks the dataset's table."""
        async with self.asking("ask what holds a snapshot up") as connection:
            return await blockers(connection, xids=xids, table=self._tables[topic][1])

    async def chunk(
        self, topic: str, last: Key | None, limit: int, suffices: Callable[[Visible], bool]
    ) -> tuple[list[Row], Visible] | Held:
        """Read rows after `last` in one snapshot, or why that cannot be, or does not suffice.

        Raises:
            DeniedError: SCHEMA_MISMATCH, a value does not fit its field.
            UnavailableError: DATABASE_UNAVAILABLE, also when the name means another table.
        """
        sql, arguments = chunk_query(self.fit(topic), last, limit)
        found = await self._read(topic, sql, arguments, suffices)
        if isinstance(found, Held):
            return found
        records, visible = found
        return await _converted(self.fit(topic), records), visible

    async def _read(
        self, topic: str, sql: str, arguments: list[Any], suffices: Callable[[Visible], bool]
    ) -> tuple[list[Any], Visible] | Held:
        fit, oid = self._tables[topic]
        async with self.asking(f"read table {fit.table.table}") as connection:
            # What is waited for may hold the table, and the stream must not wait with it.
            if not suffices(await _visible(connection)):
                return Held.UNSEEN
            try:
                async with _reading(connection, fit, self._lock_s()):
                    self._locked_out = 0
                    visible = await _visible(connection)
                    if not suffices(visible):
                        return Held.UNSEEN
                    records = await connection.fetch(sql, *arguments)
                    # What was read is locked until we commit, so it has its name still.
                    read = await connection.fetchval(
                        "SELECT pg_catalog.to_regclass($1)::oid", table_sql(fit.table.table)
                    )
            except asyncpg.LockNotAvailableError:
                self._locked_out += 1
                return Held.LOCKED
        if read != oid:
            raise changed(fit.table.table)
        return records, visible

    def _lock_s(self) -> float:
        """How long the next try waits for a table's lock."""
        is_long = self._locked_out % _LOCK_TRIES == _LOCK_TRIES - 1
        return _LOCK_LONG_S_MAX if is_long else _LOCK_S_MAX

    async def fetch(
        self, topic: str, rows: Sequence[Row], xid: int, *, ends: float | None = None
    ) -> list[Row | None]:
        """The rows with the keys of `rows` as they are now, None for each that is gone.

        At its place in the log only what the log leaves out may be taken from such a row (see
        `postgresql_whole.filled`): a later value that is unique may be another row's until then.

        Args:
            xid: the transaction that changed them. Before it is visible, the table holds what
                was before, or nothing, and what is given would never be put right.
            ends: how long to wait for what keeps them from being read, of `time.monotonic`.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, also when that takes too long.
        """
        records = await self._fetch(topic, rows, xid, ends or held_until())
        now = await _converted(self.fit(topic), [record[1:] for record in records])
        found: list[Row | None] = [None] * len(rows)
        for record, row in zip(records, now, strict=True):
            found[record[0] - 1] = row
        await self._make_durable()
        return found

    async def _fetch(self, topic: str, rows: Sequence[Row], xid: int, ends: float) -> list[Any]:
        fit = self.fit(topic)
        sql, arguments = keys_query(fit, rows)
        while True:
            found = await self._read(topic, sql, arguments, lambda visible: visible.saw(xid))
            if not isinstance(found, Held):
                return found[0]
            if time.monotonic() > ends:
                raise _unreadable(fit, found)
            await asyncio.sleep(_POLL_S)

    async def _make_durable(self) -> None:
        """See what was read on the server's disk: no crash may undo what was given out.

        A commit with synchronous_commit off is visible before. A chunk needs no such care: its
        mark lies behind all that it saw, and the log is sent from the disk only.
        """
        async with self.asking("ask what is on the disk") as connection:
            is_durable = await connection.fetchval(
                "SELECT pg_catalog.pg_current_wal_flush_lsn()"
                " >= pg_catalog.pg_current_wal_insert_lsn()"
            )
        if not is_durable:
            await self.emit("flush")  # our own commits are durable, and so is the log before them


async def _converted(fit: FitTable, records: list[Any]) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, len(records), _CONVERT_ROWS):
        try:
            rows += rows_of(fit.columns, records[start : start + _CONVERT_ROWS])
        except ValueError as exc:
            raise DeniedError(
                Reason.SCHEMA_MISMATCH,
                f"table {fit.table.table} column {exc.args[0]}: a value does not fit the schema",
            ) from None  # the cause may quote the value
        await asyncio.sleep(0)
    return rows


async def _visible(connection: "asyncpg.Connection[Any]") -> Visible:
    text = await connection.fetchval("SELECT pg_catalog.pg_current_snapshot()::text")
    return Visible.parse(text)


@contextlib.asynccontextmanager
async def _reading(
    connection: "asyncpg.Connection[Any]", fit: FitTable, lock_s: float
) -> AsyncIterator[None]:
    """One snapshot in which the table is read, and until whose end it is locked against DDL."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # First the lock, then the snapshot: to one from before a rewrite of the table that was
        # waited for, the table is empty.
        await connection.execute(
            f"SET LOCAL lock_timeout = {round(lock_s * 1000)};"
            f" LOCK TABLE {table_sql(fit.table.table)} IN ACCESS SHARE MODE"
        )
        yield


def _unreadable(fit: FitTable, held: Held) -> UnavailableError:
    why = (
        "it is locked; see pg_locks"
        if held is Held.LOCKED
        else "a transaction that is in the log is not visible yet; does its commit wait for a"
        " synchronous standby?"
    )
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE, f"table {fit.table.table} cannot be read: {why}"
    )


def chunk_query(fit: FitTable, last: Key | None, limit: int) -> tuple[str, list[Any]]:
    """The statement that reads the rows after `last` in key order, and its arguments."""
    names = ", ".join(f"t.{quoted(column.name)}" for column in fit.key)
    columns = ", ".join(column.sql for column in fit.columns)
    where, arguments = "", []
    if last is not None:
        keys = [_key(fit, column) for column in fit.key]
        marks = [f"${number}::{key.wire}{key.cast}" for number, key in enumerate(keys, 1)]
        arguments = [key.convert(value) for key, value in zip(keys, last, strict=True)]
        where = f" WHERE ({names}) > ({', '.join(marks)})"
    sql = (
        f"SELECT {columns} FROM {table_sql(fit.table.table)} AS t{where}"  # noqa: S608  # quoted
        f" ORDER BY {names} LIMIT {limit}"
    )
    return sql, arguments


def keys_query(fit: FitTable, rows: Sequence[Row]) -> tuple[str, list[Any]]:
    """The statement that reads rows by the keys of `rows`, each after its place from 1 on."""
    keys = [_key(fit, column) for column in fit.key]
    columns = ", ".join(column.sql for column in fit.columns)
    marks = ", ".join(f"${number}::{key.wire}[]" for number, key in enumerate(keys, 1))
    names = ", ".join(f"k{number}" for number, _ in enumerate(keys, 1))
    match = " AND ".join(
        f"t.{quoted(column.name)} = k.k{number}{key.cast}"
        for number, (column, key) in enumerate(zip(fit.key, keys, strict=True), 1)
    )
    arguments = [
        [key.convert(row[column.name]) for row in rows]
        for column, key in zip(fit.key, keys, strict=True)
    ]
    sql = (
        f"SELECT k.place, {columns} FROM unnest({marks}) WITH ORDINALITY AS k ({names}, place)"  # noqa: S608  # quoted
        f" JOIN {table_sql(fit.table.table)} AS t ON {match}"
    )
    return sql, arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyColumn:
    """How a key column's values are sent: as which type, and cast to the column's own."""

    wire: str
    cast: str
    convert: Callable[[Any], Any]


def _key(fit: FitTable, column: ServerColumn) -> _KeyColumn:
    fields = {field.name: field for field in fields_of(fit.table.schema)}
    convert = converter_of(fields[column.name]) or _same
    if column.base in NATIVE or column.base in PASSED:
        return _KeyColumn(wire=f"pg_catalog.{column.base}", cast="", convert=convert)
    return _KeyColumn(wire="text", cast=f"::{column.sql_type}", convert=convert)


def _same(value: Any) -> Any:
    return value
