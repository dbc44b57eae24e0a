"""Readers follow the policy: what is published is read, what is withdrawn is waited for."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from fabric.agent import readers
from fabric.agent.parts import datasets_of
from fabric.agent.readers import Readers, Reading
from fabric.agent.subscription import Subscription
from fabric.config import Apply
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import Topic
from fabric.policy.types import Dataset
from tests.fakes.platform import OPEN, SECRET, Platform, TestHost, dataset
from tests.fakes.running import Running, running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemorySink, MemoryStore

ROWS = [{"id": number, "text": "x"} for number in range(20)]


def declare(platform: Platform, hosts: list[TestHost], *found: Dataset) -> None:
    """Publish a policy with these datasets and no others."""
    datasets = {str(item.topic): item for item in found}
    version = platform.policy.version + 1
    platform.policy = replace(platform.policy, version=version, datasets=datasets)
    for host in hosts:
        host.host.view.take_policy(platform.policy)


def readers_of(host: TestHost, parts: Running) -> Readers:
    return Readers(host.host, parts.spawn, custody_after_s=60)


def target(*topics: Topic) -> Apply:
    return Apply(kind="sqlite", url="x", tables={str(topic): str(topic) for topic in topics})


def kept(host: TestHost, topic: Topic) -> tuple[Reading, list[int]]:
    """A reading that notes which partitions were begun, and begins anew as readers do."""
    begun: list[int] = []

    async def read(part: str, partition: int) -> None:
        begun.append(partition)
        host.board.show(part, None)
        await host.host.view.until_changed(*datasets_of(host.host, [topic]))

    return Reading(topic=topic, name=(f"apply {topic}", ""), read=read), begun


def reader_parts(host: TestHost, topic: Topic) -> list[str]:
    return sorted(part for part in host.board.parts if part.startswith(f"apply {topic}:"))


async def settled() -> None:
    """Let everyone whom a bell woke have a few turns."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_dataset_that_is_published_later_is_read_on_every_partition_once(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(SECRET))
    reading, begun = kept(b, OPEN)
    async with running() as parts:
        parts.spawn(readers_of(b, parts).keep(reading))
        await until(lambda: "topic_unknown" in b.board.problems.get(f"apply {OPEN}:0", ""))
        assert "waits until it is" in b.board.problems[f"apply {OPEN}:0"]
        declare(platform, [b], dataset(SECRET), dataset(OPEN, partitions=3))
        await until(lambda: len(begun) == 3)
        declare(platform, [b], dataset(OPEN, partitions=3))
        await settled()
        assert sorted(begun) == [0, 1, 2]
        assert not b.board.problems


async def test_a_dataset_that_is_withdrawn_is_waited_for_without_a_restart(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(OPEN, partitions=2))
    reading, begun = kept(b, OPEN)
    async with running() as parts:
        parts.spawn(readers_of(b, parts).keep(reading))
        await until(lambda: len(begun) == 2)
        declare(platform, [b])
        await until(lambda: "topic_unknown" in b.board.problems.get(f"apply {OPEN}:0", ""))
        await until(lambda: reader_parts(b, OPEN) == [f"apply {OPEN}:0"])
        declare(platform, [b], dataset(SECRET))
        await settled()
        assert len(begun) == 2
        declare(platform, [b], dataset(OPEN, partitions=2))
        await until(lambda: sorted(begun) == [0, 0, 1, 1])
        assert not b.board.problems


async def test_who_keeps_a_topic_has_ended_when_its_readers_have(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(OPEN, partitions=2))
    begun: list[int] = []

    async def read(part: str, partition: int) -> None:
        b.board.show(part, None)
        begun.append(partition)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)

    async with running() as parts:
        reading = Reading(topic=OPEN, name=(f"apply {OPEN}", ""), read=read)
        kept = parts.spawn(readers_of(b, parts).keep(reading))
        await until(lambda: len(begun) == 2)
        kept.cancel()
        await asyncio.wait([kept])
        assert reader_parts(b, OPEN) == []


