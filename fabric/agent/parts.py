"""Build the parts of an agent from its configuration: captures, applies, subscriptions."""

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence

from fabric.agent.host import BlockTarget, Host
from fabric.agent.lane import Lane, SealedLane
from fabric.agent.log_check import log_name, lost
from fabric.agent.open_lane import OpenLane
from fabric.agent.open_reading import OpenReader
from fabric.agent.progress import Progress
from fabric.agent.publish_machine import Feed, Limits
from fabric.agent.publishing import Plan, Publisher
from fabric.agent.reading import SealedReader
from fabric.agent.receipting import Receipting
from fabric.agent.sinks import SinkHolder
from fabric.agent.subscription import Subscription
from fabric.agent.supervisor import cause_of
from fabric.config import BlockConfig
from fabric.model.errors import DeniedError, Reason, UsageError
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.ports import ChangeSource, SourceTable
from fabric.store.state import StateFile, StreamHead

_ATTEST_S_MAX = 10.0


def is_sealed(host: Host, dataset: Dataset) -> bool:
    """Whether the dataset's level is a sealed one."""
    return decide.rule_of(host.view.policy, dataset).sealed


def source_tables(host: Host, tables: Mapping[str, Topic]) -> list[SourceTable]:
    """What a source is to read; raises DeniedError TOPIC_UNKNOWN."""
    policy = host.view.policy
    return [
        SourceTable(table=table, topic=topic, schema=decide.dataset_of(policy, str(topic)).schema)
        for table, topic in tables.items()
    ]


def origin_of(me: HostId, source: str) -> Origin:
    """The origin that a capture of this host feeds."""
    return Origin(me.agency, me.system, source)


async def publisher(
    host: Host, part: str, source: str, *, reads: ChangeSource, topics: Sequence[Topic],
    block: BlockConfig, stop: asyncio.Event,
) -> Publisher:  # fmt: skip
    """A capture ready to run, from what the state file remembers.

    Args:
        part: name on the status board.
        source: the capture's name.
        reads: the source, not open yet.

    Raises:
        DeniedError: TOPIC_UNKNOWN, a topic is no dataset of the policy.
        UsageError: POLICY_INVALID, a dataset has other partitions or another salt than
            those by which its rows were sent.
    """
    feeds = [_feed(host, topic) for topic in topics]
    state = host.identity.state
    heads = await _heads(host, source, topics)
    for feed in feeds:
        await asyncio.to_thread(_keep_partitioning, state, feed, was_sent=bool(heads[feed.topic]))
    resume = await asyncio.to_thread(state.source, source)
    progress = Progress(source, host.identity)
    lanes: dict[Topic, Lane] = {}
    for feed in feeds:
        dataset = decide.dataset_of(host.view.policy, str(feed.topic))
        host.telemetry.publishes(feed.topic, dataset.suite, source)
        if feed.sealed:
            lanes[feed.topic] = SealedLane(
                host,
                feed.topic,
                feed.schema,
                heads=heads[feed.topic],
                streams=feed.partitions,
                note=progress.note,
                log=log_name(await host.log.identity(str(feed.topic))),
            )
        else:
            lanes[feed.topic] = OpenLane(host, feed.topic, feed.schema)
    plan = Plan(
        part=part,
        origin=origin_of(host.view.me, source),
        feeds=feeds,
        limits=Limits(
            changes_max=block.changes_max,
            bytes_max=block.bytes_max,
            linger_s=block.linger_s,
            silence_s=block.silence_s,
        ),
        resume=resume,
        upto={stream: item.upto for found in heads.values() for stream, item in found.items()},
    )
    return Publisher(host, plan, reads, lanes=lanes, progress=progress, stop=stop)


async def _heads(
    host: Host, source: str, topics: Sequence[Topic]
) -> Mapping[Topic, Mapping[Stream, StreamHead]]:
    """What was acknowledged in earlier lives; nothing, where the log has forgotten some of it."""
    state = host.identity.state
    heads = {topic: await asyncio.to_thread(state.heads, topic) for topic in topics}
    gone = [stream for found in heads.values() for stream in await lost(host.log, found)]
    if not gone:
        return heads
    for stream in gone:
        host.telemetry.log_went_back(stream)
    await _attest_anew(host)
    await asyncio.to_thread(state.forget_source, source, topics)
    return {topic: {} for topic in topics}


