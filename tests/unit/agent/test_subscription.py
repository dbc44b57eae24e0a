"""The Python API as a target: delivery, positions, and coming back."""

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.agent.completeness import completeness_after
from fabric.agent.identity import Identity
from fabric.agent.open_form import encode
from fabric.agent.parts import subscribe_partition
from fabric.agent.read_machine import BEGINNING
from fabric.agent.subscription import Delivery, Position, Subscription
from fabric.agent.supervisor import Board, end, supervise
from fabric.model.block import Block, trim
from fabric.model.change import Change, Op, Run, Sequence
from fabric.model.errors import UnavailableError
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import StreamState
from fabric.store.file_keys import FileKeys
from tests.fakes.platform import (
    OPEN,
    ORIGIN,
    SECRET,
    DrawerTpm,
    Platform,
    TestHost,
    dataset,
)
from tests.fakes.running import Running, running, table, until
from tests.fakes.sealing import STREAM, TOPIC, block
from tests.fakes.source import MemoryDatabase

END = 1_000
"""Retention took everything."""
Deliveries = list[tuple[Change, Position]]


def state(high: tuple[int, int, int], *, offset: int, chain: bytes = b"new") -> StreamState:
    return StreamState(
        high=Sequence(*high),
        chain=chain,
        offset=offset,
        cluster="c",
        topic_id="t",
        incomplete=False,
    )


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    made = Identity(tmp_path, DrawerTpm(), ca=tmp_path / "ca.pem", stores=(FileKeys(),))
    made.create((0,))
    return made


async def delivered(it: Subscription) -> Deliveries:
    delivery = await it.next()
    assert delivery is not None
    return list(delivery.changes())