async def test_a_partition_that_a_dataset_has_no_more_is_read_no_more(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(OPEN, partitions=2))
    reading, begun = kept(b, OPEN)
    async with running() as parts:
        parts.spawn(readers_of(b, parts).keep(reading))
        await until(lambda: len(begun) == 2)
        declare(platform, [b], dataset(OPEN))
        await until(lambda: begun[2:] == [0])
        await until(lambda: reader_parts(b, OPEN) == [f"apply {OPEN}:0"])


async def test_a_sealed_dataset_that_is_published_later_is_opened_and_applied(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    monkeypatch.setattr(readers, "open_sink", lambda _kind, _url: MemorySink(store))
    declare(platform, [a, b], dataset(OPEN))
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b)
        readers_of(b, parts).apply(0, target(SECRET, OPEN))
        await until(lambda: "topic_unknown" in b.board.problems.get(f"apply {SECRET}:0", ""))
        assert f"grants {SECRET}" not in b.board.parts
        declare(platform, [a, b], dataset(OPEN), dataset(SECRET, partitions=2))
        database.upsert(table(), ROWS)
        parts.capture(a, database)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        assert {f"grants {SECRET}", f"custody {SECRET}"} <= b.board.parts.keys()
        await until(lambda: not b.board.problems)


async def test_a_subscriber_gets_every_partition_of_what_is_published_later_until_it_leaves(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    declare(platform, [a, b], dataset(SECRET))
    database = MemoryDatabase([table(OPEN)])
    a.attest()
    subscription, got = Subscription(b.host.identity, OPEN), set()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b)
        reading = parts.spawn(readers_of(b, parts).subscribe(OPEN, subscription))
        await until(lambda: "topic_unknown" in b.board.problems.get(f"subscribe {OPEN}:0", ""))
        declare(platform, [a, b], dataset(SECRET), dataset(OPEN, partitions=2))
        database.upsert(table(OPEN), ROWS)
        parts.capture(a, database, OPEN)
        async with asyncio.timeout(60):
            while len(got) < len(ROWS):
                found = list((await subscription.next()).changes())
                got |= {change.row["id"] for change, _ in found if change.row}
        reading.cancel()
        await until(lambda: not any("subscribe" in part for part in b.board.parts))


async def test_a_dataset_that_is_withdrawn_is_shown_no_more_and_again_when_it_comes_back(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(SECRET, partitions=2), dataset(OPEN))
    reading, begun = kept(b, SECRET)
    measured = "fabric_consumer_lag_timestamp_seconds"
    of_topic = {f"grants {SECRET}", f"custody {SECRET}"}
    async with running() as parts:
        parts.spawn(readers_of(b, parts).keep(reading))
        await until(lambda: len(begun) == 2)
        assert b.metric("fabric_consumer_lag_records") == 0
        for partition in (0, 1):
            b.host.telemetry.lag(SECRET, partition, records=3, heard_s=31)
        await until(lambda: of_topic <= b.board.parts.keys())
        declare(platform, [b], dataset(OPEN))
        await until(lambda: not b.shows(measured))
        waits = {f"apply {SECRET}:0", f"apply {SECRET}"}
        await until(lambda: b.board.parts.keys() == waits)
        assert not b.shows("fabric_stream_silent")
        declare(platform, [b], dataset(SECRET, partitions=2), dataset(OPEN))
        await until(lambda: sorted(begun) == [0, 0, 1, 1])
        await until(lambda: of_topic <= b.board.parts.keys())
        assert b.shows(measured)


async def test_what_was_never_read_since_the_start_is_shown_as_never_measured(
    platform: Platform, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_database(kind: str, url: str) -> MemorySink:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "it is away")

    monkeypatch.setattr(readers, "open_sink", no_database)
    declare(platform, [b], dataset(SECRET, partitions=2), dataset(OPEN))
    denied = DeniedError(Reason.NOT_A_CONSUMER, "no right to read")
    labels = [(SECRET, "0"), (SECRET, "1"), (OPEN, "0")]
    registry, name = b.metrics.registry, "fabric_consumer_lag_timestamp_seconds"

    async def read(part: str, partition: int) -> None:
        raise denied

    async with running() as parts:
        of_b = readers_of(b, parts)
        of_b.apply(0, target(SECRET))
        parts.spawn(of_b.keep(Reading(topic=OPEN, name=(f"subscribe {OPEN}", ""), read=read)))
        reasons = {Reason.DATABASE_UNAVAILABLE, Reason.NOT_A_CONSUMER}
        await until(lambda: reasons <= {*b.board.reasons().values()})
        for topic, partition in labels:
            place = {"topic": str(topic), "partition": partition, "level": topic.level}
            assert registry.get_sample_value(name, place) == 0
        assert not b.shows("fabric_consumer_lag_seconds")


