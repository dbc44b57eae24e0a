"""A PostgreSQL database as a source of changes: one slot, one publication, pgoutput.

The position of a change is its transaction's commit LSN, its ordinal its place within
dataset and transaction: both are the log's own, so what is read again is the same. The
slot lets go of its log only as far as `release` says.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from fabric.database import postgresql_generation as generations
from fabric.database import postgresql_token as tokens
from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_changes import Changes, Committed, Item, Mark, Moved
from fabric.database.postgresql_columns import split_table
from fabric.database.postgresql_connect import connect, shut, translated
from fabric.database.postgresql_generation import Place
from fabric.database.postgresql_gone import given, noted
from fabric.database.postgresql_identity import changed, goes_on, identities
from fabric.database.postgresql_lag import Lag
from fabric.database.postgresql_preflight import check
from fabric.database.postgresql_session import Session
from fabric.database.postgresql_shape import end_of_log, known_of
from fabric.database.postgresql_snapshot import Snapshots
from fabric.database.postgresql_stream import ReplicationStream
from fabric.database.postgresql_token import BEGUN, DONE, PENDING, Token
from fabric.database.postgresql_unseen import Unseen
from fabric.database.postgresql_whole import filled, whole
from fabric.database.source_figures import rows_in_all
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError, UsageError
from fabric.ports import Captured, Event, Opened, Reached, SourceTable

_SILENCE_S = 5.0
_REACHED_S = 0.02
_REACHED_RUNS = 64
_FRAMES_PER_TURN = 500
"""Frames decoded between two turns of the event loop."""
_RETRY_S = 0.05
_LOCKED_RETRY_S = 0.5
"""As long as a try waits for the lock itself, so that the stream has half of the time."""

# The end of what is inserted: a commit that waits for no disk is not written yet.
_LOG = (
    "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::float8,"
    " pg_catalog.pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::float8"
    " FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What an open source works with."""

    stream: ReplicationStream
    changes: Changes
    snapshots: Snapshots
    session: Session


