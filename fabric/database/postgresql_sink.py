"""A PostgreSQL database as a target: rows, high-water sequences, quarantine in one transaction."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg

from fabric.database import postgresql_origin as origins
from fabric.database import postgresql_quarantine as quarantine
from fabric.database import postgresql_quick as quick
from fabric.database import postgresql_state as states
from fabric.database.postgresql_apply import POISON, Applier, Waiting
from fabric.database.postgresql_columns import split_table
from fabric.database.postgresql_connect import class_of, connect, shut, translated, types_of
from fabric.database.postgresql_locked import PATIENT, Locked, probe
from fabric.database.postgresql_marks import apart, has_marks
from fabric.database.postgresql_tables import TargetTable, prepare
from fabric.database.postgresql_turns import turn
from fabric.database.postgresql_write import make_staging
from fabric.model.block import Block
from fabric.model.change import Change, Run
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError, UsageError
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, Parked, StreamState, Target

_APPLY_S_MAX = 120.0
"""Deadline of one block; one with marks has another."""
_WAIT_S_MAX = 30.0
"""How long a foreign key may wait for rows of another stream before it is poison."""


class PostgresSink:
    """Implements ports.ChangeSink over one connection, made anew when it breaks.

    A block with marks has another while it is applied. Until then the streams of its topic
    wait, because a row may go over from one to the other, also where this sink is closed and
    another opened; those of other topics do not.

    Args:
        url: connection URL; the role needs write access to the tables, and CREATE on the
            database or a schema `fabric` of its own.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection[Any] | None = None
        self._tables: dict[str, TargetTable] = {}
        self._targets: tuple[Target, ...] = ()
        self._waiting: dict[Stream, float] = {}
        self._quick: dict[str, str] = {}
        self._plain: set[Stream] = set()
        self._locked = Locked()
        self._has_origin = False

    async def open(self, targets: Sequence[Target]) -> None:
        """Connect, make or check every table; see ports.ChangeSink.open."""
        names = {split_table(target.table) for target in targets}
        if len(names) != len(targets):
            raise ConfigInvalid("apply.tables: two datasets name one table; give each its own")
        await self.close()
        self._targets = tuple(targets)
        async with self._using("open the target"):
            pass

    @asynccontextmanager
    async def _using(
        self, doing: str, *, data_passes: bool = False
    ) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """The connection, for one caller at a time; a failure of it closes it."""
        async with self._lock:
            self._demand_open()
            try:
                with translated(doing, data_passes=data_passes):
                    async with asyncio.timeout(_APPLY_S_MAX):
                        if self._connection is None or self._connection.is_closed():
                            await self._connect()
                        assert self._connection is not None
                        yield self._connection
            except asyncio.CancelledError:
                # A statement may still run; only a new connection is surely clean.
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.terminate()
                raise
            except UnavailableError as exc:
                if exc.reason is Reason.DATABASE_UNAVAILABLE:
                    await self._disconnect()
                raise

    async def _connect(self) -> None:
        self._connection = connection = await connect(self._url)
        try:
            self._has_origin = await origins.take(connection) is not None
            async with connection.transaction():
                await states.create(connection)
                types = await types_of(connection)
                for target in self._targets:
                    number = await states.dataset_number(connection, target.topic, target.table)
                    table = await prepare(connection, target, number, types)
                    self._tables[str(target.topic)] = table
                    self._quick[str(target.topic)] = quick.statement(table)
            for table in self._tables.values():
                await make_staging(connection, table)
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        await shut(connection)

    async def state(self, stream: Stream) -> StreamState | None:
        """The stored state of one stream."""
        async with self._using("read a stream's state") as connection:
            return await states.load(connection, stream)

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream of the topic that has a state here."""
        async with self._using("read the streams' states") as connection:
            return await states.load_all(connection, topic)

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Write rows and state in one transaction; see ports.ChangeSink.apply."""
        async with turn(self._url, block.stream.topic):
            return await self._in_turn(block, expected, new)

    async def _in_turn(
        self, block: Block, expected: StreamState | None, new: StreamState
    ) -> Applied:
        table = self._table(block.stream.topic)
        self._locked.check(block.stream.topic)
        is_apart = has_marks(block)
        if is_apart:
            using = apart(self._url, table, has_origin=self._has_origin)
        else:
            using = self._using("apply a block", data_passes=True)
        try:
            async with using as connection:
                try:
                    if is_apart:
                        await probe(connection, table)
                        done = await self._tried(connection, table, block, (expected, new))
                    else:
                        done = await self._in_queue(connection, table, block, (expected, new))
                except asyncpg.LockNotAvailableError:
                    # As well as with a foreign key: one table waits, and not its database.
                    raise await self._locked.refused(connection, table) from None
        except Waiting:
            self._waiting.setdefault(block.stream, time.monotonic())
            # The database is well: who threw this sink away would cut off the very stream that
            # brings the row, and forget since when this one waits.
            raise UnavailableError(
                Reason.NOT_READY,
                f"table {table.target.table}: a foreign key waits for rows of another stream",
            ) from None
        except POISON as exc:
            raise DeniedError(
                Reason.APPLY_FAILED,
                f"table {table.target.table}: a block cannot be committed: {class_of(exc)}",
            ) from None
        self._waiting.pop(block.stream, None)
        self._locked.passed(block.stream.topic)
        return done

    async def _in_queue(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        block: Block,
        states_of: tuple[StreamState | None, StreamState],
    ) -> Applied:
        """Wait for a lock no longer than others can wait for the connection."""
        await self._locked.limit(connection, table)
        try:
            return await self._tried(connection, table, block, states_of)
        except asyncpg.LockNotAvailableError:
            if not await self._locked.may_queue(connection, table):
                raise
        return await self._tried(connection, table, block, states_of)

    async def _tried(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        block: Block,
        states_of: tuple[StreamState | None, StreamState],
    ) -> Applied:
        """Apply the quick way, or the long one, or with care."""
        try:
            done = await self._quickly(connection, table, block, states_of)
            if done is None:
                done = await self._apply(connection, table, block, states_of, False)
        except asyncpg.LockNotAvailableError:
            raise
        except POISON:
            done = await self._apply(connection, table, block, states_of, True)
        return done

    async def _quickly(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        block: Block,
        states_of: tuple[StreamState | None, StreamState],
    ) -> Applied | None:
        """Apply in one trip; None when that is not for this block or this stream."""
        expected, new = states_of
        if expected is None or block.stream not in self._plain:
            return None
        rows = quick.rows_of(block, table)
        if rows is None:
            return None
        incomplete = await quick.apply(
            connection,
            self._quick[str(block.stream.topic)],
            table=table,
            rows=rows,
            block=block,
            expected=expected,
            new=new,
        )
        if incomplete is None:
            self._plain.discard(block.stream)
            return None
        return Applied(
            # The statement moves no stream that is in a snapshot.
            state=replace(new, incomplete=incomplete, in_snapshot=False),
            applied=block.count,
            quarantined=0,
        )

    async def _apply(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        block: Block,
        states_of: tuple[StreamState | None, StreamState],
        careful: bool,
    ) -> Applied:
        expected, new = states_of
        async with connection.transaction():
            place = await states.move(connection, block.stream, expected=expected, new=new)
            applier = Applier(
                connection, table, stream=block.stream, place=place, offset=new.offset - 1
            )
            if expected is not None and expected.high.generation < block.generation:
                applier.writer.snapshot = states.NONE  # it can end only in its own generation
            applier.careful = careful
            applier.waits = careful and self._may_wait(block.stream)
            await applier.apply(block.runs, block.generation)
            writer = applier.writer
            if (writer.incomplete, writer.snapshot) != (place.incomplete, place.snapshot):
                await states.mark(
                    connection, place.id, incomplete=writer.incomplete, snapshot=writer.snapshot
                )
        is_usual = place.is_first and not place.is_shared and not place.has_parked
        if is_usual and not applier.quarantined and writer.snapshot == states.NONE:
            self._plain.add(block.stream)  # the statement itself looks again
        return Applied(
            state=replace(
                new,
                incomplete=writer.incomplete,
                in_snapshot=writer.snapshot != states.NONE,
            ),
            applied=applier.applied,
            quarantined=applier.quarantined,
        )

    def _may_wait(self, stream: Stream) -> bool:
        now = time.monotonic()
        return now - self._waiting.get(stream, now) < _WAIT_S_MAX

    def _demand_open(self) -> None:
        """A sink that was thrown away must neither connect anew nor look like a wrong setting."""
        if not self._targets:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "target is closed")

    def _table(self, topic: Topic) -> TargetTable:
        self._demand_open()
        table = self._tables.get(str(topic))
        if table is None:
            raise UsageError(Reason.TOPIC_UNKNOWN, f"{topic} is not applied to this database")
        return table

    async def quarantined(self, topic: Topic | None) -> Sequence[Parked]:
        """List quarantine, oldest first, without rows."""
        async with self._using("list the quarantine") as connection:
            return await quarantine.listing(connection, topic)

    async def parked(self, ident: int) -> Parked | None:
        """One parked change with its row."""
        async with self._using("read the quarantine") as connection:
            found = await quarantine.fetch(connection, ident, self._by_topic())
        return found[0] if found else None

    def _by_topic(self) -> dict[str, Target]:
        return {topic: table.target for topic, table in self._tables.items()}

    async def retry(self, ident: int) -> int:
        """Apply the parked changes of this one's key, oldest first, until one fails.

        Returns:
            How many were applied.

        Raises:
            UsageError: CONFIG_INVALID, no such change.
        """
        done = 0
        async with self._using("retry a parked change") as connection, connection.transaction():
            await connection.execute(PATIENT)
            await self._found(connection, ident)
            for each in await quarantine.siblings(connection, ident):
                if not await self._retry_one(connection, each):
                    break
                done += 1
        return done

    async def _retry_one(self, connection: "asyncpg.Connection[Any]", ident: int) -> bool:
        change, offset, stream = await self._found(connection, ident)
        place = await states.lock(connection, stream)
        applier = Applier(
            connection, self._table(stream.topic), stream=stream, place=place, offset=offset
        )
        applier.careful = applier.stops = True
        try:
            await applier.one(_single(change), change.sequence.generation)
        except DeniedError as exc:
            await quarantine.explain(connection, ident, exc.args[0])
            return False
        await quarantine.forget(connection, ident)
        return True

    async def _found(
        self, connection: "asyncpg.Connection[Any]", ident: int
    ) -> tuple[Change, int, Stream]:
        found = await quarantine.fetch(connection, ident, self._by_topic())
        if found is None or found[0].change is None:
            raise UsageError(
                Reason.CONFIG_INVALID, f"no change {ident} is in quarantine; list them first"
            )
        return found[0].change, found[0].offset, found[1]

    async def drop(self, ident: int) -> None:
        """Forget a parked change; its stream becomes incomplete. Raises UsageError as `retry`."""
        async with self._using("drop a parked change") as connection, connection.transaction():
            await connection.execute(PATIENT)
            _, _, stream = await self._found(connection, ident)
            place = await states.lock(connection, stream)
            await quarantine.forget(connection, ident)
            await states.mark(connection, place.id, incomplete=True, snapshot=place.snapshot)

    async def close(self) -> None:
        """Close the connection."""
        await self._disconnect()
        self._tables, self._targets = {}, ()


def _single(change: Change) -> Run:
    return Run(
        op=change.op,
        position=change.sequence.position,
        ordinal=change.sequence.ordinal,
        commit_us=change.commit_us,
        rows=[] if change.row is None else [change.row],
        absent=change.absent,
    )