async def test_every_change_comes_with_its_position(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    content, new = block(3), state((1, 100, 3), offset=8)
    applied = await it.apply(content, None, new)
    assert (applied.state, applied.applied) == (new, 3)
    found = await delivered(it)
    assert [change.row and change.row["id"] for change, _ in found] == [0, 1, 2]
    assert [position.state.high.ordinal for _, position in found] == [1, 2, 3]
    assert found[-1][1].state == new


def test_what_a_position_prints_holds_no_chain() -> None:
    after = state((1, 100, 3), offset=8, chain=secrets.token_bytes(4_000))
    delivery = Delivery(block=block(1), before=after, after=after)
    for it in (after, Position(STREAM, after), delivery):
        assert "chain" not in repr(it)
    assert replace(after, chain=b"") != after


async def test_a_whole_block_is_acknowledged_as_its_last_change_is(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    content, new = block(3), state((1, 100, 3), offset=8)
    await it.apply(content, None, new)
    delivery = await it.next()
    assert [row["id"] for run in delivery.block.runs for row in run.rows] == [0, 1, 2]
    assert delivery.position == [*delivery.changes()][-1][1]
    assert delivery.position.state == new


async def test_what_was_verified_under_other_anchors_is_not_delivered_but_read_again(
    identity: Identity,
) -> None:
    it = Subscription(identity, TOPIC)
    kept = state((1, 50, 9), offset=7, chain=b"old")
    identity.state.save_position(STREAM, kept)
    await it.apply(block(3), kept, state((1, 100, 3), offset=8))
    it.forget()
    assert await it.state(STREAM) == kept
    it.begin()
    await it.apply(block(2), kept, state((1, 100, 2), offset=8))
    assert len(await delivered(it)) == 2


async def test_a_block_that_comes_late_from_an_ended_life_is_neither_given_nor_gone_on_from(
    identity: Identity,
) -> None:
    it = Subscription(identity, TOPIC)
    it.forget()
    with pytest.raises(UnavailableError):
        await it.apply(block(3), None, state((1, 100, 3), offset=8))
    it.begin()
    assert await it.state(STREAM) is None
    await it.apply(block(2), None, state((1, 100, 2), offset=8))
    assert len(await delivered(it)) == 2


async def test_a_block_that_waited_for_the_subscriber_as_its_life_ended_is_not_given(
    identity: Identity,
) -> None:
    it, new = Subscription(identity, TOPIC), state((1, 100, 3), offset=8)

    async def apply() -> None:
        with pytest.raises(UnavailableError):
            await it.apply(block(3), None, new)

    for _ in range(4):
        await it.apply(block(3), None, new)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(apply())
        await asyncio.sleep(0)
        it.forget()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(it.next())
        await asyncio.sleep(0)
        it.begin()
        assert await it.streams(TOPIC) == {}
        await it.apply(block(2), None, new)
    assert len([*reading.result().changes()]) == 2


async def test_a_position_inside_a_block_reads_the_record_again_and_drops_what_was_done(
    identity: Identity,
) -> None:
    it = Subscription(identity, TOPIC)
    before, new = state((1, 50, 9), offset=7, chain=b"old"), state((1, 100, 3), offset=8)
    content = block(3)
    await it.apply(content, before, new)
    middle = (await delivered(it))[1][1].state
    assert (middle.chain, middle.offset) == (b"old", 7)
    assert trim(content, middle.high).count == 1


@pytest.mark.parametrize(
    ("before", "offset"),
    [
        (state((1, 50, 9), offset=7), 7),  # of many records between 7 and 20
        (None, BEGINNING),
        (replace(state((1, 50, 9), offset=7), topic_id="another"), BEGINNING),
        (state((1, 50, 9), offset=90), BEGINNING),
    ],
)
async def test_a_position_inside_a_block_reads_on_from_before_it(
    identity: Identity, before: StreamState | None, offset: int
) -> None:
    it = Subscription(identity, TOPIC)
    await it.apply(block(3), before, state((1, 100, 3), offset=20))
    assert (await delivered(it))[1][1].state.offset == offset


BEGIN_MARK, END_MARK, ROW = Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END, Op.TRUNCATE


def runs_of(*ops: Op, generation: int = 1) -> Block:
    runs = [Run(op=o, position=1, ordinal=n, commit_us=0, rows=[]) for n, o in enumerate(ops, 1)]
    upto = Sequence(generation, 1, len(ops))
    return Block(stream=STREAM, after=Sequence(generation, 0, 0), upto=upto, runs=tuple(runs))


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("stood", [None, (False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "ops",
    [
        (ROW, ROW, ROW),
        (ROW, END_MARK, ROW, ROW),
        (ROW, BEGIN_MARK, ROW, ROW),
        (ROW, BEGIN_MARK, ROW, END_MARK, ROW, ROW),
        (ROW, END_MARK, ROW, BEGIN_MARK, ROW),
    ],
)
async def test_a_position_inside_a_block_says_what_rows_lack_there_and_not_at_its_end(
    identity: Identity,
    ops: tuple[Op, ...],
    stood: tuple[bool, bool] | None,
    generation: int,
    joins: bool,
) -> None:
    """Whoever goes on from it comes to the same as whoever took the block whole."""
    joins = joins and stood is None
    before = None
    if stood is not None:
        before = replace(state((1, 0, 0), offset=7), incomplete=stood[0], in_snapshot=stood[1])
    whole = runs_of(*ops, generation=generation)
    after = completeness_after(before, whole, joins=joins)
    new = replace(state(tuple(whole.upto), offset=8), **after._asdict())  # type: ignore[arg-type]
    it = Subscription(identity, TOPIC)
    await it.apply(whole, before, new)
    for count, (_, position) in enumerate((await delivered(it))[:-1], 1):
        part = replace(whole, runs=whole.runs[:count])
        there = position.state
        here = completeness_after(before, part, joins=joins)
        assert completeness_after(there, trim(whole, there.high)) == after
        assert there.incomplete >= here.incomplete
        if before is not None:
            assert (there.incomplete, there.in_snapshot) == here


async def test_a_restart_inside_a_snapshot_that_ends_in_the_block_calls_nothing_complete(
    identity: Identity,
) -> None:
    before = replace(state((1, 0, 0), offset=7), incomplete=True, in_snapshot=True)
    it = Subscription(identity, TOPIC)
    await it.apply(runs_of(ROW, ROW, END_MARK, ROW), before, state((1, 1, 4), offset=8))
    position = (await delivered(it))[0][1]
    identity.state.save_position(position.stream, position.state)
    goes_on = await Subscription(identity, TOPIC).state(STREAM)
    assert goes_on is not None
    assert (goes_on.incomplete, goes_on.in_snapshot) == (True, True)


@pytest.mark.parametrize("topic", [OPEN, SECRET])
async def test_a_restart_inside_a_block_goes_on_there_and_calls_nothing_lost(
    platform: Platform, a: TestHost, b: TestHost, topic: Topic
) -> None:
    async with running() as parts:
        await _publish(parts, a, b, topic)
        given = await _life(parts, b, topic, 45)
        for done in (2, 13, 33):
            _ack(b, given[done - 1])
            again = await _life(parts, b, topic, 45 - done)
            assert _changes(again[: 45 - done]) == _changes(given[done:45])
            given = given[:done] + again
    assert _anew(b) == 0


@pytest.mark.parametrize(
    ("first", "now", "anew"),
    [(5, 5, 0), (0, 40, 1), (0, END, 1)],
)
async def test_a_restart_inside_the_first_block_tells_what_retention_took_from_what_was_done(
    platform: Platform,
    a: TestHost,
    b: TestHost,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    now: int,
    anew: int,
) -> None:
    async def bounds(topic: str, partition: int) -> tuple[int, int]:
        return first, _end(platform)

    async with running() as parts:
        await _publish(parts, a, b, OPEN)
        monkeypatch.setattr(platform.log, "bounds", bounds)
        given = await _life(parts, b, OPEN, 20)
        _ack(b, given[9])
        first = min(now, _end(platform))
        await _life(parts, b, OPEN, 0 if now == END else 10, anew)
    assert _anew(b) == anew


async def test_what_retention_left_of_another_origin_says_nothing_of_a_first_block(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = 0, Origin.parse("G01/registry/other")
    shared = dataset(OPEN, producers=(ORIGIN, other))
    newer = replace(platform.policy, version=8, datasets={str(OPEN): shared})

    async def bounds(topic: str, partition: int) -> tuple[int, int]:
        return first, _end(platform)

    async with running() as parts:
        await _publish(parts, a, b, OPEN)
        b.host.view.take_policy(newer)
        monkeypatch.setattr(platform.log, "bounds", bounds)
        _ack(b, (await _life(parts, b, OPEN, 20))[9])
        first = _end(platform)
        for value in encode(block(1, stream=Stream(other, OPEN, 0)), shared):
            platform.log.put(str(OPEN), 0, None, value)
        assert [change.origin for change, _ in await _life(parts, b, OPEN, 1)] == [other]
    assert _anew(b) == 1


def _end(platform: Platform) -> int:
    return len(platform.log.values(str(OPEN)))


async def _publish(parts: Running, a: TestHost, b: TestHost, topic: Topic) -> None:
    database = MemoryDatabase([table(topic)])
    database.upsert(table(topic), [{"id": n, "text": "x"} for n in range(60)])
    for host in (a, b):
        host.attest()
        await parts.view(host, topic)
    parts.capture(a, database, topic)
    await until(lambda: database.released == database.position)


async def _life(parts: Running, b: TestHost, topic: Topic, count: int, anew: int = 0) -> Deliveries:
    """What a subscriber is given in one life, until it has `count` and has read anew."""
    it, given = Subscription(b.host.identity, topic), []
    task = parts.spawn(
        supervise("s", lambda: subscribe_partition(b.host, "s", it, topic, 0), b.board)
    )
    async with asyncio.timeout(20):
        while len(given) < count:
            given += await delivered(it)
        await until(lambda: _anew(b) >= anew)
    task.cancel()
    await asyncio.wait([task])
    return given


def _ack(b: TestHost, delivery: tuple[Change, Position]) -> None:
    position = delivery[1]
    b.host.identity.state.save_position(position.stream, position.state)


def _changes(given: Deliveries) -> list[Change]:
    return [change for change, _ in given]


def _anew(b: TestHost) -> int:
    return [event for event, _ in b.audit.events].count("read_anew")


async def test_a_later_life_goes_on_from_what_was_acknowledged(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    await it.apply(block(3), None, state((1, 100, 3), offset=8))
    found = await delivered(it)
    assert await Subscription(identity, TOPIC).streams(TOPIC) == {}
    position = found[0][1]
    identity.state.save_position(position.stream, position.state)
    assert await Subscription(identity, TOPIC).state(STREAM) == position.state
    assert (await it.state(STREAM)) == state((1, 100, 3), offset=8)


async def test_an_empty_block_delivers_nothing_and_moves_on(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    await it.apply(block(0), None, state((1, 100, 3), offset=8))
    assert await delivered(it) == []


async def test_whoever_waits_is_told_that_the_agent_ends(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(it.next())
        await asyncio.sleep(0)
        it.close()
    assert waiting.result() is None
    it.forget()  # as the end of its life does
    async with asyncio.timeout(5):
        assert await it.next() is None


@pytest.mark.parametrize("given", [0, 9])
async def test_a_reader_whose_subscriber_has_ended_is_cancelled_at_once_and_says_nothing(
    identity: Identity, caplog: pytest.LogCaptureFixture, given: int
) -> None:
    """It comes with a block after the end, or it waits with one for the subscriber."""
    it, board, begins = Subscription(identity, TOPIC), Board(), asyncio.Event()

    async def give() -> None:
        board.show("s", None)
        for _ in range(given):
            await it.apply(block(3), None, state((1, 100, 3), offset=8))
        await begins.wait()
        await it.apply(block(3), None, state((1, 100, 3), offset=8))

    async def read() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(give())

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(supervise("s", read, board))
        await asyncio.sleep(0.05)
        it.close()
        begins.set()
        await asyncio.sleep(0.05)
        assert not reading.done()
        assert await it.next() is None
        await end([reading])
    assert (board.problems, caplog.messages) == ({}, [])
    assert await it.streams(TOPIC) == {}


def test_a_position_shows_no_chain(identity: Identity) -> None:
    assert "new" not in repr(Position(STREAM, state((1, 2, 3), offset=1)))
