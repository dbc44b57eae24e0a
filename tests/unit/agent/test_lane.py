"""The sealed lane: what is sent, what is sent again, and what is sealed anew."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fabric.agent import lane as lanes
from fabric.agent import refusal_machine
from fabric.agent.lane import Kept, Note, SealedLane, allowed
from fabric.agent.view import WorldView
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Row, Run, Sequence
from fabric.model.errors import (
    DeniedError,
    FabricError,
    Malformed,
    PeerError,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.model.limits import BLOCK_BYTES_MAX
from fabric.model.names import Stream, grants_topic
from fabric.ports import Stored
from fabric.seal import envelope
from fabric.seal.chain import Verdict, judge
from fabric.seal.epoch import parse_start, verify_start
from fabric.seal.sealing import Packed, Sealed, seal_packed
from fabric.store.state import StreamHead
from tests.fakes.approvals import approved
from tests.fakes.platform import NOTES, ORIGIN, SECRET, A, B, Platform, TestHost, dataset
from tests.fakes.running import running, until
from tests.fakes.waits import Minute
from tests.unit.agent.test_epochs import learn_of_a_suspension

STREAM = Stream(ORIGIN, SECRET, 0)
GRANTS = grants_topic(SECRET)
_LONG_S = 6.0


def block(position: int, count: int = 2, *, after: Sequence = ZERO, text: str = "x") -> Block:
    rows = [{"id": i, "text": text} for i in range(count)]
    run = Run(op=Op.UPSERT, position=position, ordinal=1, commit_us=1, rows=rows)
    return Block(stream=STREAM, after=after, upto=Sequence(1, position, count), runs=(run,))


async def forget(head: StreamHead) -> None:
    """Nobody asks for it."""


def lane(host: TestHost, note: Note = forget) -> SealedLane:
    heads = host.host.identity.state.heads(SECRET)
    return SealedLane(host.host, SECRET, NOTES, heads=heads, streams=1, note=note)


def sent(platform: Platform) -> list[envelope.Envelope]:
    return [envelope.parse(value) for value in platform.log.values(str(SECRET))]


async def stored(host: TestHost, it: SealedLane, *blocks: Block) -> list[Kept]:
    async with running() as parts:
        await parts.view(host)
        async with asyncio.timeout(10):
            return [await it.store(each) for each in blocks]


class Refusals:
    """Refuses the first appends of data, each for its error, then admits."""

    def __init__(self, platform: Platform, *errors: FabricError) -> None:
        self.seen: list[bytes] = []
        self._errors = [*errors]
        self._admit = platform.log.judge
        platform.log.judge = self

    def __call__(
        self, topic: str, partition: int, key: bytes | None, value: bytes
    ) -> FabricError | None:
        assert self._admit is not None
        if topic == str(SECRET):
            self.seen.append(value)
            if self._errors:
                return self._errors.pop(0)
        return self._admit(topic, partition, key, value)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds and reseals are counted in seconds; tests need not be."""
    monkeypatch.setattr(refusal_machine, "HOLD_S", 0.01)
    monkeypatch.setattr(refusal_machine, "RESEAL_INTERVAL_S", 0.01)


async def test_blocks_form_a_chain(platform: Platform, a: TestHost) -> None:
    """MUST-7.10."""
    a.attest()
    first, second = block(10), block(20, after=Sequence(1, 10, 2))
    kept = await stored(a, lane(a), first, second)
    one, two = sent(platform)
    assert (one.header.counter, two.header.counter) == (0, 1)
    assert one.header.previous == envelope.NO_PREVIOUS
    assert two.header.previous == one.hash
    assert [k.head.upto for k in kept] == [first.upto, second.upto]
    assert kept[1].head.head is not None
    assert kept[1].head.head.hash == two.hash


async def packed_ahead(host: TestHost, it: SealedLane, *blocks: Block) -> list[Kept]:
    """Store each while the next is packed, as the publisher does."""
    async with running() as parts:
        await parts.view(host)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            kept = []
            for at, each in enumerate(blocks):
                store = tasks.create_task(it.store(each))
                if at + 1 < len(blocks):
                    await it.pack(blocks[at + 1])
                kept.append(await store)
            return kept


