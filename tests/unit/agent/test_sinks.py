"""A target database that goes away and comes back."""

from collections.abc import Sequence as Many
from dataclasses import replace

import pytest

from fabric.agent.measures import Waiting
from fabric.agent.sinks import SinkHolder, target_of
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError
from fabric.model.names import Stream
from fabric.ports import StreamState, Target
from tests.fakes.platform import OPEN, ORIGIN, SECRET, Platform, TestHost, dataset
from tests.fakes.table import MemorySink, MemoryStore


class Sink(MemorySink):
    """Counts lives; fails to open while `away`."""

    made = 0
    away: FabricError | None = None
    closed = 0

    async def open(self, targets: Many[Target]) -> None:
        if Sink.away is not None:
            raise Sink.away
        Sink.made += 1
        await super().open(targets)

    async def close(self) -> None:
        Sink.closed += 1


STREAM = Stream(ORIGIN, SECRET, 0)


def block(position: int, commit_us: int) -> Block:
    rows = [{"id": position, "text": "x"}]
    run = Run(op=Op.UPSERT, position=position, ordinal=1, commit_us=commit_us, rows=rows)
    after = Sequence(1, position - 1, 1) if position > 1 else ZERO
    return Block(stream=STREAM, after=after, upto=Sequence(1, position, 1), runs=(run,))


def state(position: int) -> StreamState:
    return StreamState(
        high=Sequence(1, position, 1), chain=b"", offset=position, cluster="c", topic_id="t",
        incomplete=False,
    )  # fmt: skip


@pytest.fixture
def holder(a: TestHost) -> SinkHolder:
    Sink.made = Sink.closed = 0
    Sink.away = None
    store = MemoryStore()
    return SinkHolder({SECRET: "notes", OPEN: "wards"}, lambda: Sink(store), a.host.view)


async def test_readers_share_one_sink(holder: SinkHolder) -> None:
    assert await holder.use(SECRET) is await holder.use(OPEN)
    assert Sink.made == 1


async def test_a_broken_sink_is_replaced(holder: SinkHolder) -> None:
    first = await holder.use(SECRET)
    await holder.broken(first)
    second = await holder.use(SECRET)
    assert second is not first
    await holder.broken(first)  # another reader's word on the old one
    assert await holder.use(SECRET) is second
    assert (Sink.made, Sink.closed) == (2, 1)


async def test_a_holder_that_is_closed_opens_another_when_it_is_used(holder: SinkHolder) -> None:
    first = await holder.use(SECRET)
    await holder.close()
    await holder.close()
    assert await holder.use(SECRET) is not first


async def test_a_database_that_is_away_is_asked_again(holder: SinkHolder) -> None:
    Sink.away = UnavailableError(Reason.DATABASE_UNAVAILABLE, "database does not answer")
    with pytest.raises(UnavailableError):
        await holder.use(SECRET)
    Sink.away = None
    assert await holder.use(SECRET)


async def test_a_topic_that_is_no_dataset_is_said_and_the_others_go_on(
    platform: Platform, a: TestHost, holder: SinkHolder
) -> None:
    only = replace(platform.policy, version=8, datasets={str(OPEN): dataset(OPEN)})
    a.host.view.take_policy(only)
    assert await holder.use(OPEN)
    with pytest.raises(DeniedError) as caught:
        await holder.use(SECRET)
    assert caught.value.reason is Reason.TOPIC_UNKNOWN
    a.host.view.take_policy(replace(platform.policy, version=9))
    assert await holder.use(SECRET)  # opened anew, now with both
    assert await holder.use(OPEN) is await holder.use(SECRET)


async def test_a_sink_is_opened_anew_once_a_dataset_changed_and_serves_what_it_is_now(
    platform: Platform, a: TestHost, holder: SinkHolder
) -> None:
    first = await holder.use(SECRET)
    changed = {**platform.policy.datasets, str(SECRET): dataset(SECRET, partitions=2)}
    a.host.view.take_policy(replace(platform.policy, version=8, datasets=changed))
    second = await holder.use(SECRET)
    assert isinstance(second, Sink)
    assert second is not first
    assert second._targets[SECRET].partitions == 2
    assert await holder.use(OPEN) is second
    assert (Sink.made, Sink.closed) == (2, 1)


async def test_a_dataset_that_changes_while_its_sink_opens_is_opened_as_it_is_then(
    platform: Platform, a: TestHost, holder: SinkHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**platform.policy.datasets, str(SECRET): dataset(SECRET, partitions=2)}
    opens = Sink.open

    async def slowly(sink: Sink, targets: Many[Target]) -> None:
        await opens(sink, targets)
        a.host.view.take_policy(replace(platform.policy, version=8, datasets=changed))

    monkeypatch.setattr(Sink, "open", slowly)
    sink = await holder.use(SECRET)
    assert isinstance(sink, Sink)
    assert sink._targets[SECRET].partitions == 2


async def test_quarantine_is_counted_while_open(holder: SinkHolder) -> None:
    assert await holder.count_quarantine() == {}
    await holder.use(SECRET)
    assert await holder.count_quarantine() == {SECRET: Waiting(0, 0), OPEN: Waiting(0, 0)}


async def test_the_oldest_parked_change_tells_its_time(a: TestHost) -> None:
    Sink.away, store = None, MemoryStore()
    store.refuses = lambda row: True
    holder = SinkHolder({SECRET: "notes"}, lambda: Sink(store), a.host.view)
    sink = await holder.use(SECRET)
    for place, commit_us in ((1, 5_500_000), (2, 9_000_000)):
        await sink.apply(block(place, commit_us), await sink.state(STREAM), state(place))
    assert await holder.count_quarantine() == {SECRET: Waiting(2, 5.5)}


async def test_a_database_tells_whether_it_answered_last(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sink.away = UnavailableError(Reason.DATABASE_UNAVAILABLE, "database does not answer")
    told: list[Reason | None] = []
    holder = SinkHolder(
        {SECRET: "notes"}, lambda: Sink(MemoryStore()), a.host.view, told=told.append
    )
    with pytest.raises(UnavailableError):
        await holder.use(SECRET)
    Sink.away = None
    await holder.use(SECRET)
    await holder.count_quarantine()

    async def fails(_sink: Sink, _topic: object) -> None:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "database does not answer")

    monkeypatch.setattr(Sink, "quarantined", fails)
    with pytest.raises(UnavailableError):
        await holder.count_quarantine()
    assert told == [Reason.DATABASE_UNAVAILABLE, None, None, Reason.DATABASE_UNAVAILABLE]


async def test_a_sink_that_was_thrown_away_tells_nothing_of_its_database(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sink.away = None
    told: list[Reason | None] = []
    holder = SinkHolder(
        {SECRET: "notes"}, lambda: Sink(MemoryStore()), a.host.view, told=told.append
    )
    sink = await holder.use(SECRET)

    async def closed(_sink: Sink, _topic: object) -> None:
        await holder.broken(sink)
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "target is closed")

    monkeypatch.setattr(Sink, "quarantined", closed)
    with pytest.raises(UnavailableError):
        await holder.count_quarantine()
    assert told == [None]


def test_a_target_is_what_the_policy_says() -> None:
    target = target_of(dataset(SECRET, on_unappliable="stop", partitions=3), "public.notes")
    assert (target.table, target.quarantine, target.partitions) == ("public.notes", False, 3)
    assert target_of(dataset(SECRET), "t").quarantine
