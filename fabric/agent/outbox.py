"""What an application publishes, from the first run of its capture to the end of a life.

A capture that fails is held and begins anew, with today's datasets and another generation
perhaps. The file that it had open stays open until then: storing goes on.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.database.sqlite_outbox_rows import Room
from fabric.model.change import Op, Row
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Reason, UnavailableError
from fabric.model.names import Topic
from fabric.ports import ChangeSource, Event, Opened, SourceTable


class Outbox:
    """One life's outbox; `source` makes what a run of its capture reads.

    Args:
        path: the agent's file, made when absent.
        room: asked before a change is stored that may be too large to be sent at all.
    """

    def __init__(self, path: Path, room: Room) -> None:
        self._path = path
        self._room = room
        self._box: SqliteOutbox | None = None

    def source(self, tables: Sequence[SourceTable]) -> ChangeSource:
        """What the next run reads; `put` goes by its datasets once it is open."""
        return _Run(self, SqliteOutbox(self._path, tables, self._room))

    async def put(self, topic: Topic, op: Op, row: Row) -> ChangeSequence:
        """Store one change durably, whether the capture runs or is held.

        Returns:
            The sequence it travels under, unless the source begins a new generation before.

        Raises:
            UsageError, UnavailableError: as SqliteOutbox.put; NOT_READY, no run has begun yet,
                or the life has ended.
        """
        if self._box is None:
            raise UnavailableError(Reason.NOT_READY, "the outbox is closed for a moment; try again")
        return await self._box.put(topic, op, row)

    async def take(self, box: SqliteOutbox) -> None:
        """Put into this one from now on, which is open."""
        before, self._box = self._box, box
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """Close the file; what waits stays there. May be called again."""
        box, self._box = self._box, None
        if box is not None:
            await box.close()


class _Run:
    """The source of one run; implements ports.ChangeSource."""

    def __init__(self, outbox: Outbox, box: SqliteOutbox) -> None:
        self._outbox = outbox
        self._box = box

    async def open(self, resume: str | None) -> Opened:
        try:
            opened = await self._box.open(resume)
        except BaseException:
            await self._box.close()
            raise
        await self._outbox.take(self._box)
        return opened

    def read(self) -> AsyncIterator[Event]:
        return self._box.read()

    async def release(self, position: int) -> None:
        await self._box.release(position)

    async def status(self) -> Mapping[str, float]:
        return await self._box.status()

    async def waits(self) -> str | None:
        return await self._box.waits()

    async def close(self) -> None:
        """Nothing: the outbox closes it when another one is open, or when it ends."""
