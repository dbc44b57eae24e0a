"""Applies the runs of one block inside the sink's transaction, and finds what is poison.

Rows between two marks are written in bulk. When that fails, the transaction is tried
anew with care: halves under savepoints, until the change that fails stands alone; one bad
row in 1,000 costs about twenty statements more, not a thousand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from fabric.database import postgresql_quarantine as quarantine
from fabric.database.postgresql_connect import class_of, code_of, is_trouble
from fabric.database.postgresql_reduce import Part, count, halves, reduce, whole
from fabric.database.postgresql_state import NONE, TRACKED, UNTRACKED, Place
from fabric.database.postgresql_tables import TargetTable
from fabric.database.postgresql_write import Missing, TableWriter
from fabric.model.change import Change, Op, Ordinals, Row, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.names import Stream
from fabric.model.partition import key_bytes, partition_of

POISON = (asyncpg.PostgresError, ValueError, KeyError, TypeError, OverflowError)
"""What data can cause; errors of a server in trouble are sorted out by `check`."""
_STRUCTURE = ("42", "0A", "3F", "26")
"""SQLSTATE classes of statements that no row can make right."""


class Waiting(Exception):
    """A foreign key is not satisfied yet; another stream may bring the row."""


class Applier:
    """One block's changes, in the transaction that is open.

    Args:
        offset: of the record that carries the changes, for the quarantine.
        stops: raise at the first change that cannot be applied.
        careful: look for the poison, after an attempt without care has failed.
        waits: an unsatisfied foreign key is no poison yet.
    """

    def __init__(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        *,
        stream: Stream,
        place: Place,
        offset: int,
    ) -> None:
        self._connection = connection
        self._table = table
        self._stream = stream
        self._offset = offset
        self._place = place
        self._generation = 0
        self._ordinals = Ordinals()
        self._parked: set[bytes] = set()
        self.stops = not table.target.quarantine
        self.careful = False
        self.waits = False
        self.writer = TableWriter(connection, table, place=place, origin=str(stream.origin))
        self.applied = 0
        self.quarantined = 0

    async def apply(self, runs: Sequence[Run], generation: int) -> None:
        """Apply runs in order.

        Raises:
            DeniedError: APPLY_FAILED or TARGET_UNFIT.
            Waiting: a foreign key waits for another stream.
            POISON: without care, whatever the first failure raised.
        """
        self._generation = generation
        if self._place.has_parked:
            self._parked = await quarantine.parked_keys(self._connection, self._stream)
        if self.careful:
            await self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        parts: list[Part] = []
        for run in runs:
            if run.op in (Op.UPSERT, Op.DELETE):
                parts.append(whole(run))
                continue
            await self._segment(parts)
            parts = []
            await self._mark(run)
        await self._segment(parts)

    async def one(self, run: Run, generation: int) -> None:
        """Apply a parked change, whatever else of its key is parked."""
        self._generation = generation
        await self._segment([whole(run)])

    async def _segment(self, parts: Sequence[Part]) -> None:
        """Write changes between two marks, or find the one that cannot be written."""
        parts = await self._without_parked(parts) if self._parked else parts
        total = count(parts)
        if not total:
            return
        plan = reduce(parts, self._table.target.schema.key)
        if not self.careful:
            await self.writer.write(plan)
            self.applied += total
            return
        try:
            async with self._connection.transaction():
                await self.writer.write(plan)
        except POISON as exc:
            self._check(exc)
            if total == 1:
                await self._refuse(parts[0], exc)
                return
        else:
            self.applied += total
            return
        for half in halves(parts):
            await self._segment(half)

    def _check(self, exc: Exception) -> None:
        """Let everything through that is not the fault of one row."""
        if isinstance(exc, asyncpg.PostgresError):
            if is_trouble(exc):
                raise exc
            if code_of(exc)[:2] in _STRUCTURE:
                raise DeniedError(
                    Reason.TARGET_UNFIT,
                    f"table {self._table.target.table}: it cannot be written any more:"
                    f" {class_of(exc)}; check the table and start again",
                ) from None
            if self.waits and isinstance(exc, asyncpg.ForeignKeyViolationError):
                raise Waiting from None

    async def _without_parked(self, parts: Sequence[Part]) -> list[Part]:
        """Park the changes whose key has a parked change already; the rest."""
        free: list[Part] = []
        for part in parts:
            kept: list[int] = []
            for place in part.places:
                if self._key(part.run.rows[place]) in self._parked:
                    await self._park(part.run, place, quarantine.LATER)
                else:
                    kept.append(place)
            if kept:
                free.append(Part(run=part.run, places=kept))
        return free

    def _key(self, row: Row) -> bytes:
        return key_bytes(self._table.target.schema, row)

    async def _refuse(self, part: Part, exc: Exception) -> None:
        reason = why(exc)
        (place,) = part.places
        if self.stops:
            sequence = tuple(self._change(part.run, place).sequence)
            raise DeniedError(
                Reason.APPLY_FAILED,
                f"table {self._table.target.table}: change {sequence} cannot be applied: {reason}",
            ) from None  # the cause may quote the value
        await self._park(part.run, place, reason)

    async def _park(self, run: Run, place: int, reason: str) -> None:
        row = run.rows[place]
        key = self._key(row)
        await quarantine.park(
            self._connection,
            self._table.target,
            [(self._change(run, place), key)],
            place=(self._stream, self._offset),
            reason=reason,
        )
        self._parked.add(key)
        self.quarantined += 1
        if run.op is Op.UPSERT and self.writer.snapshot == TRACKED:
            # The source has this key; the row we hold of it must outlive the snapshot's end.
            try:
                async with self._connection.transaction():
                    await self.writer.see(row)
            except POISON as exc:
                self._check(exc)
                # What the snapshot has met is not known any more: its end must remove nothing,
                # and the dataset stays incomplete until the next one.
                self.writer.snapshot = NONE

    def _change(self, run: Run, place: int) -> Change:
        ordinal = self._ordinals.at(run, place)
        return Change(
            topic=self._stream.topic,
            origin=self._stream.origin,
            op=run.op,
            sequence=ChangeSequence(self._generation, run.position, ordinal),
            commit_us=run.commit_us,
            row=run.rows[place],
            absent=run.absent,
        )

    async def _mark(self, run: Run) -> None:
        try:
            async with self._connection.transaction():
                await self._do_mark(run.op)
        except POISON as exc:
            if not self.careful:
                raise
            self._check(exc)
            # A mark touches many rows, so one that fails has no key to park.
            raise DeniedError(
                Reason.APPLY_FAILED,
                f"table {self._table.target.table}: rows cannot be removed: {why(exc)}",
            ) from None
        self.applied += 1

    async def _do_mark(self, op: Op) -> None:
        writer = self.writer
        if op is Op.TRUNCATE:
            await writer.delete_own("", self._of_partition())
            await writer.forget_seen()
            await self._unpark()
        elif op is Op.SNAPSHOT_BEGIN:
            await writer.forget_seen()
            # The snapshot sends every row anew, so what is parked is void.
            await self._unpark()
            writer.snapshot = TRACKED if await writer.has_own() else UNTRACKED
            writer.incomplete = True
        elif op is Op.SNAPSHOT_END:
            if writer.snapshot == TRACKED:
                await writer.delete_own(writer.unseen(), self._of_partition())
                await writer.forget_seen()
            if writer.snapshot != NONE:  # else it began before this stream did here
                writer.incomplete = False
            writer.snapshot = NONE

    async def _unpark(self) -> None:
        if self._parked:
            await quarantine.forget_stream(self._connection, self._stream)
            self._parked.clear()

    def _of_partition(self) -> Callable[[Row], bool] | None:
        """Whether a key lies in this stream's partition; None when there is only one."""
        target = self._table.target
        if target.partitions == 1:
            return None
        return lambda row: (
            partition_of(self._key(row), target.salt, target.partitions) == self._stream.partition
        )


def why(exc: Exception) -> str:
    """Why a change was refused, in words that hold no value of it."""
    if isinstance(exc, asyncpg.PostgresError):
        constraint = getattr(exc, "constraint_name", None)
        return f"{class_of(exc)} ({constraint})" if constraint else class_of(exc)
    if isinstance(exc, Missing | Malformed):
        return str(exc)
    return "a value does not fit its column"
