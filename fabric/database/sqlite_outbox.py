"""The outbox of the Python API: changes that an application publishes without a table.

Rows wait in the agent's own SQLite file until the platform has acknowledged them; then they
are gone, so a new generation sends nothing anew. Only the application can, between the marks
of a snapshot.
Each change is a commit of its own; its id is its position.
"""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fabric.database import sqlite_schemas as schemas
from fabric.database.datum import encode_change, written
from fabric.database.source_figures import age_s
from fabric.database.sqlite_outbox_rows import Room, Waiting, change_of, page, small_bytes
from fabric.database.sqlite_thread import SqliteThread
from fabric.database.sqlite_token import generation_in
from fabric.database.value_fit import Check, checker
from fabric.model.change import MARKS, Change, Op, Row, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import FabricError, Malformed, Reason, UnavailableError, UsageError
from fabric.model.names import Origin, Topic
from fabric.model.schema import RowSchema
from fabric.ports import Captured, Event, Opened, Reached, SourceTable

FILE = "outbox.db"
"""Its name in the agent's folder."""
ROWS_MAX = 1_000_000
"""Changes that may wait; more are refused, so that a dead platform does not fill the disk."""
_POLL_S = 0.02
_SILENCE_S = 10.0
_PAGE_ROWS = 1_000
_TAKES: Mapping[Op, tuple[str, Callable[[RowSchema], Collection[str]]]] = {
    Op.UPSERT: ("a whole row", lambda schema: schema.fields),
    Op.DELETE: ("the key columns", lambda schema: schema.key),
    Op.SNAPSHOT_BEGIN: ("an empty row with a mark", lambda _: ()),
    Op.SNAPSHOT_END: ("an empty row with a mark", lambda _: ()),
}
"""What may be published: the columns of each, in words and by the schema."""
_NAMES_MAX = 8
"""Fields that a refusal names."""
_NAME_MAX = 64
"""Characters of each."""
_NOBODY = Origin("0", "outbox", "outbox")
"""Stands in stored changes, whose origin is given by the capture that reads them."""
_DDL = (
    "CREATE TABLE IF NOT EXISTS fabric_outbox (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " topic TEXT NOT NULL, commit_us INTEGER NOT NULL, datum BLOB NOT NULL, schema BLOB)",
    "CREATE TABLE IF NOT EXISTS fabric_outbox_life (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " database BLOB NOT NULL, generation INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO fabric_outbox_life VALUES (1, randomblob(16), 0)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    database: bytes
    generation: int
    position: int


class SqliteOutbox:
    """Implements ports.ChangeSource; `put` adds a change.

    Args:
        path: the agent's file, made when absent.
        tables: the datasets that may be published; `table` of each is not used.
        room: asked before a change is stored that may be too large to be sent at all.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[SourceTable],
        room: Room = lambda _: None,
    ) -> None:
        self._thread = SqliteThread(path, create=True, synchronous="FULL")
        self._tables = {str(table.topic): table for table in tables}
        self._checks = {str(table.topic): _checks(table.schema) for table in tables}
        self._small = {str(table.topic): small_bytes(table.schema) for table in tables}
        self._room = room
        self._life: _Life | None = None
        self._position = 0
        self._released = 0
        self._news = asyncio.Event()

    async def open(self, resume: str | None) -> Opened:
        """Open the file; what waits there is sent, also after a foreign token."""
        await self._thread.open()
        self._life = await self._thread.write(lambda c: _begin(c, resume))
        self._position = self._released = self._life.position
        return Opened(generation=self._life.generation, position=self._position)

    async def put(self, topic: Topic, op: Op, row: Row) -> ChangeSequence:
        """Store one change durably.

        Args:
            op: UPSERT with a whole row, DELETE with the key columns, or SNAPSHOT_BEGIN and
                SNAPSHOT_END, each with an empty row.

        Returns:
            The sequence it will travel under.

        Raises:
            UsageError: the topic is not ours, or the row does not fit its schema: no field
                may lack, be null where null is not allowed, or stand beside the schema's, and
                no value be one that a reader gets back as another. TOO_LARGE, it can never be
                sent, not even alone.
            UnavailableError: the outbox is full or its file cannot be written.
        """
        life, table = self._open_life(), self._tables.get(str(topic))
        if table is None:
            raise UsageError(Reason.TOPIC_UNKNOWN, f"{topic} is not published by this agent")
        if op not in _TAKES:
            raise UsageError(
                Reason.SCHEMA_MISMATCH,
                "publish takes upserts, deletes and the marks of a snapshot only",
            )
        _demand_fields(table.schema, op, row)
        _demand_fit(self._checks[str(topic)], row)
        now_us = time.time_ns() // 1000
        change = Change(
            topic=topic,
            origin=_NOBODY,
            op=op,
            sequence=ChangeSequence(0, 0, 0),
            commit_us=now_us,
            row=None if op in MARKS else row,
        )
        try:
            datum = encode_change(change, table.schema, exact=True)
        except Malformed:
            raise UsageError(Reason.SCHEMA_MISMATCH, "row does not fit the dataset") from None
        generation = life.generation

        def add(connection: sqlite3.Connection) -> int:
            ident = _add(connection, table, now_us, datum)
            if len(datum) > self._small[str(topic)]:
                by = written(table.schema).text
                row = Waiting(id=ident, topic=str(topic), commit_us=now_us, datum=datum, by=by)
                self._demand_room(change_of(row, table, generation))
            return ident

        ident = await self._thread.write(add)
        self._news.set()
        return ChangeSequence(generation, ident, 1)

    def _demand_room(self, change: Change) -> None:
        """Refuse what would stop all that is put behind it; raising takes it out again."""
        try:
            self._room(change)
        except FabricError as exc:
            if exc.reason is Reason.TOO_LARGE:
                raise UsageError(
                    Reason.TOO_LARGE,
                    f"this row of {change.topic} {exc.args[0]}; make it smaller",
                ) from None
            # The policy is about to change, or lacks the dataset: others will say so.

    def _open_life(self) -> _Life:
        if self._life is None:
            raise UsageError(Reason.INTERNAL, "outbox is used before it is open")
        return self._life

    async def read(self) -> AsyncIterator[Event]:
        """Yield what waits, in order, then what comes."""
        quiet_since = time.monotonic()
        while True:
            self._news.clear()
            found = await self._thread.call(
                partial(page, after=self._position, rows_max=_PAGE_ROWS)
            )
            for row in found:
                yield self._captured(row)
                self._position = row.id
            if found or time.monotonic() - quiet_since >= _SILENCE_S:
                quiet_since = time.monotonic()
                yield self._reached()
            if not found:
                await self._wait()

    async def _wait(self) -> None:
        # Another process may put changes too, so the event only shortens the wait.
        try:
            async with asyncio.timeout(_POLL_S):
                await self._news.wait()
        except TimeoutError:
            return

    def _captured(self, row: Waiting) -> Captured:
        table = self._tables.get(row.topic)
        if table is None:
            raise UsageError(
                Reason.TOPIC_UNKNOWN,
                f"changes for {row.topic} wait in the outbox, and no setting publishes it any more",
            )
        try:
            change = change_of(row, table)
        except Malformed as exc:
            raise UsageError(
                Reason.SCHEMA_MISMATCH,
                f"changes for {row.topic} wait in the outbox, and today's schema cannot read"
                " them; publish the one that they were written with until they are sent",
            ) from exc
        rows = [] if change.row is None else [change.row]
        run = Run(op=change.op, position=row.id, ordinal=1, commit_us=row.commit_us, rows=rows)
        return Captured(topic=table.topic, run=run)

    def _reached(self) -> Reached:
        life = self._open_life()
        resume = {
            "kind": "outbox",
            "database": life.database.hex(),
            "generation": life.generation,
            "position": self._position,
        }
        return Reached(position=self._position, resume=json.dumps(resume))

    async def release(self, position: int) -> None:
        """Delete changes at or before `position`."""
        self._released = max(self._released, position)
        await self._thread.write(
            lambda c: c.execute("DELETE FROM fabric_outbox WHERE id <= ?", (position,)).rowcount
        )

    async def status(self) -> Mapping[str, float]:
        """Figures for metrics; there is no snapshot."""
        start = self._released
        row = await self._thread.call(
            lambda c: c.execute(
                "SELECT min(commit_us), sum(length(datum)) FROM fabric_outbox WHERE id > ?",
                (start,),
            ).fetchone()
        )
        return {
            "lag_seconds": age_s(row[0], time.time_ns() // 1000),
            "lag_bytes": float(row[1] or 0),
            "snapshot_rows": 0.0,
            "snapshot_total": 0.0,
        }

    async def waits(self) -> str | None:
        """Nothing: there is no snapshot."""
        return None

    async def close(self) -> None:
        """Close the file; what waits stays there."""
        self._life = None
        await self._thread.close()


def _demand_fields(schema: RowSchema, op: Op, row: Row) -> None:
    """Refuse a row that is not whole, or a misspelt field, by their names."""
    expected = set(_TAKES[op][1](schema))
    lacks, unknown = sorted(expected - row.keys()), sorted(map(str, row.keys() - expected))
    if lacks or unknown:
        said = [f"{what} {_names(n)}" for what, n in (("lacks", lacks), ("has", unknown)) if n]
        raise UsageError(
            Reason.SCHEMA_MISMATCH, f"publish takes {_TAKES[op][0]}; this one {' and '.join(said)}"
        )


def _checks(schema: RowSchema) -> Mapping[str, Check]:
    known: dict[str, Any] = {}
    return {name: checker(schema.type_of(name), known) for name in schema.fields}


def _demand_fit(checks: Mapping[str, Check], row: Row) -> None:
    """Refuse a value by its column's name."""
    for name, value in row.items():
        try:
            checks[name](value)
        except ValueError:
            raise UsageError(
                Reason.SCHEMA_MISMATCH,
                f"row does not fit the dataset: the value of column {name!r} is not of its type",
            ) from None


