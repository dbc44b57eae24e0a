"""A database in memory and a ChangeSource on it: the port's second implementation."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from fabric.model.change import Op, Row, Run
from fabric.model.names import Topic
from fabric.ports import Captured, Event, Opened, Reached, SourceTable


@dataclass
class MemoryDatabase:
    """Rows and a log of commits; outlives the sources that read it.

    Attributes:
        life: rises when the log is lost.
        log: (position, topic, operation, rows) of each commit.
        held_by: what a snapshot waits for.
    """

    tables: Sequence[SourceTable]
    life: int = 1
    position: int = 0
    released: int = 0
    held_by: str | None = None
    log: list[tuple[int, Topic, Op, list[Row]]] = field(default_factory=list)
    rows: dict[str, dict[tuple[object, ...], Row]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def held(self, table: SourceTable) -> dict[tuple[object, ...], Row]:
        """The table's rows by key."""
        return self.rows.setdefault(table.table, {})

    def upsert(self, table: SourceTable, rows: Sequence[Row]) -> None:
        """Insert or replace whole rows as one commit."""
        for row in rows:
            self.held(table)[_key(table, row)] = dict(row)
        self._commit(table, Op.UPSERT, [dict(row) for row in rows])

    def delete(self, table: SourceTable, keys: Sequence[Row]) -> None:
        """Delete rows by key as one commit."""
        for key in keys:
            self.held(table).pop(_key(table, key), None)
        self._commit(table, Op.DELETE, [{n: key[n] for n in table.schema.key} for key in keys])

    def truncate(self, table: SourceTable) -> None:
        """Empty a table."""
        self.held(table).clear()
        self._commit(table, Op.TRUNCATE, [])

    def forget(self) -> None:
        """Lose the log, as when a slot is dropped."""
        self.life += 1
        self.log.clear()

    def _commit(self, table: SourceTable, op: Op, rows: list[Row]) -> None:
        self.position += 1
        self.log.append((self.position, table.topic, op, rows))
        self.news.set()


class MemorySource:
    """Reads a MemoryDatabase; snapshot chunks have positions of their own."""

    def __init__(
        self, database: MemoryDatabase, *, chunk_rows: int = 10, silence_s: float = 0.2
    ) -> None:
        self._database = database
        self._chunk_rows = chunk_rows
        self._silence_s = silence_s
        self._position = self._opened = self._chunked = 0
        self._generation = 0
        self._cursors: dict[str, list[object] | None] = {}
        self._done: set[str] = set()

    async def open(self, resume: str | None) -> Opened:
        """Go on from the token when it is of this life and nothing after it was released."""
        database = self._database
        token = _token(resume)
        if token and token["life"] == database.life and token["position"] >= database.released:
            self._generation, self._position = token["generation"], token["position"]
            self._cursors, self._done = dict(token["cursors"]), set(token["done"])
        else:
            self._generation = max(int(time.time()), _generation(resume) + 1)
            self._position = database.position
            self._cursors, self._done = {}, set()
        self._opened, self._chunked = self._position, 0
        return Opened(generation=self._generation, position=self._position)

    async def read(self) -> AsyncIterator[Event]:
        """Live changes before each chunk, chunks until the snapshots are done, then live."""
        while True:
            self._database.news.clear()
            events = self._live() or self._chunk()
            for event in events:
                yield event
            if not events:
                await self._quiet()
            yield Reached(position=self._position, resume=self._resume())

    def _live(self) -> list[Captured]:
        found = [commit for commit in self._database.log if commit[0] > self._position]
        if found:
            self._position = found[-1][0]
        return [Captured(topic=topic, run=_run(op, at, rows)) for at, topic, op, rows in found]

    async def _quiet(self) -> None:
        try:
            async with asyncio.timeout(self._silence_s):
                await self._database.news.wait()
        except TimeoutError:
            return

    def _chunk(self) -> list[Captured]:
        table = next((t for t in self._database.tables if t.table not in self._done), None)
        if table is None:
            return []
        cursor = self._cursors.get(table.table)
        begun = table.table in self._cursors
        keys = sorted(k for k in self._database.held(table) if cursor is None or list(k) > cursor)
        keys = keys[: self._chunk_rows]
        # A watermark takes a position of its own, so that a chunk sent again is never "seen".
        self._database.position += 1
        self._position = self._chunked = self._database.position
        parts: list[tuple[Op, list[Row]]] = [] if begun else [(Op.SNAPSHOT_BEGIN, [])]
        if keys:
            parts.append((Op.UPSERT, [dict(self._database.held(table)[k]) for k in keys]))
        self._cursors[table.table] = list(keys[-1]) if keys else cursor
        if len(keys) < self._chunk_rows:
            parts.append((Op.SNAPSHOT_END, []))
            self._done.add(table.table)
        events, ordinal = [], 1
        for op, rows in parts:
            run = _run(op, self._position, rows, ordinal)
            events.append(Captured(topic=table.topic, run=run))
            ordinal = run.last_ordinal + 1
        return events

    def _resume(self) -> str:
        return json.dumps(
            {
                "kind": "memory",
                "life": self._database.life,
                "generation": self._generation,
                "position": self._position,
                "cursors": self._cursors,
                "done": sorted(self._done),
            }
        )

    async def release(self, position: int) -> None:
        """Forget the log up to `position`."""
        database = self._database
        database.released = max(database.released, position)
        database.log[:] = [commit for commit in database.log if commit[0] > position]

    async def status(self) -> Mapping[str, float]:
        """Whether anything waits, and how many tables are still to be read."""
        released = max(self._opened, self._database.released)
        waits = self._chunked > released or any(at > released for at, *_ in self._database.log)
        left = sum(table.table not in self._done for table in self._database.tables)
        return {
            "lag_seconds": float(waits),
            "lag_bytes": 0,
            "snapshot_rows": 0,
            "snapshot_total": left,
        }

    async def waits(self) -> str | None:
        """What the database's test says."""
        return self._database.held_by

    async def close(self) -> None:
        """Nothing to give back."""


def _key(table: SourceTable, row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in table.schema.key)


def _run(op: Op, position: int, rows: list[Row], ordinal: int = 1) -> Run:
    now_us = time.time_ns() // 1000
    return Run(op=op, position=position, ordinal=ordinal, commit_us=now_us, rows=rows)


def _token(resume: str | None) -> dict[str, object] | None:
    try:
        token = json.loads(resume or "")
        return token if token["kind"] == "memory" else None
    except (ValueError, KeyError, TypeError):
        return None


def _generation(resume: str | None) -> int:
    try:
        return int(json.loads(resume or "")["generation"])
    except (ValueError, KeyError, TypeError):
        return 0
