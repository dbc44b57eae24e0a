"""Snapshots while the stream goes on: keyset chunks, each closed by a watermark in the log.

DBLog (arXiv 2010.12597) with logical messages as watermarks, so no table is written. A
chunk is read and then a high mark is written; when the mark comes by in the stream, the
chunk's rows that no hidden transaction changed are emitted at the mark's position. The
low mark of the paper is replaced by the chunk's own snapshot (see postgresql_window).
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import asyncpg

from fabric.database.postgresql_changes import PREFIX, RUN_BYTES_MAX, RUN_ROWS_MAX, Mark
from fabric.database.postgresql_columns import converter_of, quoted, rows_of, table_sql
from fabric.database.postgresql_connect import class_of, translated
from fabric.database.postgresql_identity import changed
from fabric.database.postgresql_preflight import FitTable
from fabric.database.postgresql_token import BEGUN, DONE, Gone, Progress
from fabric.database.postgresql_types import NATIVE, PASSED, fields_of
from fabric.database.postgresql_unseen import Unseen
from fabric.database.postgresql_window import XID_MASK, Key, Visible, Window, is_before
from fabric.database.postgresql_wire import parse_lsn
from fabric.model.change import Op, Row, Run
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import QUEUE_BYTES_MAX
from fabric.ports import Captured

_LOG = logging.getLogger(__name__)
_COUNT_S_MAX = 5.0
_COUNT_ROWS_MAX = 1_000_000
"""Above it the planner's estimate is good enough to show progress."""
_FIRST_ROWS = 500
_CONVERT_ROWS = 500
"""Rows converted between two turns of the event loop."""
_HELD_SAID_S = 60.0
"""A chunk that waits so long for a transaction that is not visible is worth a word."""
_HELD_AGAIN_S = 600.0
_HELD_NAMED_MAX = 8
_ROW_HELD_S_MAX = 30.0
"""How long a single row waits for one, while the stream stands; well below its deadline."""
_POLL_S = 0.05


