"""A SQLite database as a source of changes.

The source cuts the change table into groups with watermarks that it writes itself.
A group's changes share the watermark's id as their commit position and are numbered
per dataset, so a repeat gives the same sequences. A watermark is synced to disk
before anything below it is handed out: a power cut cannot undo what was sent.
Snapshot chunks are read after a watermark is committed and carry its position; what
changes meanwhile has a later change.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from fabric.database import sqlite_token as tokens
from fabric.database.source_figures import age_s, rows_in_all
from fabric.database.sqlite_capture import (
    add_watermark,
    install,
    is_intact,
    is_watermark,
    next_generation,
    next_watermark,
)
from fabric.database.sqlite_reader import TableReader
from fabric.database.sqlite_thread import SqliteThread
from fabric.database.sqlite_token import Progress, Token
from fabric.model.change import Op, Row, Run
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.ports import Captured, Event, Opened, Reached, SourceTable

_POLL_S = 0.02
_SILENCE_S = 10.0
_RELEASE_ROWS = 10_000
"""Change rows deleted in one transaction, so that the application never waits long."""


class SqliteSource:
    """Implements ports.ChangeSource on a trigger-fed change table; one source a database.

    Args:
        path: the database file; it must exist.
        tables: what to capture.
        chunk_rows: most rows of a snapshot chunk and of one run; wide rows make them shorter.
        silence_s: longest time without a Reached while nothing changes, seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[SourceTable],
        *,
        chunk_rows: int = 5000,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._path = os.fspath(path)
        self._tables = tuple(replace(t, table=t.table.removeprefix("main.")) for t in tables)
        self._chunk_rows = chunk_rows
        self._silence_s = silence_s
        self._thread = SqliteThread(path, create=False, synchronous="NORMAL")
        self._lock: int | None = None
        self._token: Token | None = None
        self._numbers: Mapping[str, int] = {}
        self._readers: list[TableReader] = []
        self._versions = (-1, -1)
        self._totals: dict[str, int] = {}
        self._rows_read = 0
        self._released = 0
        self._chunked = (0, 0)

    async def open(self, resume: str | None) -> Opened:
        """Make or check the change table; see ports.ChangeSource.open."""
        await self.close()
        await self._thread.open()
        try:
            self._take_lock()
            token = await self._thread.write(lambda c: self._begin(c, resume))
        except BaseException:
            await self.close()
            raise
        self._token = token
        self._released, self._chunked = token.position, (0, 0)
        self._readers = [TableReader(t, self._numbers[t.table]) for t in self._tables]
        return Opened(generation=token.generation, position=token.position)

    def _take_lock(self) -> None:
        """Two captures would delete each other's changes; the kernel frees this with us."""
        path = f"{self._path}-fabric"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE, f"{path}: cannot be made: {exc.strerror}"
            ) from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(handle)
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"{self._path}: another capture reads it; put all its tables into one capture",
            ) from exc
        self._lock = handle

    def _begin(self, connection: sqlite3.Connection, resume: str | None) -> Token:
        old = tokens.decode(resume) if resume else None
        known = frozenset(p.table for p in old.snapshots.values()) if old else frozenset()
        installed = install(connection, self._tables, known)
        self._numbers = installed.numbers
        self._versions = (-1, _schema_version(connection))
        if (
            old
            and old.database == installed.database
            and is_watermark(connection, old.position, old.mark)
        ):
            return replace(old, snapshots=self._snapshots(old))
        connection.execute("DELETE FROM fabric_changes")
        position, mark = add_watermark(connection)
        floor = max(int(time.time()), tokens.generation_in(resume or "") + 1)
        return Token(
            database=installed.database,
            generation=next_generation(connection, floor),
            position=position,
            mark=mark,
            snapshots=self._snapshots(None),
        )

    def _snapshots(self, old: Token | None) -> dict[str, Progress]:
        """Progress of every dataset; one whose table or schema changed is read anew."""
        result: dict[str, Progress] = {}
        for table in self._tables:
            name = str(table.topic)
            fresh = Progress(table=table.table, fingerprint=table.schema.fingerprint.hex())
            kept = old.snapshots.get(name, fresh) if old else fresh
            same = (kept.table, kept.fingerprint) == (fresh.table, fresh.fingerprint)
            result[name] = kept if same else fresh
        return result

    async def read(self) -> AsyncIterator[Event]:
        """Yield groups of changes, snapshot chunks and Reached, for ever."""
        quiet_since = time.monotonic()
        while True:
            step = await self._thread.call(self._next_step)
            if step is None:
                if time.monotonic() - quiet_since >= self._silence_s:
                    quiet_since = time.monotonic()
                    yield self._reached()
                await asyncio.sleep(_POLL_S)
                continue
            position, mark, is_new = step
            async for event in self._group(position, is_new):
                yield event
            self._token = replace(self._open_token(), position=position, mark=mark)
            quiet_since = time.monotonic()
            yield self._reached()

    def _open_token(self) -> Token:
        if self._token is None:
            raise UsageError(Reason.INTERNAL, "source is read before it is open")
        return self._token

    def _reached(self) -> Reached:
        token = self._open_token()
        return Reached(position=token.position, resume=tokens.encode(token))

    def _next_step(self, connection: sqlite3.Connection) -> tuple[int, bytes, bool] | None:
        """The next watermark and whether it is new, or None when nothing happened."""
        token = self._open_token()
        pending = any(not progress.done for progress in token.snapshots.values())
        version = int(connection.execute("PRAGMA data_version").fetchone()[0])
        if version == self._versions[0] and not pending:
            return None
        self._check_schema(connection)
        kept = next_watermark(connection, token.position)
        if kept:
            return (*kept, False)
        touched = connection.execute(
            "SELECT 1 FROM fabric_changes WHERE id > ? LIMIT 1", (token.position,)
        ).fetchone()
        if not touched and not pending:
            # Only now is there nothing left to look at in this version of the file.
            self._versions = (version, self._versions[1])
            return None
        return (*_synced_watermark(connection), True)

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        version = _schema_version(connection)
        if version == self._versions[1]:
            return
        if not is_intact(connection, self._tables, self._numbers):
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                "a captured table was changed or made anew; the source must open again",
            )
        self._versions = (self._versions[0], version)

    async def _group(self, position: int, is_new: bool) -> AsyncIterator[Event]:
        """Every dataset's changes below the watermark, then a snapshot chunk at it."""
        after = self._open_token().position
        counts: dict[str, int] = {}
        for reader in self._readers:
            ordinal, last = 1, after
            while True:
                page = await self._thread.call(
                    partial(
                        reader.page,
                        after=last,
                        position=position,
                        ordinal=ordinal,
                        limit=self._chunk_rows,
                    )
                )
                for run in page.runs:
                    yield Captured(topic=reader.topic, run=run)
                ordinal, last = ordinal + page.count, page.last
                if page.is_last:
                    break
            counts[str(reader.topic)] = ordinal
        if not is_new:
            return  # the chunk of a kept watermark was sent, or comes again at a later one
        for reader in self._readers:
            name = str(reader.topic)
            if not self._open_token().snapshots[name].done:
                for event in await self._chunk(reader, position, counts[name]):
                    yield event
                return

    async def _chunk(self, reader: TableReader, position: int, ordinal: int) -> list[Captured]:
        """One chunk with the marks around the snapshot; moves the progress."""
        token, name = self._open_token(), str(reader.topic)
        progress = token.snapshots[name]
        if not progress.begun:
            self._totals[name] = await self._thread.call(reader.total)
        chunk = await self._thread.call(
            lambda c: reader.chunk(c, progress.cursor, self._chunk_rows)
        )
        done = chunk.is_last
        parts: list[tuple[Op, list[Row]]] = [(Op.UPSERT, chunk.rows)] if chunk.rows else []
        if not progress.begun:
            parts.insert(0, (Op.SNAPSHOT_BEGIN, []))
        if done:
            parts.append((Op.SNAPSHOT_END, []))
        runs = _in_a_row(parts, position, ordinal)
        moved = replace(progress, begun=True, done=done, cursor=None if done else chunk.cursor)
        self._token = replace(token, snapshots={**token.snapshots, name: moved})
        self._rows_read += len(chunk.rows)
        self._chunked = (position, runs[-1].commit_us)
        return [Captured(topic=reader.topic, run=run) for run in runs]

    async def release(self, position: int) -> None:
        """Delete change rows before `position`; the watermark there stays, as proof of it."""
        self._released = max(self._released, position)
        while await self._thread.write(lambda c: _delete_some(c, position)) == _RELEASE_ROWS:
            pass

    async def status(self) -> Mapping[str, float]:
        """Figures for metrics; `lag_bytes` is 0, a change table has no bytes to count."""
        snapshots, released = self._open_token().snapshots, self._released
        waiting = await self._thread.call(
            lambda c: c.execute(
                "SELECT commit_us FROM fabric_changes WHERE id > ? AND source IS NOT NULL"
                " ORDER BY id LIMIT 1",
                (released,),
            ).fetchone()
        )
        at, chunk_us = self._chunked
        # Of chunks that are not released the last one stands for all: a snapshot is no delay.
        oldest = min([*(waiting or ()), *([chunk_us] if at > released else ())], default=None)
        counted = sum(self._totals.values())
        is_over = all(progress.done for progress in snapshots.values())
        return {
            "lag_seconds": age_s(oldest, time.time_ns() // 1000),
            "lag_bytes": 0.0,
            "snapshot_rows": float(self._rows_read),
            "snapshot_total": float(rows_in_all(self._rows_read, counted, is_over=is_over)),
        }

    async def waits(self) -> str | None:
        """Nothing: who waits too long for the application's write lock fails, and says so."""
        return None

    async def close(self) -> None:
        """Close the connection and let another capture in.

        The thread does both: it may wait for the application's lock for longer than who
        ends a capture, and until it is done it is at work on the change table.
        """
        self._token = None
        lock, self._lock = self._lock, None
        await self._thread.close(lambda: _unlock(lock))


def _unlock(lock: int | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            os.close(lock)


def _in_a_row(parts: Sequence[tuple[Op, list[Row]]], position: int, ordinal: int) -> list[Run]:
    """Runs with consecutive ordinals, committed now as far as anyone knows."""
    now_us = time.time_ns() // 1000
    runs: list[Run] = []
    for op, rows in parts:
        runs.append(Run(op=op, position=position, ordinal=ordinal, commit_us=now_us, rows=rows))
        ordinal = runs[-1].last_ordinal + 1
    return runs


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA schema_version").fetchone()[0])


def _synced_watermark(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Write a watermark and sync the log, with every commit before it."""
    connection.execute("PRAGMA synchronous=FULL")
    try:
        return add_watermark(connection)
    finally:
        connection.execute("PRAGMA synchronous=NORMAL")


def _delete_some(connection: sqlite3.Connection, position: int) -> int:
    return connection.execute(
        "DELETE FROM fabric_changes WHERE id IN"
        " (SELECT id FROM fabric_changes WHERE id < ? ORDER BY id LIMIT ?)",
        (position, _RELEASE_ROWS),
    ).rowcount
