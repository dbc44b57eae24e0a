"""A source and a target in memory: the fabric's ports without a database behind them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from fabric.model.block import Block
from fabric.model.change import Op, Run
from fabric.model.columns import values_of
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, Captured, Event, Opened, Reached, StreamState
from loadtest.meter import Meter

_IDLE_S = 0.2


class MemorySource:
    """Gives slices of rows as committed transactions; implements ports.ChangeSource.

    Args:
        slices: the rows of each transaction, for ever.
        seconds, records_max: when it falls silent, counted from the end of the warm-up.
    """

    def __init__(
        self, topics: list[Topic], slices: Iterator[list[Any]], *, seconds: float, records_max: int
    ) -> None:
        self._topics = topics
        self._slices = slices
        self._seconds = seconds
        self._records_max = records_max
        self._generation = 0
        self._warm = asyncio.Event()
        self.meter = Meter()
        self.given = 0
        self.silent = asyncio.Event()
        self.released = asyncio.Event()
        self._last = 0

    async def open(self, resume: str | None) -> Opened:
        """Always a new life."""
        before = int(json.loads(resume)["generation"]) if resume else 0
        self._generation = max(before + 1, int(time.time()))
        return Opened(generation=self._generation, position=0)

    async def read(self) -> AsyncIterator[Event]:
        """A warm-up transaction for each topic; once they are stored, the measured load."""
        position = 0
        for topic in self._topics:
            position += 1
            yield self._captured(topic, position, next(self._slices))
        yield self._reached(position)
        await self._warm.wait()
        self.meter.start()
        end = self.meter.began + self._seconds
        while self.given < self._records_max and time.perf_counter() < end:
            for topic in self._topics:
                position += 1
                rows = next(self._slices)
                self.given += len(rows)
                yield self._captured(topic, position, rows)
            yield self._reached(position)
        self._last = position
        self.silent.set()
        while True:
            yield self._reached(position)
            await asyncio.sleep(_IDLE_S)

    def _captured(self, topic: Topic, position: int, rows: list[Any]) -> Captured:
        commit_us = time.time_ns() // 1000
        run = Run(op=Op.UPSERT, position=position, ordinal=1, commit_us=commit_us, rows=rows)
        return Captured(topic=topic, run=run)

    def _reached(self, position: int) -> Reached:
        resume = json.dumps({"generation": self._generation})
        return Reached(position=position, resume=resume)

    async def release(self, position: int) -> None:
        """The warm-up is stored, or everything is."""
        self._warm.set()
        if self.silent.is_set() and position >= self._last:
            self.released.set()

    async def status(self) -> Mapping[str, float]:
        """No figures."""
        return {}

    async def close(self) -> None:
        """Nothing to give back."""


class MemoryTarget:
    """Takes blocks and keeps nothing but where it stands; what a reader needs of a sink."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Make it.

        Args:
            fields: of the dataset's rows; every value of them is taken.
        """
        self._fields = fields
        self._states: dict[Stream, StreamState] = {}
        self.meter = Meter()
        self._moved = asyncio.Event()

    def renew(self) -> None:
        """Begin another run; the next block starts the clocks."""
        self.meter = Meter()

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream seen so far."""
        return {stream: s for stream, s in self._states.items() if stream.topic == topic}

    async def state(self, stream: Stream) -> StreamState | None:
        """One stream's state."""
        return self._states.get(stream)

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Take the block, if `expected` still stands."""
        if self._states.get(block.stream) != expected:
            raise ValueError("another state was expected")
        self._states[block.stream] = new
        rows = sum(len(run.rows) for run in block.runs)
        for run in block.runs:
            for name in self._fields if run.rows else ():
                values_of(run.rows, name)  # as a database's sink takes them
        if rows:
            self.meter.first_then_mark(rows)
        self._moved.set()
        return Applied(state=new, applied=block.count, quarantined=0)

    async def wait_offset(self, topic: Topic, end: int) -> None:
        """Return when the log up to `end` is applied."""
        while max((s.offset for k, s in self._states.items() if k.topic == topic), default=0) < end:
            self._moved.clear()
            await self._moved.wait()