class PostgresSource:
    """Implements ports.ChangeSource on logical replication.

    Args:
        url: connection URL; the role needs REPLICATION and SELECT on the tables.
        tables: what to capture, `schema.table` each.
        slot: replication slot, made when absent; one capture a slot.
        publication: made when absent and permitted.
        chunk_rows: most rows of one snapshot chunk.
        silence_s: after so much quiet a heartbeat is written into the log.
    """

    def __init__(
        self,
        url: str,
        tables: Sequence[SourceTable],
        *,
        slot: str,
        publication: str,
        chunk_rows: int = 5000,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._url = url
        self._tables = {split_table(table.table): table for table in tables}
        if not tables or len(self._tables) != len(tables):
            raise ConfigInvalid("capture.tables: name at least one table, each once")
        self._names = (slot, publication)
        self._chunk_rows = chunk_rows
        self._silence_s = silence_s
        self._admin: asyncpg.Connection[Any] | None = None
        self._stream: ReplicationStream | None = None
        self._parts: _Parts | None = None
        self._token: Token | None = None
        self._lag = Lag()
        self._unseen = Unseen()
        self._xid = 0
        self._said = 0.0
        self._beat = 0.0
        self._looked = 0.0
        self._retry = 0.0
        self._unsaid = False

    async def open(self, resume: str | None) -> Opened:
        """Check everything, make or find the slot, start the stream; see ports.ChangeSource."""
        await self.close()
        try:
            return await self._open(resume)
        except BaseException:
            await self.close()
            raise

    async def _open(self, resume: str | None) -> Opened:
        slot, publication = self._names
        self._admin = admin = await connect(self._url, {"row_security": "off"})
        with translated("check the database"):
            before = await end_of_log(admin)
            fit = await check(admin, list(self._tables.values()), publication)
            found = await identities(admin, self._tables.values(), publication)
        self._stream = stream = await ReplicationStream.connect(self._url)
        place = Place(fit=fit, found=found, system=await stream.identify(), slot=slot)
        self._token = token = await generations.begin(admin, place, resume)
        names = {str(each.table.topic): each for each in fit.tables}
        by_topic = {name: (each, found[name].table) for name, each in names.items()}
        tables = {found[str(each.topic)].table: each for each in self._tables.values()}
        session = Session(admin, by_topic)
        snapshots = Snapshots(session, self._chunk_rows)
        snapshots.rows = sum(each.rows for each in token.snapshots.values())
        self._parts = _Parts(
            stream=stream,
            changes=Changes(tables, fit.types, await known_of(admin, tables, before)),
            snapshots=snapshots,
            session=session,
        )
        await stream.start(
            slot,
            publication,
            lsn=token.position + 1,
            binary=fit.binary,
            timeout_s=fit.sender_timeout_s,
        )
        self._lag = Lag()
        past, under_way = token.unseen, await session.under_way()
        self._unseen = Unseen(under_way if past is None else past.among(under_way))
        self._said = self._beat = self._looked = time.monotonic()
        self._unsaid = False
        return Opened(generation=token.generation, position=token.position)

    async def read(self) -> AsyncIterator[Event]:
        """Yield runs and positions, for ever; see ports.ChangeSource.read."""
        parts = self._opened()
        stream, changes = parts.stream, parts.changes
        frames = 0
        while True:
            if not changes.in_transaction:
                await self._look()
                await self._advance_snapshot()
            frame = stream.frame()
            if frame is None:
                if (reached := self._reached(idle=True)) is not None:
                    yield reached
                else:
                    await self._wait(stream)
                continue
            frames += 1
            if frames % _FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)
            message = wire.parse_frame(frame)
            if isinstance(message, wire.Keepalive):
                self._alive(stream, changes, message)
                continue
            if isinstance(message, wire.Begin):
                self._xid = message.xid
                self._unseen.passed(message.xid)
            changes.feed(message, len(frame))
            if not changes.out:
                continue
            items, changes.out = changes.out, []
            async for event in self._events(items):
                yield event

    async def _events(self, items: Sequence[Item]) -> AsyncIterator[Event]:
        """What items are to the outside."""
        for item in items:
            match item:
                case Captured() if item.run.absent:
                    async for captured in self._captured(item):
                        yield captured
                case Captured():
                    yield self._whole(item)
                case Committed():
                    if (reached := self._committed(item)) is not None:
                        yield reached
                case Mark():
                    for event in self._marked(item):
                        yield event
                case Moved():
                    await self._moved(item)

    async def _captured(self, item: Captured) -> AsyncIterator[Captured]:
        """Parts of rows, of which readers may not have the rest.

        The snapshot that is to begin brings the row whole, as it is then. Whole rows go out
        all the same: a dataset that is read anew may wait long for those before it.
        """
        progress = self._at().snapshots[str(item.topic)]
        if progress.state == PENDING:
            return
        if progress.gone is None or item.run.position > progress.gone.until:
            yield item
            return
        async for each in whole(self._opened().session, item, progress.gone, self._xid):
            yield self._whole(each)

    def _whole(self, item: Captured) -> Captured:
        """Note what readers lack no more once they are given this."""
        key = self._opened().session.fit(str(item.topic)).table.schema.key
        self._token = given(self._at(), item, key)
        return item

    def _committed(self, item: Committed) -> Reached | None:
        changes = self._opened().changes
        foreign, changes.foreign = changes.foreign, {}
        self._token = noted(self._at().at(item.position), foreign)
        self._unsaid = True
        if item.has_rows:
            self._lag.committed(item.position, item.commit_us)
        return self._reached(idle=False)

    def _reached(self, *, idle: bool) -> Reached | None:
        """Say how far we are, unless it was just said and more is waiting."""
        changes = self._opened().changes
        if not self._unsaid or changes.in_transaction:
            return None
        now = time.monotonic()
        if not idle and now - self._said < _REACHED_S and changes.runs < _REACHED_RUNS:
            return None
        self._said, self._unsaid, changes.runs = now, False, 0
        token = replace(self._at(), unseen=self._unseen.past)
        return Reached(position=token.position, resume=tokens.encode(token))

    def _alive(self, stream: ReplicationStream, changes: Changes, message: wire.Keepalive) -> None:
        """A keepalive says that nothing lies before its end; a server that stops needs to know.

        The next commit may start exactly at the end, so the position is one before it.
        """
        stream.keepalive(message)
        position = message.end_lsn - 1
        due = message.wants_reply or time.monotonic() - self._said > self._silence_s
        if due and not changes.in_transaction and position > self._at().position:
            self._token = self._at().at(position)
            self._unsaid = True

    async def _wait(self, stream: ReplicationStream) -> None:
        """Wait for the server; write a heartbeat into a log that is quiet."""
        parts = self._opened()
        now = time.monotonic()
        due = max(self._said, self._beat) + self._silence_s
        if now >= due:
            self._beat = now
            await parts.session.emit("heartbeat")
            due = now + self._silence_s
        if self._pending() is not None and not parts.snapshots.is_waiting:
            due = min(due, self._retry)
        await stream.wait(max(0.001, due - now), alive_at=self._said + self._silence_s)

    async def _look(self) -> None:
        """See now and then that the tables are still the ones we began with.

        The log is silent about a table that takes the name of ours, or that leaves the
        publication.
        """
        session = self._opened().session
        now = time.monotonic()
        due = now - self._looked >= self._silence_s
        if due or self._unseen.is_full:
            self._unseen.settle(await session.visible())
        if not due:
            return
        self._looked = now
        async with session.asking("look at the tables") as connection:
            found = await identities(connection, self._tables.values(), self._names[1])
            for topic, progress in self._at().snapshots.items():
                who = found[topic].after(progress.identity)
                if progress.identity == who:
                    continue
                if not await goes_on(connection, progress.identity, who):
                    raise changed(progress.table)
                self._token = self._at().with_progress(topic, replace(progress, identity=who))

    def _pending(self) -> str | None:
        """The first dataset that is not snapshot yet."""
        for name, progress in self._at().snapshots.items():
            if progress.state != DONE:
                return name
        return None

    async def _advance_snapshot(self) -> None:
        """Begin the next snapshot or read its next chunk, unless a mark is on its way."""
        parts = self._opened()
        changes, snapshots = parts.changes, parts.snapshots
        if snapshots.is_waiting or (topic := self._pending()) is None:
            return
        if time.monotonic() < self._retry:
            return
        progress = self._at().snapshots[topic]
        if progress.state == PENDING:
            await snapshots.begin(topic)
            return
        changes.window = await snapshots.chunk(topic, progress, self._unseen)
        if changes.window is None:
            pause_s = _LOCKED_RETRY_S if snapshots.is_locked_out else _RETRY_S
            self._retry = time.monotonic() + pause_s

    def _marked(self, mark: Mark) -> Sequence[Event]:
        parts = self._opened()
        changes, snapshots = parts.changes, parts.snapshots
        if not snapshots.is_mark(mark):
            return ()
        topic = self._pending()
        assert topic is not None
        progress = self._at().snapshots[topic]
        self._lag.committed(mark.position, mark.commit_us)
        if progress.state == BEGUN and changes.window is not None:
            events, progress = snapshots.ended(changes.window, mark, progress)
            changes.window = None
        else:
            event, progress = snapshots.begun(topic, mark, progress)
            events = [event]
        self._token = self._at().with_progress(topic, progress)
        return events

    async def _moved(self, item: Moved) -> None:
        """The log lacks columns of a row with a new key: take them as they are now.

        When it is gone, readers never have it, and changes of it in part would find nothing.
        """
        parts = self._opened()
        changes, session = parts.changes, parts.session
        topic = str(item.table.topic)
        (row,) = await session.fetch(topic, [item.row], self._xid)
        if row is not None:
            changes.put(item.table, filled(item.row, row, item.absent))
            return
        changes.skip(item.table)
        key = tuple(item.row[name] for name in item.table.schema.key)
        progress = self._at().snapshots[topic]
        progress = progress.without(key, at=item.position, until=await session.log_end())
        self._token = self._at().with_progress(topic, progress)

    def _opened(self) -> _Parts:
        if self._parts is None:
            raise UsageError(Reason.INTERNAL, "source is used before it is open")
        return self._parts

    def _at(self) -> Token:
        if self._token is None:
            raise UsageError(Reason.INTERNAL, "source is used before it is open")
        return self._token

    async def release(self, position: int) -> None:
        """Move the slot's confirmed position; see ports.ChangeSource.release."""
        self._opened().stream.release(position + 1)
        self._lag.released(position)

    async def status(self) -> Mapping[str, float]:
        """Figures for metrics; see ports.ChangeSource.status."""
        parts = self._opened()
        async with parts.session.asking("ask how far the slot is") as connection:
            found = await connection.fetchrow(_LOG, self._names[0])
        if found is None:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the replication slot is gone")
        end, released = found
        snapshots, is_over = parts.snapshots, self._pending() is None
        return {
            "lag_seconds": self._lag.seconds(time.time_ns() // 1000),
            "lag_bytes": max(0.0, end - released),
            "log_released": released,
            "snapshot_rows": float(snapshots.rows),
            "snapshot_total": rows_in_all(snapshots.rows, snapshots.total, is_over=is_over),
        }

    async def waits(self) -> str | None:
        """What a snapshot waits for; see ports.ChangeSource.waits."""
        return await self._opened().snapshots.waits()

    async def close(self) -> None:
        """End the stream and close the connections; the slot stays where it is."""
        stream, self._stream = self._stream, None
        admin, self._admin = self._admin, None
        self._parts = None
        try:
            if stream is not None:
                await stream.close()
        finally:
            await shut(admin)
