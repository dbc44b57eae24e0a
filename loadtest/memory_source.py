"""A source in memory: the fabric's port without a database behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from fabric.model.change import Op, Run
from fabric.model.names import Topic
from fabric.ports import Captured, Event, Opened, Reached
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

    async def waits(self) -> str | None:
        """Nothing."""
        return None

    async def close(self) -> None:
        """Nothing to give back."""
