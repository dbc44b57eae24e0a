"""What is said of a reader that is behind: how far, since when, and who keeps it waiting."""

import asyncio
import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fabric.agent import lag_meter
from fabric.agent.host import BlockTarget
from fabric.agent.lag_meter import LagMeter
from fabric.agent.parts import read_partition
from fabric.agent.sinks import target_of
from fabric.agent.subscription import Subscription
from fabric.model.block import Block
from fabric.model.change import Op, Run, Sequence
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, StreamState
from tests.fakes.clock import ManualClock
from tests.fakes.platform import OPEN, ORIGIN, SECRET, Platform, TestHost, dataset
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemorySink, MemoryStore

PART = f"apply {SECRET}:0"
SILENCE = f"silence {SECRET}:0"
SECONDS = "fabric_consumer_lag_seconds"
MEASURED = "fabric_consumer_lag_timestamp_seconds"


def block(age_s: float) -> Block:
    at = int((time.time() - age_s) * 1e6)
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=at, rows=[{"id": 1, "text": "x"}])
    return Block(
        stream=Stream(ORIGIN, SECRET, 0),
        after=Sequence(0, 0, 0),
        upto=Sequence(1, 1, 1),
        runs=(run,),
    )


class Measuring:
    """A meter of a sealed partition whose records a test appends and gives to it."""

    def __init__(self, host: TestHost, *, sink: BlockTarget | None = None) -> None:
        self.host, self.clock = host, ManualClock()
        self.log = host.platform.log
        self.meter = LagMeter(
            replace(host.host, clock=self.clock),
            (SECRET, 0),
            sink=sink or MemorySink(MemoryStore()),
            part=PART,
            has_signs=True,
        )

    def append(self, count: int = 1, *, age_s: float = 0.0) -> None:
        self.log.now = lambda: datetime.fromtimestamp(time.time() - age_s, UTC)
        for _ in range(count):
            self.log.put(str(SECRET), 0, None, b"")

    def come(self, first: int, end: int) -> None:
        records = self.log.records[str(SECRET), 0][first:end]
        self.meter.came(records)
        self.meter.takes(records[0])

    async def after(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        return await self.meter.measure()


@pytest.fixture
def it(b: TestHost) -> Measuring:
    return Measuring(b)


# How far, since when


async def test_a_backlog_at_the_start_is_not_measured_before_its_first_record_has_come(
    it: Measuring,
) -> None:
    it.append(3, age_s=90)
    assert not await it.after(0)
    assert not it.host.shows(SECONDS)
    assert not it.host.shows(MEASURED)
    it.come(0, 3)
    assert await it.after(1)
    assert 90 <= it.host.metric(SECONDS) < 150
    assert it.host.metric("fabric_consumer_lag_records") == 3


async def test_a_reader_that_begins_level_with_the_log_has_no_lag(it: Measuring) -> None:
    it.append(3, age_s=90)
    it.meter.stands_at(3)
    assert await it.after(0)
    assert it.host.metric(SECONDS) == 0
    assert it.host.metric(MEASURED) > 0


async def test_a_block_that_the_target_does_not_take_is_as_old_as_its_first_commit(
    it: Measuring,
) -> None:
    it.append()
    it.come(0, 1)
    with it.meter.giving(block(age_s=7200)):
        await it.after(0)
        assert 7200 <= it.host.metric(SECONDS) < 7260
    it.meter.stands_at(1)
    await it.after(0)
    assert it.host.metric(SECONDS) == 0


# Silence


async def test_a_stream_that_speaks_while_our_target_takes_nothing_is_not_silent(
    it: Measuring,
) -> None:
    it.append(5)
    it.come(0, 5)  # no more are fetched until one of these is dealt with
    with it.meter.giving(block(age_s=1)):
        for _ in range(9):
            it.append()
            await it.after(10)
    assert SILENCE not in it.host.board.problems
    assert it.host.metric("fabric_stream_silent") == 0


async def test_a_stream_that_ends_while_our_target_takes_nothing_is_silent(it: Measuring) -> None:
    it.append(5)
    it.come(0, 5)
    with it.meter.giving(block(age_s=1)):
        for _ in range(4):
            await it.after(10)
    assert it.host.board.problems[SILENCE].startswith("silent")


async def test_a_log_that_grows_and_gives_no_records_is_silent(it: Measuring) -> None:
    """A broker that keeps records back may say of the log's end whatever it likes."""
    for _ in range(4):
        it.append()
        await it.after(10)
    assert it.host.board.problems[SILENCE].startswith("silent")
    it.come(0, 4)
    await it.after(0)
    assert SILENCE not in it.host.board.problems


# Who keeps it waiting


async def test_a_database_that_does_not_answer_is_named_until_it_does(it: Measuring) -> None:
    it.append()
    it.come(0, 1)
    with it.meter.giving(block(age_s=1)):
        await it.after(9)
        assert PART not in it.host.board.problems
        await it.after(1)
        assert it.host.board.reasons() == {PART: Reason.DATABASE_UNAVAILABLE}
    assert it.host.board.parts == {PART: None}


async def test_a_block_that_the_target_refuses_at_last_is_waited_for_no_more(
    it: Measuring,
) -> None:
    it.append()
    it.come(0, 1)
    with contextlib.suppress(DeniedError), it.meter.giving(block(age_s=1)):
        await it.after(10)
        raise DeniedError(Reason.APPLY_FAILED, "no")
    it.meter.stands_at(1)
    assert it.host.board.parts == {PART: None}


async def test_a_subscriber_may_take_its_time(b: TestHost) -> None:
    it = Measuring(b, sink=Subscription(b.host.identity, SECRET))
    it.append()
    it.come(0, 1)
    with it.meter.giving(block(age_s=1)):
        await it.after(20)
    assert it.host.board.is_ready


# The readers


class LockedSink(MemorySink):
    """A target whose table somebody holds locked until `free` is set."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.free = asyncio.Event()

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Wait for the lock."""
        await self.free.wait()
        return await super().apply(block, expected, new)


@pytest.mark.parametrize("topic", [SECRET, OPEN], ids=str)
async def test_a_reader_that_starts_behind_and_whose_table_is_locked_says_both(
    platform: Platform, a: TestHost, b: TestHost, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_LAG_S", 0.01), ("_SOON_S", 0.01), ("_ANSWER_S", 0.1)):
        monkeypatch.setattr(lag_meter, name, seconds)
    database, store, part = MemoryDatabase([table(topic)]), MemoryStore(), f"apply {topic}:0"
    database.upsert(table(topic), [{"id": number, "text": "a note"} for number in range(60)])
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database, topic)
        await until(lambda: database.released == database.position)
    await asyncio.sleep(0.3)
    sink, policy_of = LockedSink(store), dataset(topic)
    await sink.open([target_of(policy_of, "notes")])
    async with running() as parts:
        await parts.view(b, topic)
        parts.spawn(read_partition(b.host, part, policy_of, 0, sink))
        await until(lambda: b.metric(MEASURED) > 0)
        assert b.metric(SECONDS) >= 0.3
        await until(lambda: part in b.board.problems)
        assert b.board.reasons()[part] is Reason.DATABASE_UNAVAILABLE
        sink.free.set()
        await until(lambda: store.rows(topic) == database.held(table(topic)))
        await until(lambda: b.metric(SECONDS) == 0)
        assert b.board.parts[part] is None
