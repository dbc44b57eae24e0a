"""The platform's log in memory: ports.Log without a broker, with faults on request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.ports import Record, Stored

Judge = Callable[[str, int, bytes | None, bytes], FabricError | None]


class MemoryLog:
    """A log that several fakes may share; every append is at once visible.

    Attributes:
        records: every record by (topic, partition), in order; tests may change it.
        failure: raised by every append and read while it is set.
        judge: looks at each record before it is stored, as a gateway would; what it
            returns is raised.
    """

    def __init__(self, *, judge: Judge | None = None) -> None:
        self.records: dict[tuple[str, int], list[Record]] = {}
        self.failure: FabricError | None = None
        self.judge = judge
        self.appends = 0
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._changed = asyncio.Event()

    async def append(
        self, topic: str, partition: int, records: Sequence[tuple[bytes | None, bytes]]
    ) -> Stored:
        """Store the records, all or none."""
        await asyncio.sleep(0)
        self.appends += 1
        if self.failure is not None:
            raise self.failure
        for key, value in records:
            if self.judge is not None and (error := self.judge(topic, partition, key, value)):
                raise error
        stored = self.records.setdefault((topic, partition), [])
        first = len(stored)
        for key, value in records:
            self.put(topic, partition, key, value)
        return Stored(offset=first, at=stored[-1].timestamp if records else None)

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Store one record past every check, as a broker's operator could."""
        stored = self.records.setdefault((topic, partition), [])
        stored.append(
            Record(
                topic=topic,
                partition=partition,
                offset=len(stored),
                timestamp=self.now(),
                key=key,
                value=value,
            )
        )
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(
        self, topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield what lies at and after `offset`, then whatever comes, for ever."""
        if offset > len(self.records.get((topic, partition), [])):
            raise DeniedError(Reason.HISTORY_LOST, "offset lies beyond the log")
        while True:
            if self.failure is not None:
                raise self.failure
            changed = self._changed
            batch = self.records.get((topic, partition), [])[offset:]
            if batch:
                offset += len(batch)
                yield batch
            else:
                await changed.wait()

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset and the offset after the last record."""
        if self.failure is not None:
            raise self.failure
        return 0, len(self.records.get((topic, partition), []))

    async def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """The first offset stored at or after `when`, else the offset after the last record."""
        _, end = await self.bounds(topic, partition)
        stored = self.records.get((topic, partition), [])
        return next((record.offset for record in stored if record.timestamp >= when), end)

    def values(self, topic: str, partition: int = 0) -> list[bytes]:
        """Values of a partition, in order."""
        return [r.value for r in self.records.get((topic, partition), []) if r.value is not None]

    def fail(self, error: FabricError | None) -> None:
        """Raise `error` from now on, also in readers that wait; None heals."""
        self.failure = error
        self._changed.set()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Nothing to give back."""