def _keep_partitioning(state: StateFile, feed: Feed, *, was_sent: bool) -> None:
    """Remember how a dataset's rows are shared out, and hold on to it while the log has some.

    A key on another partition than before has no order with what was sent of it: nothing
    that readers check shows when its row goes back (ADR 27).
    """
    name = f"partitioning:{feed.topic}"
    now = hashlib.sha256(f"{feed.partitions}:".encode() + feed.salt).digest()
    before = state.get(name)
    if before is not None and before != now and was_sent:
        raise UsageError(
            Reason.POLICY_INVALID,
            f"policy: {feed.topic}: has other partitions or another salt than its rows were sent"
            " by; give it those again, or publish it under another name",
        )
    if before != now:
        state.put(name, now)


async def _attest_anew(host: Host) -> None:
    """Ask for a result and wait for it, not for ever.

    Our last one may be gone with our blocks, and nobody who comes later could verify what
    names it. Attesting shows why none comes.
    """
    before = _result_id(host)
    host.view.changed_policy.ring()  # attesting begins early, too, when the policy changes
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ATTEST_S_MAX):
            while _result_id(host) in (None, before):
                await host.view.changed.wait(_ATTEST_S_MAX)


def _result_id(host: Host) -> bytes | None:
    try:
        return host.view.current(host.clock.now()).id
    except DeniedError:
        return None


def _feed(host: Host, topic: Topic) -> Feed:
    dataset = decide.dataset_of(host.view.policy, str(topic))
    return Feed(
        topic=topic,
        schema=dataset.schema,
        partitions=dataset.partitions,
        salt=dataset.salt,
        sealed=is_sealed(host, dataset),
    )


def datasets_of(host: Host, topics: Sequence[Topic]) -> list[Dataset]:
    """What the policy says of topics now; raises DeniedError TOPIC_UNKNOWN."""
    policy = host.view.policy
    return [decide.dataset_of(policy, str(topic)) for topic in topics]


def forget_withdrawn(host: Host, topics: Sequence[Topic]) -> None:
    """Show nothing any more of those topics that are no datasets of the policy."""
    for topic in topics:
        if host.view.dataset(topic) is None:
            host.telemetry.publishes_no_more(topic)


async def run_publisher(host: Host, made: Publisher, datasets: Sequence[Dataset]) -> None:
    """Run a capture until it is stopped, or the policy of a dataset changes.

    Args:
        datasets: as they were before its source and its publisher were made, which may
            take a while: what they were made for must still hold.
    """
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(host.view.until_changed(*datasets))
        await made.run()
        watch.cancel()


async def read_partition(
    host: Host,
    part: str,
    dataset: Dataset,
    partition: int,
    target: BlockTarget,
    *,
    receipts: Receipting | None = None,
) -> None:
    """Read one partition into `target`, for ever; raises as the readers do."""
    host.telemetry.reads(dataset.topic, dataset.suite)
    reader: SealedReader | OpenReader
    if is_sealed(host, dataset):
        reader = SealedReader(host, dataset, partition, sink=target, part=part, receipts=receipts)
    else:
        reader = OpenReader(host, dataset, partition, sink=target, part=part)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.view.until_changed(dataset))
        tasks.create_task(reader.run())


async def apply_partition(
    host: Host, part: str, holder: SinkHolder, topic: Topic, partition: int
) -> None:
    """Apply one partition to a target database; a database that failed is opened anew."""
    sink = await holder.use(topic)
    dataset = decide.dataset_of(host.view.policy, str(topic))
    try:
        receipts = _receipting(host, dataset)
        await read_partition(host, part, dataset, partition, sink, receipts=receipts)
    except BaseException as exc:
        cause = cause_of(exc)
        if cause is not None and cause.reason is Reason.DATABASE_UNAVAILABLE:
            await holder.broken(sink)
        raise


def _receipting(host: Host, dataset: Dataset) -> Receipting | None:
    """Receipts are for sealed datasets that go to a database, unless the settings say no."""
    wanted = host.receipts.enabled and str(dataset.topic) not in host.receipts.without
    if not wanted or not is_sealed(host, dataset):
        return None
    return Receipting(host, dataset, interval_s=host.receipts.interval_s)


async def subscribe_partition(
    host: Host, part: str, subscription: Subscription, topic: Topic, partition: int
) -> None:
    """Read one partition for a subscriber."""
    dataset = decide.dataset_of(host.view.policy, str(topic))
    await read_partition(host, part, dataset, partition, subscription)