async def test_the_lag_of_what_a_subscriber_read_goes_with_it(
    platform: Platform, b: TestHost
) -> None:
    declare(platform, [b], dataset(OPEN))
    b.attest()
    async with running() as parts:
        await parts.view(b)
        subscription = Subscription(b.host.identity, OPEN)
        reading = parts.spawn(readers_of(b, parts).subscribe(OPEN, subscription))
        await until(lambda: b.metric("fabric_consumer_lag_timestamp_seconds") > 0)
        reading.cancel()
        await until(lambda: not b.shows("fabric_consumer_lag_timestamp_seconds"))


async def test_what_is_parked_of_a_withdrawn_dataset_is_counted_no_more(
    platform: Platform, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "open_sink", lambda _kind, _url: MemorySink(MemoryStore()))
    monkeypatch.setattr(readers, "_COUNT_S", 0.01)
    declare(platform, [b], dataset(OPEN))
    b.attest()
    async with running() as parts:
        await parts.view(b)
        readers_of(b, parts).apply(0, target(OPEN))
        await until(lambda: b.shows("fabric_quarantine_records"))
        declare(platform, [b])
        await until(lambda: not b.shows("fabric_quarantine_records"))
        await asyncio.sleep(0.1)
        assert not b.shows("fabric_quarantine_records")


async def test_grants_of_a_sealed_topic_are_followed_once_and_of_an_open_one_never(
    b: TestHost,
) -> None:
    spawned: list[Coroutine[object, object, None]] = []
    spawn: Callable[..., None] = spawned.append
    it = Readers(b.host, spawn, custody_after_s=60)
    for topic in (SECRET, OPEN, SECRET):
        it.follow_grants(topic)
    assert len(spawned) == 2  # the follower and the custody
    for part in spawned:
        part.close()


async def test_targets_of_one_topic_have_parts_of_their_own(
    b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "open_sink", lambda _kind, _url: MemorySink(MemoryStore()))
    async with running() as parts:
        it = readers_of(b, parts)
        it.apply(0, target(OPEN))
        it.apply(1, target(OPEN))
        wanted = [f"apply {OPEN}:0", f"apply {OPEN}:0 (1)"]
        await until(lambda: reader_parts(b, OPEN) == wanted)
        assert {"quarantine 0", "quarantine 1"} <= b.board.parts.keys()


async def test_targets_are_closed_when_nobody_reads_any_more(
    platform: Platform, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Sink(MemorySink):
        async def close(self) -> None:
            closed.append("closed")

    monkeypatch.setattr(readers, "open_sink", lambda *_: Sink(MemoryStore()))
    declare(platform, [b], dataset(OPEN))
    async with running() as parts:
        read = readers_of(b, parts)
        read.apply(0, target(OPEN))
        await until(lambda: any(h._sink is not None for h in read._holders))
    await read.close()
    assert closed == ["closed"]


async def test_a_target_answers_also_where_nobody_may_read_what_it_is_for(
    platform: Platform, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = platform.log.bounds

    async def denied(topic: str, partition: int) -> tuple[int, int]:
        if topic == str(OPEN):
            raise DeniedError(Reason.NOT_A_CONSUMER, "the broker denies reading")
        return await bounds(topic, partition)

    monkeypatch.setattr(readers, "open_sink", lambda _kind, _url: MemorySink(MemoryStore()))
    monkeypatch.setattr(platform.log, "bounds", denied)
    declare(platform, [b], dataset(OPEN))
    b.attest()
    async with running() as parts:
        await parts.view(b)
        readers_of(b, parts).apply(0, target(OPEN))
        await until(lambda: "not_a_consumer" in b.board.problems.get(f"apply {OPEN}:0", ""))
        assert b.metric("fabric_database_up", kind="target", database="0") == 1
