"""The open lane: records in batches, and what a refusal means."""

import asyncio
from datetime import timedelta

import pytest

from fabric.agent import refusal_machine
from fabric.agent.lane import Kept
from fabric.agent.open_lane import OpenLane
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.names import Stream
from tests.fakes.platform import NOTES, OPEN, ORIGIN, Platform, TestHost
from tests.fakes.running import running
from tests.fakes.waits import Minute

STREAM = Stream(ORIGIN, OPEN, 0)


def block(count: int, text: str = "x") -> Block:
    rows = [{"id": i, "text": text} for i in range(count)]
    run = Run(op=Op.UPSERT, position=9, ordinal=1, commit_us=1, rows=rows)
    return Block(stream=STREAM, after=ZERO, upto=Sequence(1, 9, count), runs=(run,))


async def stored(host: TestHost, content: Block) -> Kept:
    async with running() as parts:
        await parts.view(host)
        async with asyncio.timeout(10):
            return await OpenLane(host.host, OPEN, NOTES).store(content)


async def test_changes_are_appended_in_batches_that_fit(platform: Platform, a: TestHost) -> None:
    a.attest()
    kept = await stored(a, block(60, text="t" * 20_000))
    assert len(platform.log.values(str(OPEN))) == 60
    assert platform.log.appends >= 3
    assert kept.head.head is None
    assert kept.head.upto == Sequence(1, 9, 60)


async def test_a_block_encoded_ahead_is_appended_once(platform: Platform, a: TestHost) -> None:
    a.attest()
    it = OpenLane(a.host, OPEN, NOTES)
    async with running() as parts:
        await parts.view(a)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(it.store(block(3)))
            second = block(4)
            await it.pack(second)
            await first
            kept = await it.store(second)
    assert kept.head.upto == second.upto
    assert len(platform.log.values(str(OPEN))) == 7


async def test_an_empty_block_appends_nothing(platform: Platform, a: TestHost) -> None:
    a.attest()
    empty = Block(stream=STREAM, after=ZERO, upto=Sequence(1, 9, 1), runs=())
    await stored(a, empty)
    assert platform.log.values(str(OPEN)) == []


async def test_an_outage_is_waited_out_and_repeats_are_the_readers_to_drop(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    errors: list[FabricError | None] = [
        UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway answers")
    ]
    platform.log.judge = lambda *_: errors.pop() if errors else None
    await stored(a, block(5))
    assert len(platform.log.values(str(OPEN))) == 5


async def test_hold_is_shown_and_looked_at_again(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_machine, "HOLD_S", 0.01)
    a.attest()
    errors: list[FabricError | None] = [DeniedError(Reason.NOT_A_PRODUCER, "not today")]
    platform.log.judge = lambda *_: errors.pop() if errors else None
    await stored(a, block(5))
    assert [event for event, _ in a.audit.events] == ["block_refused"]


async def test_a_minute_without_a_result_is_a_few_looks_and_one_line(
    platform: Platform, a: TestHost
) -> None:
    a.attest(life_s=60)
    platform.clock.ahead += timedelta(seconds=61)
    async with running() as parts:
        await parts.view(a)
        minute = Minute(a)
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                tasks.create_task(OpenLane(a.host, OPEN, NOTES).store(block(5)))
    assert minute.turns <= 20
    said = {"topic": str(OPEN), "reason": "result_expired"}
    assert a.audit.events == [("block_refused", said)]


async def test_a_sender_that_is_behind_the_policy_asks_for_it(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    errors: list[FabricError | None] = [DeniedError(Reason.POLICY_NEWER, "ours is older")]
    platform.log.judge = lambda *_: errors.pop() if errors else None
    await stored(a, block(5))
    assert a.host.view.policy_wanted.is_set()


async def test_never_stops(platform: Platform, a: TestHost) -> None:
    a.attest()
    platform.log.judge = lambda *_: PeerError(Reason.MALFORMED, "a bug")
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, block(5))
    assert caught.group_contains(PeerError)
