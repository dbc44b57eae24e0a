"""Following a control topic, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from fabric.kafka.follow import follow
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.ports import Record
from tests.fakes.log import MemoryLog
from tests.fakes.running import until

TOPIC = "fabric.members"


class Follower:
    """Follows, and keeps what it was fed."""

    def __init__(self, log: MemoryLog) -> None:
        self.seen: list[bytes | None] = []
        self.caught_up = asyncio.Event()
        self.log = log

    def feed(self, record: Record) -> None:
        self.seen.append(record.value)

    async def run(self) -> None:
        await follow(self.log, TOPIC, self.feed, self.caught_up)


async def test_an_empty_topic_is_caught_up_at_once() -> None:
    it = Follower(MemoryLog())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        async with asyncio.timeout(5):
            await it.caught_up.wait()
        task.cancel()


async def test_everything_is_fed_in_order_then_what_comes() -> None:
    it = Follower(MemoryLog())
    for n in range(100):
        it.log.put(TOPIC, 0, b"k", b"%d" % n)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        await until(it.caught_up.is_set)
        assert it.seen == [b"%d" % n for n in range(100)]
        it.log.put(TOPIC, 0, b"k", b"news")
        await until(lambda: it.seen[-1] == b"news")
        task.cancel()


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError(Reason.BROKER_UNAVAILABLE, "no broker answers"),
        DeniedError(Reason.NOT_A_CONSUMER, "reading is not allowed"),
    ],
    ids=str,
)
async def test_an_outage_or_a_missing_right_is_waited_for_and_nothing_comes_twice(
    error: UnavailableError | DeniedError,
) -> None:
    it = Follower(MemoryLog())
    it.log.put(TOPIC, 0, b"k", b"one")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        await until(it.caught_up.is_set)
        it.log.fail(error)
        await until(lambda: not it.caught_up.is_set())
        it.log.fail(None)
        it.log.put(TOPIC, 0, b"k", b"two")
        await until(lambda: it.seen == [b"one", b"two"])
        await until(it.caught_up.is_set)
        task.cancel()


async def test_a_log_that_was_put_back_and_has_grown_past_our_place_is_fed_again() -> None:
    it = Follower(MemoryLog())
    for value in (b"one", b"two", b"three"):
        it.log.put(TOPIC, 0, b"k", value)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        await until(it.caught_up.is_set)
        it.log.fail(UnavailableError(Reason.BROKER_UNAVAILABLE, "no broker answers"))
        await until(lambda: not it.caught_up.is_set())
        del it.log.records[TOPIC, 0][1:]  # an older copy
        for value in (b"other two", b"other three", b"four"):
            it.log.put(TOPIC, 0, b"k", value)
        it.log.fail(None)
        await until(it.caught_up.is_set)
        assert it.seen[3:] == [b"one", b"other two", b"other three", b"four"]
        task.cancel()


class Trimmed(MemoryLog):
    """A log whose beginning is gone."""

    first = 3

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return self.first, (await super().bounds(topic, partition))[1]

    async def read(
        self, topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        if offset < self.first:
            raise DeniedError(Reason.HISTORY_LOST, "log starts later")
        async for records in super().read(topic, partition, offset):
            yield records


async def test_a_log_that_starts_later_is_followed_from_there() -> None:
    it = Follower(Trimmed())
    for n in range(5):
        it.log.put(TOPIC, 0, b"k", b"%d" % n)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        await until(lambda: it.seen == [b"3", b"4"])
        task.cancel()


async def test_what_feed_raises_ends_the_following() -> None:
    log = MemoryLog()
    log.put(TOPIC, 0, b"k", b"v")

    def feed(record: Record) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        async with asyncio.timeout(5):
            await follow(log, TOPIC, feed, asyncio.Event())
