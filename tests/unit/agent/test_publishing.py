"""A capture from its source to the log and into another host's table, all in memory."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.agent import pace, supervisor
from fabric.agent.lane import Kept, Sending
from fabric.agent.progress import Progress
from fabric.agent.publish_machine import Feed, Limits
from fabric.agent.publishing import Plan, Publisher
from fabric.config import BlockConfig
from fabric.model.block import Block
from fabric.model.change import Op, Run
from fabric.model.errors import FabricError, Reason, UnavailableError
from fabric.model.limits import BLOCK_BYTES_MAX, HEADS_REMEMBERED
from fabric.model.names import Topic, grants_topic
from fabric.ports import Captured, Opened
from fabric.seal import envelope
from fabric.store.file_keys import FileKeys
from fabric.store.state import StreamHead
from tests.contract.softhsm import tokens
from tests.fakes import running as parts_beside
from tests.fakes.platform import (
    NOTES,
    OPEN,
    ORIGIN,
    SECRET,
    A,
    ManualClock,
    Platform,
    TestHost,
    dataset,
)
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase, MemorySource
from tests.fakes.table import MemoryStore


def notes(first: int, count: int) -> list[dict[str, object]]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]


async def test_rows_arrive_sealed_and_in_order(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 50))
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await until(lambda: len(store.rows(SECRET)) == 50)
        database.upsert(table(), [{"id": 3, "text": "changed"}])
        database.delete(table(), [{"id": 4}])
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: database.released == database.position)
    assert not any(b"note number" in value for value in platform.log.values(str(SECRET)))
    assert a.board.is_ready, a.board.problems
    assert b.board.is_ready, b.board.problems


async def test_rows_are_signed_on_a_token_where_the_settings_say_so(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 50))
    token = tokens().keys()
    a.stores = (token, FileKeys())
    a.open()
    assert [key.store for key in a.keys.signing] == ["pkcs11", "file"]
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    token.close()


async def test_what_a_snapshot_waits_for_is_shown_until_it_goes_on(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database = MemoryDatabase([table()], held_by="the snapshot waits for process 7")
    a.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(
            lambda: (
                a.board.problems.get("capture main")
                == "not_ready: the snapshot waits for process 7"
            )
        )
        database.held_by = None
        await until(lambda: a.board.is_ready)


class _Slow(MemorySource):
    """A source that takes a minute to say how far it is."""

    def __init__(self, database: MemoryDatabase, clock: ManualClock) -> None:
        super().__init__(database)
        self._clock = clock

    async def status(self) -> Mapping[str, float]:
        found = await super().status()
        self._clock.ahead += timedelta(seconds=60)
        return found


async def test_figures_bear_the_time_at_which_they_were_asked_for(a: TestHost) -> None:
    asked = a.platform.clock.now()
    stop = asyncio.Event()
    feed = Feed(topic=SECRET, schema=NOTES, partitions=1, salt=bytes(32), sealed=True)
    limits = Limits(changes_max=1, bytes_max=10**6, linger_s=0, silence_s=60)
    plan = Plan(part="capture", origin=ORIGIN, feeds=[feed], limits=limits, resume=None, upto={})
    it = Publisher(
        a.host,
        plan,
        _Slow(MemoryDatabase([]), a.platform.clock),
        lanes={SECRET: _HandLane()},
        progress=Progress("main", a.host.identity),
        stop=stop,
    )
    name = "fabric_capture_heartbeat_timestamp_seconds"
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        await until(lambda: bool(a.metric(name, source=ORIGIN.source)))
        shown = a.metric(name, source=ORIGIN.source)
        stop.set()
        await running
    assert 0 <= shown - asked.timestamp() < 30


async def test_open_levels_travel_in_the_open(platform: Platform, a: TestHost, b: TestHost) -> None:
    database, store = MemoryDatabase([table(OPEN)]), MemoryStore()
    database.upsert(table(OPEN), notes(0, 30))
    a.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b)
        parts.capture(a, database, OPEN)
        parts.apply(b, store, OPEN)
        await until(lambda: store.rows(OPEN) == database.held(table(OPEN)))
    assert any(b"note number 7" in value for value in platform.log.values(str(OPEN)))
    assert grants_topic(OPEN) not in {topic for topic, _ in platform.log.records}


async def test_a_killed_agent_goes_on_where_the_platform_is(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    async with running() as reading:
        await reading.view(b, SECRET)
        reading.apply(b, store)
        for life in range(5):
            database.upsert(table(), notes(life * 40, 40))
            async with running() as parts:
                a.open()
                await parts.view(a)
                parts.capture(a, database)
                await until(lambda: bool(store.rows(SECRET)))
                if life < 4:  # cut off in the middle, nothing flushed or closed
                    await asyncio.sleep(0.01 * life)
                    continue
                await until(lambda: store.rows(SECRET) == database.held(table()))
    assert b.board.is_ready, b.board.problems
    epochs = {envelope.parse(v).header.epoch_number for v in platform.log.values(str(SECRET))}
    assert len(epochs) >= 2


async def test_a_lost_state_file_costs_a_reread_and_no_data(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 30))
    a.attest()
    b.attest()
    async with running() as reading:
        await reading.view(b, SECRET)
        reading.apply(b, store)
        async with running() as parts:
            await parts.view(a)
            parts.capture(a, database)
            await until(lambda: store.rows(SECRET) == database.held(table()))
        first = max(s.high.generation for s in store.held.states.values())
        for file in a.folder.iterdir():
            file.unlink()
        await until(lambda: int(time.time()) > first)  # generations are counted in seconds
        a.open()
        a.attest()
        database.life += 1
        database.delete(table(), [{"id": 5}])
        async with running() as parts:
            await parts.view(a)
            parts.capture(a, database)
            await until(lambda: store.rows(SECRET) == database.held(table()))
        again = max(s.high.generation for s in store.held.states.values())
    assert again > first


async def test_a_gateway_that_is_away_loses_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        away = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway answers")
        judge, platform.log.judge = platform.log.judge, lambda *_: away
        database.upsert(table(), notes(0, 25))
        await until(lambda: "publish secret.G01.notes" in a.board.problems)
        assert database.released < database.position
        platform.log.judge = judge
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: a.board.is_ready)


async def test_a_suspended_host_holds_and_comes_back_after_a_new_approval(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        database.upsert(table(), notes(0, 5))
        await until(lambda: len(store.rows(SECRET)) == 5)
        platform.suspend(A)
        database.upsert(table(), notes(5, 5))
        part = "publish secret.G01.notes"
        await until(lambda: Reason.HOST_SUSPENDED.value in a.board.problems.get(part, ""))
        assert len(store.rows(SECRET)) == 5
        a.attest(approval=2)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert [e for e, f in a.audit.events if e == "block_refused"]


async def test_a_result_that_ended_stops_publishing_and_says_so(
    platform: Platform, a: TestHost
) -> None:
    database = MemoryDatabase([table()])
    a.attest(life_s=1)
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        part = "publish secret.G01.notes"
        await until(lambda: Reason.RESULT_EXPIRED.value in a.board.problems.get(part, ""))
        before = len(platform.log.values(str(SECRET)))
        database.upsert(table(), notes(0, 5))
        await asyncio.sleep(0.2)
        assert len(platform.log.values(str(SECRET))) == before
        assert database.released < database.position


async def test_stop_finishes_what_is_in_flight(platform: Platform, a: TestHost) -> None:
    database, stop = MemoryDatabase([table()]), asyncio.Event()
    database.upsert(table(), notes(0, 100))
    a.attest()
    async with running() as parts:
        await parts.view(a)
        task = parts.capture(a, database, stop=stop)
        await until(lambda: len(platform.log.values(str(SECRET))) > 1)
        stop.set()
        async with asyncio.timeout(5):
            await task
    last = envelope.parse(platform.log.values(str(SECRET))[-1])
    (head,) = a.host.identity.state.heads(SECRET).values()
    assert head.head is not None
    assert head.head.hash == last.hash
    assert "capture main" not in a.board.parts


async def test_a_block_in_many_parts_is_never_far_ahead_of_the_disk(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of it, the next life must begin at a head that readers remember."""
    monkeypatch.setattr(parts_beside, "BLOCK", BlockConfig(changes_max=100, silence_s=0.5))
    database, behind = MemoryDatabase([table()]), [0]
    database.upsert(table(), notes(0, 100))
    a.attest()
    platform.admit_single_changes()
    admits = platform.log.judge
    assert admits is not None

    def judge(topic: str, partition: int, key: bytes | None, value: bytes) -> FabricError | None:
        if topic == str(SECRET):
            (known,) = a.host.identity.state.heads(SECRET).values() or (None,)
            counter = known.head.counter if known and known.head else -1
            behind.append(envelope.parse(value).header.counter - counter)
        return admits(topic, partition, key, value)

    platform.log.judge = judge
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)
    assert len(platform.log.values(str(SECRET))) >= 100
    assert max(behind) < HEADS_REMEMBERED


