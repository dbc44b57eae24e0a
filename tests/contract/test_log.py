"""One suite for ports.Log: the fake and the real broker must pass it alike."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from fabric.kafka.follow import follow
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.ports import Log, Record
from tests.fakes.broker_log import BrokerBench
from tests.fakes.log import MemoryLog
from tests.fakes.running import until


@dataclass(frozen=True, kw_only=True)
class World:
    """A log under test, and how topics come to be in it."""

    log: Log
    topic: Callable[[], Awaitable[str]]


async def _memory_topic() -> str:
    return f"secret.T1.t{secrets.token_hex(6)}"


@pytest.fixture(
    params=["memory", pytest.param("kafka", marks=[pytest.mark.integration])],
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield World(log=MemoryLog(), topic=_memory_topic)
        return
    bench = BrokerBench(request.getfixturevalue("broker"))
    log = bench.log()

    async def two_partitions() -> str:
        return await bench.topic(partitions=2, message_timestamp_type="LogAppendTime")

    yield World(log=log, topic=two_partitions)
    await log.close()


async def collect(
    log: Log, topic: str, offset: int, count: int, partition: int = 0
) -> list[Record]:
    """Read so many records."""
    found: list[Record] = []
    async with (
        asyncio.timeout(20),
        contextlib.aclosing(
            log.read(topic, partition, offset)  # type: ignore[type-var]
        ) as batches,
    ):
        async for records in batches:
            found.extend(records)
            if len(found) >= count:
                break
    return found


async def test_what_is_appended_is_read_in_order(world: World) -> None:
    topic = await world.topic()
    items = [(b"key %d" % n, b"value %d" % n) for n in range(5)]
    assert (await world.log.append(topic, 0, items)).offset == 0
    assert (await world.log.append(topic, 0, [(None, b"last")])).offset == 5
    found = await collect(world.log, topic, 0, 6)
    assert [(r.key, r.value) for r in found] == [*items, (None, b"last")]
    assert [r.offset for r in found] == list(range(6))
    assert {(r.topic, r.partition) for r in found} == {(topic, 0)}
    assert all(r.timestamp.tzinfo is not None for r in found)


async def test_an_acknowledgement_says_the_time_that_readers_see(world: World) -> None:
    topic = await world.topic()
    before = datetime.now(UTC)
    stored = await world.log.append(topic, 0, [(b"k", b"one"), (b"k", b"two")])
    assert stored.at is not None
    assert abs(stored.at - before) < timedelta(seconds=CLOCK_SKEW_S_MAX)
    last = (await collect(world.log, topic, 0, 2))[-1]
    assert abs(last.timestamp - stored.at) < timedelta(milliseconds=1)


async def test_reading_begins_at_the_offset_asked_for(world: World) -> None:
    topic = await world.topic()
    await world.log.append(topic, 0, [(None, b"%d" % n) for n in range(4)])
    assert [r.value for r in await collect(world.log, topic, 2, 2)] == [b"2", b"3"]


async def test_reading_waits_for_what_comes(world: World) -> None:
    topic = await world.topic()
    await world.log.append(topic, 0, [(None, b"first")])
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(collect(world.log, topic, 1, 1))
        await asyncio.sleep(0.1)
        await world.log.append(topic, 0, [(None, b"second")])
    assert [r.value for r in reading.result()] == [b"second"]


async def test_bounds_are_the_first_offset_and_the_one_after_the_last(world: World) -> None:
    topic = await world.topic()
    assert await world.log.bounds(topic, 0) == (0, 0)
    await world.log.append(topic, 0, [(None, b"a"), (None, b"b")])
    assert await world.log.bounds(topic, 0) == (0, 2)


async def test_partitions_do_not_mix(world: World) -> None:
    topic = await world.topic()
    async with asyncio.TaskGroup() as tasks:
        for number in (0, 1):
            tasks.create_task(world.log.append(topic, number, [(None, b"%d" % number)]))
    for number in (0, 1):
        (record,) = await collect(world.log, topic, 0, 1, partition=number)
        assert (record.value, record.partition) == (b"%d" % number, number)


async def test_an_offset_beyond_the_log_is_history_lost(world: World) -> None:
    topic = await world.topic()
    await world.log.append(topic, 0, [(None, b"a")])
    with pytest.raises(DeniedError) as caught:
        await collect(world.log, topic, 9, 1)
    assert caught.value.reason is Reason.HISTORY_LOST


async def test_a_time_is_found_at_the_first_record_stored_at_or_after_it(world: World) -> None:
    topic = await world.topic()
    for number in range(3):
        await world.log.append(topic, 0, [(None, b"%d" % number)])
        await asyncio.sleep(0.01)  # a stamp of its own for each
    stamps = [record.timestamp for record in await collect(world.log, topic, 0, 3)]
    tick = timedelta(microseconds=1)
    assert [await world.log.offset_at(topic, 0, stamp) for stamp in stamps] == [0, 1, 2]
    assert [await world.log.offset_at(topic, 0, stamp + tick) for stamp in stamps] == [1, 2, 3]
    assert await world.log.offset_at(topic, 0, datetime(1969, 1, 1, tzinfo=UTC)) == 0


async def test_a_time_in_an_empty_log_is_found_at_its_end(world: World) -> None:
    topic = await world.topic()
    assert await world.log.offset_at(topic, 0, datetime(2000, 1, 1, tzinfo=UTC)) == 0


async def test_a_control_topic_is_followed_to_its_end_and_on(world: World) -> None:
    topic = await world.topic()
    await world.log.append(topic, 0, [(b"k", b"%d" % n) for n in range(50)])
    seen: list[bytes | None] = []
    caught_up = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            follow(world.log, topic, lambda record: seen.append(record.value), caught_up)
        )
        await until(caught_up.is_set)
        assert seen == [b"%d" % n for n in range(50)]
        await world.log.append(topic, 0, [(b"k", b"news")])
        await until(lambda: seen[-1] == b"news")
        task.cancel()