def _names(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMES_MAX} more"] if len(names) > _NAMES_MAX else []
    return ", ".join([repr(name[:_NAME_MAX]) for name in names[:_NAMES_MAX]] + more)


def _begin(connection: sqlite3.Connection, resume: str | None) -> _Life:
    for statement in _DDL:
        connection.execute(statement)
    schemas.create(connection, "fabric_outbox")
    database, old = connection.execute(
        "SELECT database, generation FROM fabric_outbox_life"
    ).fetchone()
    last = _last_id(connection)
    position = _position_in(resume, database)
    if position is not None and position <= last:
        return _Life(database=database, generation=generation_in(resume or ""), position=position)
    generation = max(int(time.time()), old + 1, generation_in(resume or "") + 1)
    connection.execute("UPDATE fabric_outbox_life SET generation = ?", (generation,))
    first = connection.execute("SELECT min(id) FROM fabric_outbox").fetchone()[0]
    return _Life(
        database=database, generation=generation, position=last if first is None else first - 1
    )


def _position_in(resume: str | None, database: bytes) -> int | None:
    try:
        data = json.loads(resume or "")
        if data["kind"] == "outbox" and bytes.fromhex(data["database"]) == database:
            return int(data["position"])
    except (ValueError, KeyError, TypeError):
        return None
    return None


def _last_id(connection: sqlite3.Connection) -> int:
    row = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'fabric_outbox'"
    ).fetchone()
    return 0 if row is None else int(row[0])


def _add(connection: sqlite3.Connection, table: SourceTable, now_us: int, datum: bytes) -> int:
    first = connection.execute("SELECT min(id) FROM fabric_outbox").fetchone()[0]
    if first is not None and _last_id(connection) - first + 1 >= ROWS_MAX:
        raise UnavailableError(Reason.OVERLOADED, "outbox is full; the platform must take it first")
    cursor = connection.execute(
        "INSERT INTO fabric_outbox (topic, commit_us, datum, schema) VALUES (?, ?, ?, ?)",
        (str(table.topic), now_us, datum, schemas.keep(connection, table.schema)),
    )
    if cursor.lastrowid is None:
        raise FabricError(Reason.INTERNAL, "outbox row has no id")
    return cursor.lastrowid
