import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from fabric.kafka import single
from fabric.kafka.single import record_at
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import Record
from tests.fakes.log import MemoryLog

TOPIC = "fabric.members"


async def test_a_record_is_given_by_its_offset() -> None:
    log = MemoryLog()
    for value in (b"one", b"two", b"three"):
        log.put(TOPIC, 0, b"k", value)
    found = await record_at(log, TOPIC, 0, 1)
    assert found is not None
    assert (found.offset, found.value) == (1, b"two")


async def test_where_only_later_records_are_left_there_is_none() -> None:
    log = MemoryLog()
    for value in (b"one", b"two", b"three"):
        log.put(TOPIC, 0, b"k", value)
    del log.records[TOPIC, 0][1]  # as compaction does
    assert await record_at(log, TOPIC, 0, 1) is None


async def test_a_record_that_takes_its_time_is_not_missing() -> None:
    class Slow(MemoryLog):
        async def read(
            self, topic: str, partition: int, offset: int
        ) -> AsyncIterator[Sequence[Record]]:
            yield ()  # as KafkaLog says that nothing came for a while
            async for batch in super().read(topic, partition, offset):
                yield batch

    log = Slow()
    log.put(TOPIC, 0, b"k", b"one")
    found = await record_at(log, TOPIC, 0, 0)
    assert found is not None
    assert found.value == b"one"


async def test_a_log_that_gives_nothing_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "REQUEST_S_MAX", 0.05)
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError) as caught:
            await record_at(MemoryLog(), TOPIC, 0, 0)
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE
