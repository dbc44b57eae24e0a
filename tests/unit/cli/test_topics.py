"""fabric.cli.topics: the deadline is on each wait, not on the topic's length."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from fabric.cli import topics
from fabric.cli.topics import held_record, read_all, records
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import Record
from tests.fakes.log import MemoryLog


class SlowLog(MemoryLog):
    """Gives a record at a time, each after some seconds; for ever nothing behind `stands_at`."""

    def __init__(self, each_s: float, *, stands_at: int | None = None) -> None:
        super().__init__()
        self._each_s = each_s
        self._stands_at = stands_at

    async def read(
        self, topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        for record in self.records[topic, partition][offset:]:
            while record.offset == self._stands_at:
                await asyncio.sleep(self._each_s)
                yield ()  # as KafkaLog says that nothing came for a while
            await asyncio.sleep(self._each_s)
            yield [record]


class DeafLog(MemoryLog):
    """Its broker accepts and does not answer."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        await asyncio.Event().wait()
        return 0, 0


def filled(log: MemoryLog, count: int) -> MemoryLog:
    for number in range(count):
        log.put("t", 0, None, bytes([number]))
    return log


async def test_a_topic_may_take_longer_than_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "REQUEST_S_MAX", 0.2)
    found = await read_all(filled(SlowLog(0.02), 30), "t")
    assert len(found) == 30


@pytest.mark.parametrize("log", [SlowLog(0.01, stands_at=3), DeafLog()], ids=["stands", "deaf"])
async def test_a_broker_that_gives_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, log: MemoryLog
) -> None:
    monkeypatch.setattr(topics, "REQUEST_S_MAX", 0.1)
    with pytest.raises(UnavailableError) as caught:
        _ = [record async for record in records(filled(log, 5), "t")]
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE


async def test_a_record_that_is_not_there_is_told_without_waiting_for_it() -> None:
    log = filled(MemoryLog(), 5)
    del log.records["t", 0][2]
    with pytest.raises(UnavailableError, match="the log does not hold t:0:2"):
        async with asyncio.timeout(5):
            await held_record(log, "t", 0, 2)