async def test_blocks_packed_ahead_form_the_same_chain(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    used: list[Packed] = []
    monkeypatch.setattr(
        lanes,
        "seal_packed",
        lambda packed, **rest: used.append(packed) or seal_packed(packed, **rest),
    )
    it = lane(a)
    first, second = block(10), block(20, after=Sequence(1, 10, 2))
    kept = await packed_ahead(a, it, first, second)
    one, two = sent(platform)
    assert two.header.previous == one.hash
    assert [k.head.upto for k in kept] == [first.upto, second.upto]
    assert [packed.block for packed in used] == [first, second]


class Slow:
    """Holds the first append of data back until `go`; counts what is sealed."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        self.sealed: list[Block] = []
        self._append = platform.log.append
        monkeypatch.setattr(platform.log, "append", self.append)
        monkeypatch.setattr(lanes, "seal_packed", self._seal_packed)

    async def append(self, topic: str, partition: int, records: Any) -> Stored:
        if topic == str(SECRET):
            await self.go.wait()
        return await self._append(topic, partition, records)

    def _seal_packed(self, packed: Packed, **rest: Any) -> Sealed:
        self.sealed.append(packed.block)
        return seal_packed(packed, **rest)


async def sealed_ahead(
    host: TestHost, slow: Slow, meanwhile: Callable[[], None] = lambda: None
) -> tuple[Block, Block]:
    """Store two blocks, the second packed while the first one's append is held back."""
    it = lane(host)
    first, second = block(10), block(20, after=Sequence(1, 10, 2))
    async with running() as parts:
        await parts.view(host)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            store = tasks.create_task(it.store(first))
            await it.pack(second)
            assert slow.sealed == [first, second]
            assert not store.done()
            meanwhile()
            slow.go.set()
            await store
            await it.store(second)
    return first, second


async def test_a_packed_block_is_sealed_while_the_one_before_it_is_on_its_way(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    slow = Slow(platform, monkeypatch)
    first, second = await sealed_ahead(a, slow)
    one, two = sent(platform)
    assert slow.sealed == [first, second]  # and not once more
    assert (two.header.counter, two.header.previous) == (1, one.hash)


async def test_a_block_sealed_too_long_ahead_is_sealed_anew(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    slow = Slow(platform, monkeypatch)

    def wait() -> None:
        platform.clock.ahead += timedelta(seconds=_LONG_S)

    first, second = await sealed_ahead(a, slow, wait)
    one, two = sent(platform)
    assert slow.sealed == [first, second, second]
    assert two.header.previous == one.hash
    assert two.header.sealed_at - one.header.sealed_at >= timedelta(seconds=_LONG_S)


@pytest.mark.usefixtures("quick")
async def test_a_block_sealed_ahead_of_one_that_is_sealed_anew_follows_the_new_one(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MUST-7.10."""
    a.attest()
    slow = Slow(platform, monkeypatch)
    Refusals(platform, DeniedError(Reason.RESULT_EXPIRED, "result has ended"))
    _, second = await sealed_ahead(a, slow)
    one, two = sent(platform)
    assert slow.sealed.count(second) == 2
    assert one.header.epoch_number == two.header.epoch_number
    assert (one.header.counter, two.header.counter) == (0, 1)
    assert two.header.previous == one.hash


async def test_a_block_sealed_ahead_under_another_result_is_sealed_anew(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    slow = Slow(platform, monkeypatch)

    def attest_again() -> None:
        platform.clock.ahead += timedelta(seconds=1)
        a.attest()

    await sealed_ahead(a, slow, attest_again)
    one, two = sent(platform)
    assert one.header.result_id != two.header.result_id
    assert two.header.previous == one.hash


async def test_no_block_is_packed_while_the_one_before_it_is_sealed(
    platform: Platform, a: TestHost
) -> None:
    """Both would hold the interpreter, and nothing would be on its way."""
    a.attest()
    it = lane(a)
    first, second = block(10), block(20, after=Sequence(1, 10, 2))
    third = block(30, after=Sequence(1, 20, 2))
    async with running() as parts:
        await parts.view(a)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            await it.store(first)
            packing = tasks.create_task(it.pack(third))
            done, _ = await asyncio.wait([packing], timeout=20 * lanes._HANDED_OVER_S)
            assert not done
            await it.store(second)
    assert packing.done()
    assert len(sent(platform)) == 2


async def test_a_block_that_cannot_be_packed_fails_when_it_is_stored(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    bad = Run(op=Op.UPSERT, position=20, ordinal=1, commit_us=1, rows=[{"id": "no number"}])
    after = Sequence(1, 10, 2)
    wrong = Block(stream=STREAM, after=after, upto=Sequence(1, 20, 1), runs=(bad,))
    with pytest.raises(ExceptionGroup) as caught:
        await packed_ahead(a, lane(a), block(10), wrong)
    assert caught.group_contains(Malformed)
    assert len(sent(platform)) == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "no number"}, Malformed),
        ({"id": 1, "text": os.urandom(BLOCK_BYTES_MAX).hex()}, UsageError),
    ],
)
@pytest.mark.parametrize("before", [[], [{"id": n, "text": "x"} for n in range(2, 5)]])
async def test_a_block_that_cannot_be_packed_opens_no_epoch(
    platform: Platform, a: TestHost, before: list[Row], row: Row, why: type[FabricError]
) -> None:
    """Its capture begins again and again, and each epoch would be kept and granted for long."""
    a.attest()
    run = Run(op=Op.UPSERT, position=10, ordinal=1, commit_us=1, rows=[*before, row])
    bad = Block(stream=STREAM, after=ZERO, upto=Sequence(1, 10, len(run.rows)), runs=(run,))
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, lane(a), bad)
    assert caught.group_contains(why)
    assert platform.log.values(GRANTS) == []


async def test_a_later_life_starts_an_epoch_from_the_known_head(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    (kept,) = await stored(a, lane(a), block(10))
    a.host.identity.state.save_heads([kept.head])
    await stored(a, lane(a), block(20, after=kept.head.upto))
    one, two = sent(platform)
    assert two.header.epoch_number == one.header.epoch_number + 1
    assert (two.header.counter, two.header.previous) == (0, one.hash)


async def test_wait_sends_the_same_bytes_again(platform: Platform, a: TestHost) -> None:
    a.attest()
    again = UnavailableError(Reason.RESULT_UNKNOWN, "result is not known here")
    refusals = Refusals(platform, again, again)
    await stored(a, lane(a), block(10))
    assert len(refusals.seen) == 3
    assert len(set(refusals.seen)) == 1
    assert a.metric("fabric_refused_blocks_total", level="secret", reason="result_unknown") == 2
    assert a.metric("fabric_refused_rows_total", level="secret", reason="result_unknown") == 4
    assert a.metric("fabric_produce_duration_seconds_count", level="secret") == 1


@pytest.mark.usefixtures("quick")
async def test_a_sender_that_is_behind_the_policy_asks_for_it(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    newer = DeniedError(Reason.POLICY_NEWER, "policy of the sender is newer than ours")
    Refusals(platform, newer)
    await stored(a, lane(a), block(10))
    assert a.host.view.policy_wanted.is_set()


@pytest.mark.usefixtures("quick")
async def test_hold_says_so_and_sends_the_same_bytes_while_the_result_lives(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    refusals = Refusals(platform, DeniedError(Reason.LEVEL_TOO_LOW, "host level is too low"))
    await stored(a, lane(a), block(10))
    assert len(set(refusals.seen)) == 1
    assert [e for e, _ in a.audit.events].count("block_refused") == 1
    assert a.board.parts["publish secret.G01.notes"] is None


@pytest.mark.usefixtures("quick")
async def test_reseal_means_a_new_epoch_with_the_same_sequences(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    refusals = Refusals(platform, DeniedError(Reason.RESULT_EXPIRED, "result has ended"))
    await stored(a, lane(a), block(10))
    old, new = (envelope.parse(value).header for value in refusals.seen)
    assert new.epoch_number == old.epoch_number + 1
    assert (new.after, new.upto, new.counter) == (old.after, old.upto, 0)


@pytest.mark.parametrize("has_epoch", [False, True])
async def test_a_minute_without_a_result_is_a_few_looks_and_one_line(
    platform: Platform, a: TestHost, has_epoch: bool
) -> None:
    a.attest(life_s=60)
    it = lane(a)
    async with running() as parts:
        await parts.view(a)
        if has_epoch:
            await it.store(block(10))
        platform.clock.ahead += timedelta(seconds=61)
        minute, before = Minute(a), len(a.audit.events)
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                tasks.create_task(it.store(block(20, after=Sequence(1, 10, 2))))
    assert minute.turns <= 20
    said = {"topic": str(SECRET), "reason": "result_expired"}
    assert a.audit.events[before:] == [("block_refused", said)]


async def test_a_block_whose_result_ended_in_flight_is_sealed_anew_as_the_next_result_comes(
    platform: Platform, a: TestHost
) -> None:
    a.attest(life_s=60)
    it, first, clock = lane(a), block(10), asyncio.get_running_loop().time
    async with running() as parts:
        await parts.view(a)
        await it.store(first)
        admit, seen = platform.log.judge, list[bytes]()

        def ends(topic: str, partition: int, key: bytes | None, value: bytes) -> FabricError | None:
            if topic == str(SECRET):
                seen.append(value)
            if len(seen) > 1 or topic != str(SECRET):
                return admit(topic, partition, key, value) if admit else None
            platform.clock.ahead += timedelta(seconds=60)
            return DeniedError(Reason.RESULT_EXPIRED, "result has ended")

        platform.log.judge = ends
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            storing = tasks.create_task(it.store(block(20, after=first.upto)))
            await until(lambda: a.metric("fabric_refused_blocks_total") == 2)
            asked = clock()
            a.attest()
            await storing
    assert clock() - asked < refusal_machine.HOLD_S / 2
    old, new = (envelope.parse(value).header for value in seen)
    assert (new.epoch_number, new.counter) == (old.epoch_number + 1, 0)
    assert [e for e, _ in a.audit.events].count("block_refused") == 1


async def test_a_gateway_that_refuses_every_start_is_asked_in_pauses(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    platform.log.judge = lambda *_: DeniedError(Reason.RESULT_EXPIRED, "result has ended")
    async with running() as parts:
        await parts.view(a)
        minute = Minute(a)
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                tasks.create_task(lane(a).store(block(10)))
    assert minute.turns <= 20
    assert [e for e, _ in a.audit.events] == ["block_refused"]


async def test_never_stops_the_stream(platform: Platform, a: TestHost) -> None:
    a.attest()
    Refusals(platform, PeerError(Reason.REPLAYED, "counter was seen with another hash"))
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, lane(a), block(10))
    assert caught.group_contains(PeerError, match="replayed")
    assert [e for e, _ in a.audit.events].count("block_refused") == 1


@pytest.mark.parametrize("lives", [1, 2])
async def test_a_block_that_lies_where_another_was_acknowledged_stops_the_stream(
    platform: Platform, a: TestHost, lives: int
) -> None:
    a.attest()
    it = lane(a)
    one, two = await stored(a, it, block(10), block(20, after=Sequence(1, 10, 2)))
    assert (one.head.offset, two.head.offset) == (0, 1)
    if lives == 2:
        a.host.identity.state.save_heads([replace(two.head, log="log")])
        it = lane(a)
    del platform.log.records[str(SECRET), 0][1:]
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, it, block(30, after=two.head.upto))
    assert caught.group_contains(PeerError, match="log_went_back")
    assert a.board.reasons()[f"publish {SECRET}"] is Reason.LOG_WENT_BACK


async def test_a_block_that_is_too_large_goes_in_halves(platform: Platform, a: TestHost) -> None:
    a.attest()
    whole = block(10, 4)
    refusals = Refusals(platform, DeniedError(Reason.TOO_LARGE, "record is too large"))
    (kept,) = await stored(a, lane(a), whole)
    headers = [item.header for item in sent(platform)]
    assert [header.count for header in headers] == [2, 2]
    assert headers[0].upto == headers[1].after
    assert kept.head.upto == whole.upto
    assert len(refusals.seen) == 3


async def test_the_head_of_each_part_is_noted_as_it_is_acknowledged(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    platform.admit_single_changes()
    noted: list[StreamHead] = []

    async def note(head: StreamHead) -> None:
        assert head.head is not None
        assert head.head.hash == sent(platform)[-1].hash
        noted.append(head)

    (kept,) = await stored(a, lane(a, note), block(10, 5))
    assert [head.upto for head in [*noted, kept.head]] == [Sequence(1, 10, n) for n in range(1, 6)]


async def test_a_block_over_the_limit_is_cut_before_anyone_sees_it(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    refusals = Refusals(platform)
    await stored(a, lane(a), block(10, 4, text="0123456789abcdef" * 20_000))
    assert [item.header.count for item in sent(platform)] == [2, 2]
    assert len(refusals.seen) == 2


async def test_one_change_that_is_too_large_is_our_users_error(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    Refusals(platform, DeniedError(Reason.TOO_LARGE, "record is too large"))
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, lane(a), block(10, 1))
    assert caught.group_contains(UsageError)


async def test_a_row_that_does_not_fit_its_schema_is_not_tried_again(a: TestHost) -> None:
    a.attest()
    run = Run(op=Op.UPSERT, position=10, ordinal=1, commit_us=1, rows=[{"id": "no number"}])
    bad = Block(stream=STREAM, after=ZERO, upto=Sequence(1, 10, 1), runs=(run,))
    with pytest.raises(ExceptionGroup) as caught:
        await stored(a, lane(a), bad)
    assert caught.group_contains(Malformed)


async def test_the_sender_asks_itself_what_the_gateway_will_ask(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    for host in (a, b):
        host.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b)
    now = platform.clock.now()
    assert allowed(a.host.view, SECRET, NOTES, now)[1].host == A

    def why(view: WorldView) -> Reason:
        with pytest.raises(DeniedError) as caught:
            allowed(view, SECRET, NOTES, now)
        return caught.value.reason

    assert why(b.host.view) is Reason.NOT_A_PRODUCER
    a.host.view.take_policy(replace(platform.policy, version=8, approvals=approved(B)))
    assert why(a.host.view) is Reason.NOT_APPROVED
    platform.suspend(A)
    async with running() as parts:
        await parts.view(a)
    assert why(a.host.view) is Reason.HOST_SUSPENDED
    assert B in a.host.view.members.hosts


def while_its_start_is_acknowledged(platform: Platform, happen: Callable[[], None]) -> None:
    """Let something happen between a start's place in the log and its acknowledgement."""
    append = platform.log.append

    async def slow(topic: str, partition: int, records: Any) -> int:
        offset = await append(topic, partition, records)
        if topic == GRANTS:
            happen()
        return offset

    platform.log.append = slow  # type: ignore[method-assign]


async def test_a_block_is_dated_after_its_epochs_start_was_acknowledged(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    took = timedelta(seconds=20)

    def pass_by() -> None:
        platform.clock.ahead += took

    while_its_start_is_acknowledged(platform, pass_by)
    await stored(a, lane(a), block(1))
    started = parse_start(platform.log.values(GRANTS)[0]).start.started
    assert sent(platform)[0].header.sealed_at - started >= took


async def test_a_sender_that_was_suspended_while_its_start_was_acknowledged_seals_nothing(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    platform.log.judge = None
    while_its_start_is_acknowledged(platform, lambda: learn_of_a_suspension(a, A))
    async with running() as parts:
        await parts.view(a)
        parts.spawn(lane(a).store(block(1)))
        part = f"publish {SECRET}"
        await until(lambda: a.board.problems.get(part, "").startswith(Reason.HOST_SUSPENDED))
    assert sent(platform) == []


class SlowPartition:
    """Holds back appends to one partition of the data topic while `open` is not set."""

    def __init__(self, platform: Platform, partition: int) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.held = asyncio.Event()
        self._append = platform.log.append
        self._partition = partition
        platform.log.append = self  # type: ignore[method-assign,assignment]

    async def __call__(self, topic: str, partition: int, records: list[tuple[None, bytes]]) -> int:
        if (topic, partition) == (str(SECRET), self._partition) and not self.open.is_set():
            self.held.set()
            await self.open.wait()
        return await self._append(topic, partition, records)


async def test_a_block_acknowledged_after_the_epoch_start_breaks_no_chain(
    platform: Platform, a: TestHost
) -> None:
    """MUST-7.10: the next block follows the head that its epoch's start names."""
    sets = {str(SECRET): dataset(SECRET, partitions=2)}
    platform.policy = replace(platform.policy, datasets=sets)
    a.open().attest()
    it = SealedLane(a.host, SECRET, NOTES, heads={}, streams=2, note=forget)
    slow, first, other = SlowPartition(platform, 1), block(1), replace(STREAM, partition=1)

    def on(stream: Stream, position: int) -> Block:
        return replace(block(position, after=first.upto), stream=stream)

    async with running() as parts, asyncio.timeout(10):
        await parts.view(a)
        for stream in (STREAM, other):
            await it.store(replace(first, stream=stream))
        slow.open.clear()
        late = parts.spawn(it.store(on(other, 2)))
        await slow.held.wait()
        it._epochs.ask(lanes.Why.RESEAL)
        await it.store(on(STREAM, 2))  # opens the next epoch, which knows the other's first block
        slow.open.set()
        await late
        await it.store(replace(block(3, after=Sequence(1, 2, 2)), stream=other))
    sent_there = [envelope.parse(value) for value in platform.log.values(str(SECRET), 1)]
    assert [e.header.counter for e in sent_there] == [0, 1, 0]
    starts = {opened.hash: opened for opened in map(parse_start, platform.log.values(GRANTS))}
    state, high = None, ZERO
    for item in sent_there:
        opened = starts[item.header.start_hash]
        result = a.host.view.members.result(opened.start.result_id)
        start = verify_start(opened, result, platform.verifier.trust.trust_domain)
        step = judge(state, item.header, item.hash, start=start, high=high)
        assert step.verdict is Verdict.ACCEPT
        state, high = step.state, item.header.upto