class Snapshots:
    """Reads the tables that are not snapshot yet, one after the other.

    Args:
        connection: used by one caller at a time, under `lock`.
        tables: by topic, how each is read, and its object id: only that one is read, whatever
            its name has come to mean.
        chunk_rows: most rows of one chunk; wide rows make chunks shorter.
    """

    def __init__(
        self,
        connection: "asyncpg.Connection[Any]",
        lock: asyncio.Lock,
        tables: Mapping[str, tuple[FitTable, int]],
        chunk_rows: int,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._tables = tables
        self._chunk_rows = chunk_rows
        self._limit = min(_FIRST_ROWS, chunk_rows)
        self._awaited = ""
        self._row_bytes = 1
        self._counted: set[str] = set()
        self._say_held: float | None = None
        self.rows = 0
        self.total = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a mark is on its way."""
        return bool(self._awaited)

    async def emit(self, kind: str) -> str:
        """Write a watermark into the log; its id."""
        ident = secrets.token_hex(8)
        content = json.dumps({"kind": kind, "id": ident})
        async with self._lock:
            with translated("write a watermark"):
                await self._connection.fetchval(
                    "SELECT pg_catalog.pg_logical_emit_message(true, $1, $2::text)::text",
                    PREFIX,
                    content,
                )
        return ident

    async def begin(self, topic: str) -> None:
        """Write the mark that begins a dataset's snapshot."""
        await self._count(topic)
        self._awaited = await self.emit("begin")

    async def visible(self) -> Visible:
        """What a statement of now would see."""
        async with self._lock:
            with translated("ask what is visible"):
                return await self._visible()

    async def _visible(self) -> Visible:
        text = await self._connection.fetchval("SELECT pg_catalog.pg_current_snapshot()::text")
        return Visible.parse(text)

    async def under_way(self) -> frozenset[int]:
        """Every transaction so far that may not be visible yet."""
        async with self._lock:
            with translated("ask what is visible"):
                # A snapshot names what runs below the newest that has ended: that is ours.
                ours = await self._connection.fetchval(
                    "SELECT pg_catalog.pg_current_xact_id()::text"
                )
                visible = await self._visible()
        return frozenset(xid for xid in visible.running if is_before(xid, int(ours) & XID_MASK))

    async def log_end(self) -> int:
        """A position that no transaction which is visible by now lies behind."""
        async with self._lock:
            with translated("ask where the log ends"):
                lsn: str = await self._connection.fetchval(
                    "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
                )
        return parse_lsn(lsn)

    async def chunk(self, topic: str, progress: Progress, unseen: Unseen) -> Window | None:
        """Read the next chunk and write its high mark.

        Args:
            unseen: transactions that went by and may not be visible yet.

        Returns:
            The window to watch, or None when one of `unseen` is not visible yet: the caller
            tries again a little later. That may last, and the log says so.

        Raises:
            DeniedError: SCHEMA_MISMATCH, a value does not fit its field.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        await self._count(topic)
        fit, _ = self._tables[topic]
        sql, arguments = chunk_query(fit, progress.last_key, self._limit)
        found = await self._read(topic, sql, arguments, unseen.settle)
        if found is None:
            self._held(fit, unseen.kept)
            return None
        self._say_held = None
        records, visible = found
        rows = await self._convert(fit, records)
        window = Window(fit.table.topic, await self.emit("high"), visible)
        window.is_last = len(rows) < self._limit
        for row in rows:
            window.add(tuple(row[name] for name in fit.table.schema.key), row)
        self._measure(rows)
        self._awaited = window.ident
        return window

    def _held(self, fit: FitTable, xids: frozenset[int]) -> None:
        """A chunk cannot be read yet; say so once it lasts.

        The stream goes on, for all datasets: to open again would make nothing visible.
        """
        now = time.monotonic()
        if self._say_held is None:
            self._say_held = now + _HELD_SAID_S
        if now < self._say_held:
            return
        self._say_held = now + _HELD_AGAIN_S
        _LOG.warning(
            "the snapshot of table %s waits for transactions that are not visible yet: %s; does a"
            " commit wait for a synchronous standby (pg_stat_activity), or is a transaction long"
            " or prepared (pg_prepared_xacts)?",
            fit.table.table,
            ", ".join(map(str, sorted(xids)[:_HELD_NAMED_MAX])),
        )

    async def _read(
        self, topic: str, sql: str, arguments: list[Any], suffices: Callable[[Visible], bool]
    ) -> tuple[list[Any], Visible] | None:
        """Read in one snapshot, or nothing when it does not suffice.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, also when the name means another table.
        """
        fit, oid = self._tables[topic]
        async with self._lock:
            with translated(f"read table {fit.table.table}"):
                # What is waited for may hold the table, and the stream must not wait with it.
                if not suffices(await self._visible()):
                    return None
                async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                    # First the lock, then the snapshot: to one from before a rewrite of the
                    # table that was waited for, the table is empty.
                    await self._connection.execute(
                        f"LOCK TABLE {table_sql(fit.table.table)} IN ACCESS SHARE MODE"
                    )
                    visible = await self._visible()
                    if not suffices(visible):
                        return None
                    records = await self._connection.fetch(sql, *arguments)
                    # What was read is locked until we commit, so it has its name still.
                    read = await self._connection.fetchval(
                        "SELECT pg_catalog.to_regclass($1)::oid", table_sql(fit.table.table)
                    )
        if read != oid:
            raise changed(fit.table.table)
        return records, visible

    async def _convert(self, fit: FitTable, records: list[Any]) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(records), _CONVERT_ROWS):
            try:
                rows += rows_of(fit.columns, records[start : start + _CONVERT_ROWS])
            except ValueError as exc:
                raise DeniedError(
                    Reason.SCHEMA_MISMATCH,
                    f"table {fit.table.table} column {exc.args[0]}: a value does not fit the"
                    " schema",
                ) from None  # the cause may quote the value
            await asyncio.sleep(0)
        return rows

    def _measure(self, rows: list[Row]) -> None:
        """Aim the next chunk at the queue's bytes."""
        sample = rows[:: max(1, len(rows) // 64)]
        self._row_bytes = max(64, sum(map(_size, sample)) // max(1, len(sample)))

    def is_mark(self, mark: Mark) -> bool:
        """Whether it is the one we wait for; older ones come by after a restart."""
        return bool(self._awaited) and mark.content.get("id") == self._awaited

    def begun(self, topic: str, mark: Mark, progress: Progress) -> tuple[Captured, Progress]:
        """The begin mark came by."""
        self._awaited = ""
        run = Run(
            op=Op.SNAPSHOT_BEGIN,
            position=mark.position,
            ordinal=1,
            commit_us=mark.commit_us,
            rows=[],
        )
        captured = Captured(topic=self._tables[topic][0].table.topic, run=run)
        return captured, replace(progress, state=BEGUN, last_key=None, rows=0)

    def ended(
        self, window: Window, mark: Mark, progress: Progress
    ) -> tuple[list[Captured], Progress]:
        """The high mark came by: the chunk's rows, and the end mark after the last chunk."""
        self._awaited = ""
        chunk = window.result()
        runs: list[Captured] = []
        ordinal = 1
        for op, rows in self._pieces(chunk.rows, chunk.is_last):
            run = Run(
                op=op,
                position=mark.position,
                ordinal=ordinal,
                commit_us=mark.commit_us,
                rows=rows,
            )
            ordinal = run.last_ordinal + 1
            runs.append(Captured(topic=window.topic, run=run))
        self.rows += len(chunk.rows)
        cap = min(self._chunk_rows, max(1, QUEUE_BYTES_MAX // self._row_bytes))
        self._limit = max(1, self._limit // 2) if chunk.is_cut else min(cap, self._limit * 2)
        moved = replace(
            progress,
            state=DONE if chunk.is_last else BEGUN,
            last_key=None if chunk.is_last else chunk.last or progress.last_key,
            rows=progress.rows + len(chunk.rows),
        )
        return runs, moved

    def _pieces(self, rows: list[Row], is_last: bool) -> Iterator[tuple[Op, list[Row]]]:
        step = max(1, min(RUN_ROWS_MAX, RUN_BYTES_MAX // self._row_bytes))
        for start in range(0, len(rows), step):
            yield Op.UPSERT, rows[start : start + step]
        if is_last:
            yield Op.SNAPSHOT_END, []

    async def fetch(self, topic: str, row: Row, xid: int) -> Row | None:
        """The row with the key of `row` as it is now, or None when it is gone.

        A later state at an earlier place does no harm: what leads there comes again.

        Args:
            xid: the transaction that changed it. Before it is visible, the table holds what
                was before, or nothing, and what is given would never be put right.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, also when that takes too long.
        """
        fit, _ = self._tables[topic]
        key = tuple(row[name] for name in fit.table.schema.key)
        sql, arguments = _select(fit, key, "=", 1)
        ends = time.monotonic() + _ROW_HELD_S_MAX
        while True:
            found = await self._read(topic, sql, arguments, lambda visible: visible.saw(xid))
            if found is not None:
                rows = await self._convert(fit, found[0])
                return rows[0] if rows else None
            if time.monotonic() > ends:
                raise _invisible(fit)
            await asyncio.sleep(_POLL_S)

    async def whole(self, captured: Captured, gone: Gone, xid: int) -> list[Captured]:
        """A run of parts of rows, with those of `gone` rows as `fetch` gives them, or left out."""
        run = captured.run
        key = self._tables[str(captured.topic)][0].table.schema.key
        runs: list[Run] = []
        start = 0
        for place, row in enumerate(run.rows):
            if not gone.has(tuple(row[name] for name in key)):
                continue
            if start < place:
                runs.append(run.part(start, place))
            start = place + 1
            found = await self.fetch(str(captured.topic), row, xid)
            if found is not None:
                runs.append(replace(run.part(place, place + 1), rows=[found], absent=()))
        if start < len(run.rows):
            runs.append(run.part(start, run.count))
        return [replace(captured, run=each) for each in runs]

    async def _count(self, topic: str) -> None:
        """Rows of the table, for the progress bar; never an error, never long."""
        if topic in self._counted:
            return
        self._counted.add(topic)
        name = table_sql(self._tables[topic][0].table.table)
        async with self._lock:
            try:
                estimate = await self._connection.fetchval(
                    "SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = $1::regclass",
                    name,
                )
                if estimate < _COUNT_ROWS_MAX:
                    estimate = await self._connection.fetchval(
                        f"SELECT count(*) FROM {name}",  # noqa: S608  # quoted
                        timeout=_COUNT_S_MAX,
                    )
            except TimeoutError:
                estimate = 0
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
                raise UnavailableError(
                    Reason.DATABASE_UNAVAILABLE, f"cannot count rows: {class_of(exc)}"
                ) from None
        self.total += max(0, estimate)


def _invisible(fit: FitTable) -> UnavailableError:
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE,
        f"table {fit.table.table} cannot be read: a transaction that is in the log is not visible"
        " yet; does its commit wait for a synchronous standby?",
    )


def chunk_query(fit: FitTable, last: Key | None, limit: int) -> tuple[str, list[Any]]:
    """The statement that reads the rows after `last` in key order, and its arguments."""
    return _select(fit, last, ">", limit)


def _select(fit: FitTable, key: Key | None, operator: str, limit: int) -> tuple[str, list[Any]]:
    names = ", ".join(f"t.{quoted(column.name)}" for column in fit.key)
    columns = ", ".join(column.sql for column in fit.columns)
    where, arguments = "", []
    if key is not None:
        fields = {field.name: field for field in fields_of(fit.table.schema)}
        marks: list[str] = []
        for number, (column, value) in enumerate(zip(fit.key, key, strict=True), 1):
            convert = converter_of(fields[column.name])
            direct = column.base in NATIVE or column.base in PASSED
            cast = f"pg_catalog.{column.base}" if direct else f"text::{column.sql_type}"
            marks.append(f"${number}::{cast}")
            arguments.append(convert(value) if convert else value)
        where = f" WHERE ({names}) {operator} ({', '.join(marks)})"
    sql = (
        f"SELECT {columns} FROM {table_sql(fit.table.table)} AS t{where}"  # noqa: S608  # quoted
        f" ORDER BY {names} LIMIT {limit}"
    )
    return sql, arguments


def _size(row: Row) -> int:
    return sum(len(v) if isinstance(v, str | bytes) else 8 for v in row.values())