class _Rows:
    """A source that gives rows of one commit each when the test says so."""

    def __init__(self) -> None:
        self.wanted: asyncio.Queue[int] = asyncio.Queue()

    async def open(self, resume: str | None) -> Opened:
        return Opened(generation=1, position=0)

    async def read(self) -> AsyncIterator[Captured]:
        while True:
            at = await self.wanted.get()
            yield Captured(
                topic=SECRET,
                run=Run(op=Op.UPSERT, position=at, ordinal=1, commit_us=at, rows=notes(at, 1)),
            )

    async def release(self, position: int) -> None:
        """Nothing to let go."""

    async def waits(self) -> str | None:
        return None

    async def status(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        """Nothing to close."""


class _HandLane:
    """Acknowledges when the test says so; packs, as all lanes, while a block is on its way."""

    def __init__(self) -> None:
        self.acknowledge = asyncio.Semaphore(0)
        self.stored: list[Block] = []
        self._sending = Sending()

    async def pack(self, block: Block) -> None:
        await self._sending.wait(block.stream)

    async def store(self, block: Block) -> Kept:
        self._sending.begins(block.stream)
        await self.acknowledge.acquire()
        self._sending.over(block.stream)
        self.stored.append(block)
        head = StreamHead(stream=block.stream, head=None, upto=block.upto)
        return Kept(head=head, plaintext_bytes=100)

    async def maintain(self) -> None:
        """Nothing is due."""


async def test_no_block_waits_for_the_way_of_one_that_has_arrived(a: TestHost) -> None:
    """Rows and an acknowledgement in one turn of the loop: the packer is told after both."""
    source, lane, stop = _Rows(), _HandLane(), asyncio.Event()
    feed = Feed(topic=SECRET, schema=NOTES, partitions=1, salt=bytes(32), sealed=True)
    limits = Limits(changes_max=1, bytes_max=10**6, linger_s=0, silence_s=60)
    plan = Plan(part="capture", origin=ORIGIN, feeds=[feed], limits=limits, resume=None, upto={})
    progress = Progress("main", a.host.identity)
    it = Publisher(a.host, plan, source, lanes={SECRET: lane}, progress=progress, stop=stop)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        source.wanted.put_nowait(1)
        await asyncio.sleep(0.05)  # its block is on its way
        source.wanted.put_nowait(2)
        source.wanted.put_nowait(3)
        lane.acknowledge.release()  # and now, in one turn: two more, and its acknowledgement
        await asyncio.sleep(0.05)
        lane.acknowledge.release()
        lane.acknowledge.release()
        await until(lambda: len(lane.stored) == 3)
        stop.set()
        await running
    assert [block.runs[0].position for block in lane.stored] == [1, 2, 3]


async def test_a_row_that_no_block_holds_opens_no_epoch_at_each_start_of_its_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every start ends at the row; what the capture's streams have to say before that goes out."""
    for name in ("_HOLD_S", "RETRY_S_MIN", "_PAUSE_S_MAX"):
        monkeypatch.setattr(supervisor, name, 0.01)
    for name in ("_PAUSE_S_MIN", "_PAUSE_S_MAX"):  # no pause ends while a busy machine gets here
        monkeypatch.setattr(pace, name, 3600.0)
    other = Topic.parse("secret.G01.others")
    platform = Platform(dataset(SECRET), dataset(other))
    platform.admit(A)
    host = TestHost(platform, A, tmp_path).open()
    database, opened = MemoryDatabase([table(), table(other)]), 0
    database.upsert(table(), [{"id": 1, "text": os.urandom(BLOCK_BYTES_MAX).hex()}])
    open_source = MemorySource.open

    async def counted(self: MemorySource, resume: str | None) -> Opened:
        nonlocal opened
        opened += 1
        return await open_source(self, resume)

    monkeypatch.setattr(MemorySource, "open", counted)
    host.attest()
    async with running() as parts:
        await parts.view(host)
        parts.capture(host, database, SECRET, other)
        await until(lambda: opened >= 2 * pace._FREE)
        await until(lambda: host.board.reasons().get("capture main") is Reason.TOO_LARGE)
    assert platform.log.values(str(grants_topic(SECRET))) == []
    assert len(platform.log.values(str(grants_topic(other)))) <= pace._FREE


async def test_a_source_shows_whether_it_answers(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> float:
        return a.metric("fabric_database_up", kind="source", database="main")

    async def away(_source: MemorySource, *_args: object) -> None:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "database does not answer")

    a.metrics.has_database("source", "main")
    assert math.isnan(answers())
    database = MemoryDatabase([table()])
    a.attest()
    async with running() as parts:
        await parts.view(a)
        with monkeypatch.context() as patched:
            patched.setattr(MemorySource, "open", away)
            parts.capture(a, database)
            await until(lambda: "capture main" in a.board.problems)
            await until(lambda: answers() == 0)
        await until(lambda: answers() == 1)
        await until(lambda: a.board.is_ready)
        await until(lambda: a.shows("fabric_outbox_records"))
        monkeypatch.setattr(MemorySource, "status", away)
        await until(lambda: "capture main" in a.board.problems)
        assert answers() == 0


async def test_a_source_is_closed_also_when_progress_cannot_be_written(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, closed = _Rows(), asyncio.Event()
    plan = Plan(
        part="capture",
        origin=ORIGIN,
        feeds=[],
        limits=Limits(changes_max=1, bytes_max=10**6, linger_s=0, silence_s=60),
        resume=None,
        upto={},
    )
    progress, stop = Progress("main", a.host.identity), asyncio.Event()

    async def fail() -> None:
        raise UnavailableError(Reason.OVERLOADED, "state file cannot be written")

    async def close() -> None:
        closed.set()

    monkeypatch.setattr(source, "close", close)
    monkeypatch.setattr(progress, "flush", fail)
    stop.set()
    it = Publisher(a.host, plan, source, lanes={}, progress=progress, stop=stop)
    with pytest.raises((UnavailableError, ExceptionGroup)):
        await it.run()
    assert closed.is_set()
