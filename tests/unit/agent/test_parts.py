"""Parts built from policy and state file."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from fabric.agent import parts as parts_of_agent
from fabric.agent.host import Host
from fabric.agent.lane import SealedLane
from fabric.agent.open_lane import OpenLane
from fabric.agent.parts import (
    forget_withdrawn,
    is_sealed,
    origin_of,
    publisher,
    run_publisher,
    source_tables,
)
from fabric.agent.publishing import Publisher
from fabric.agent.sinks import SinkHolder
from fabric.database import postgresql_sink
from fabric.database.postgresql_sink import PostgresSink
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import DeniedError, Reason, UsageError
from fabric.model.names import Stream, Topic
from fabric.policy.types import Dataset
from fabric.ports import Target
from fabric.store.state import SourceState, StreamHead
from tests.contract import postgresql_world
from tests.contract.postgresql_world import Application
from tests.fakes.platform import NOTES, OPEN, ORIGIN, SECRET, A, Platform, TestHost, dataset
from tests.fakes.running import BLOCK, running, table, until
from tests.fakes.source import MemoryDatabase, MemorySource

database = postgresql_world.database


async def test_a_capture_is_built_from_what_is_remembered(a: TestHost) -> None:
    state = a.host.identity.state
    upto = ChangeSequence(7, 5, 1)
    state.save_heads([StreamHead(stream=Stream(ORIGIN, OPEN, 0), head=None, upto=upto)])
    state.save_source("main", SourceState(generation=7, position=5, resume="token"))
    made = await publisher(
        a.host,
        "capture main",
        "main",
        reads=MemorySource(MemoryDatabase([table()])),
        topics=[SECRET, OPEN],
        block=BLOCK,
        stop=asyncio.Event(),
    )
    plan = made._plan
    assert plan.origin == ORIGIN
    assert plan.resume is not None
    assert plan.resume.resume == "token"
    assert plan.upto == {Stream(ORIGIN, OPEN, 0): upto}
    assert [feed.sealed for feed in plan.feeds] == [True, False]
    assert isinstance(made._lanes[SECRET], SealedLane)
    assert isinstance(made._lanes[OPEN], OpenLane)


async def test_a_policy_that_changes_while_a_capture_is_built_ends_it(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = MemoryDatabase([table()])
    for host in (a, b):
        host.attest()
    view = a.host.view

    async def attest_anew(host: Host) -> None:
        sets = {**view.policy.datasets, str(SECRET): dataset(SECRET, retention_s=1)}
        view.take_policy(replace(view.policy, version=view.policy.version + 1, datasets=sets))

    monkeypatch.setattr(parts_of_agent, "_attest_anew", attest_anew)
    database.upsert(table(), [{"id": 1, "text": "x"}])
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)
    platform.log.records[str(SECRET), 0].clear()
    lives: list[list[Dataset]] = []

    async def run(host: Host, made: Publisher, datasets: list[Dataset]) -> None:
        lives.append(datasets)
        await run_publisher(host, made, datasets)

    monkeypatch.setattr("tests.fakes.running.run_publisher", run)
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: len(lives) == 2)
    assert [each.retention_s for (each,) in lives] == [dataset(SECRET).retention_s, 1]


async def _capture(a: TestHost) -> None:
    """Build a capture of the secret dataset."""
    await publisher(
        a.host, "capture main", "main", reads=MemorySource(MemoryDatabase([table()])),
        topics=[SECRET], block=BLOCK, stop=asyncio.Event(),
    )  # fmt: skip


def _declare(a: TestHost, **fields: Any) -> None:
    policy = a.host.view.policy
    sets = {**policy.datasets, str(SECRET): dataset(SECRET, **fields)}
    a.platform.policy = replace(policy, version=policy.version + 1, datasets=sets)
    a.host.view.take_policy(a.platform.policy)


@pytest.mark.parametrize("other", [{"partitions": 2}, {"salt": bytes(32)}])
async def test_a_dataset_that_comes_back_with_another_partitioning_is_not_sent(
    platform: Platform, a: TestHost, other: dict[str, Any]
) -> None:
    """Its keys would move to streams that have no order with what lies in the log."""
    await _sent(platform, a)
    _declare(a, **other)
    for _ in range(2):  # a refusal is no reason to remember the other one
        with pytest.raises(UsageError, match="another name") as caught:
            await _capture(a)
    assert caught.value.reason is Reason.POLICY_INVALID
    _declare(a)
    await _capture(a)


async def test_a_dataset_that_was_never_sent_or_whose_log_is_gone_may_be_partitioned_anew(
    platform: Platform, a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_of_agent, "_ATTEST_S_MAX", 0.05)  # nobody gives a result here
    await _capture(a)
    _declare(a, salt=bytes(32))
    await _sent(platform, a)
    platform.log.records[str(SECRET), 0].clear()
    _declare(a)
    await _capture(a)


async def _sent(platform: Platform, a: TestHost) -> None:
    """A row of A's is in the log, and A remembers it."""
    a.attest()
    database = MemoryDatabase([table()])
    database.upsert(table(), [{"id": 1, "text": "x"}])
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)


def test_a_source_reads_only_what_policy_knows(a: TestHost) -> None:
    (one,) = source_tables(a.host, {"public.notes": SECRET})
    assert (one.table, one.topic, one.schema) == ("public.notes", SECRET, NOTES)
    with pytest.raises(DeniedError) as caught:
        source_tables(a.host, {"t": Topic.parse("secret.G01.unknown")})
    assert caught.value.reason is Reason.TOPIC_UNKNOWN


def test_a_sender_shows_no_more_of_what_was_withdrawn_and_goes_on_showing_the_rest(
    platform: Platform, a: TestHost
) -> None:
    for topic in (SECRET, OPEN):
        a.host.telemetry.held(topic, Reason.NOT_A_PRODUCER, "")
    version, left = platform.policy.version + 1, {str(OPEN): dataset(OPEN)}
    a.host.view.take_policy(replace(platform.policy, version=version, datasets=left))
    forget_withdrawn(a.host, [SECRET, OPEN])
    assert a.board.parts.keys() == {f"publish {OPEN}"}


def test_levels_say_which_form_a_dataset_takes(a: TestHost) -> None:
    assert is_sealed(a.host, dataset(SECRET))
    assert not is_sealed(a.host, dataset(OPEN))


def test_an_origin_is_of_the_system_and_not_of_the_host() -> None:
    assert str(origin_of(A, "main")) == "G01/registry/main"


class CountedSink(PostgresSink):
    """Counts its lives."""

    made = 0

    async def open(self, targets: Sequence[Target]) -> None:
        CountedSink.made += 1
        await super().open(targets)


@pytest.mark.integration
@pytest.mark.parametrize("child", [SECRET, OPEN])
@pytest.mark.parametrize("comes", [True, False])
async def test_a_foreign_key_waits_for_a_stream_of_the_same_apply_and_cuts_it_not_off(
    database: str, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch, child: Topic,
    comes: bool,
) -> None:  # fmt: skip
    application = Application(database)
    await application.run("CREATE TABLE parents (id bigint PRIMARY KEY, text text NOT NULL)")
    await application.run(
        "CREATE TABLE children (id bigint PRIMARY KEY REFERENCES parents, text text NOT NULL)"
    )
    monkeypatch.setattr(postgresql_sink, "_WAIT_S_MAX", 60.0 if comes else 2.5)
    CountedSink.made, parent = 0, OPEN if child is SECRET else SECRET
    tables = {child: "children", parent: "parents"}
    source = MemoryDatabase([table(child), table(parent)])
    for host in (a, b):
        host.attest()

    async def held(name: str, row: int) -> bool:
        return row in {each["id"] for each in await application.rows(name)}

    async with running() as parts:
        await parts.view(a, SECRET)
        await parts.view(b, SECRET)
        parts.capture(a, source, child, parent)
        holder = SinkHolder(tables, lambda: CountedSink(database), b.host.view)
        for topic in tables:
            parts.apply(b, holder, topic)
        source.upsert(table(child), [{"id": 1, "text": "x"}])
        why = "table children: a foreign key waits for rows of another stream"
        waits = {f"apply {child}:0": f"not_ready: {why}"}
        await until(lambda: waits.items() <= b.board.problems.items())
        source.upsert(table(parent), [{"id": 1 if comes else 2, "text": "x"}])
        async with asyncio.timeout(30):
            while not await held("parents", 1 if comes else 2):
                await asyncio.sleep(0.02)
            if not comes:
                source.upsert(table(child), [{"id": 2, "text": "x"}])
            while not await held("children", 1 if comes else 2):
                await asyncio.sleep(0.02)
        await until(lambda: b.board.is_ready)
        assert len(await (await holder.use(child)).quarantined(child)) == (not comes)
        assert CountedSink.made == 1
        await holder.close()


@pytest.mark.integration
@pytest.mark.parametrize("topic", [SECRET, OPEN])
async def test_a_locked_table_is_named_with_who_locks_it_and_the_others_of_the_apply_go_on(
    database: str, a: TestHost, b: TestHost, topic: Topic
) -> None:
    application = Application(database)
    await application.run("CREATE TABLE locked (id bigint PRIMARY KEY, text text NOT NULL)")
    CountedSink.made, free = 0, OPEN if topic is SECRET else SECRET
    tables = {topic: "locked", free: "free"}
    source = MemoryDatabase([table(topic), table(free)])
    for host in (a, b):
        host.attest()

    async def until_held(name: str, row: int) -> None:
        async with asyncio.timeout(15):
            while row not in {each["id"] for each in await application.rows(name)}:
                await asyncio.sleep(0.02)

    async with running() as parts:
        await parts.view(a, SECRET)
        await parts.view(b, SECRET)
        parts.capture(a, source, topic, free)
        holder = SinkHolder(tables, lambda: CountedSink(database), b.host.view)
        for each in tables:
            parts.apply(b, holder, each)
        source.upsert(table(topic), [{"id": 1, "text": "x"}])
        await until_held("locked", 1)
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("ALTER TABLE locked ADD COLUMN more text")
            source.upsert(table(topic), [{"id": 2, "text": "x"}])
            why = f"not_ready: table locked: waits for a lock; process {other.info.backend_pid} ("
            part = f"apply {topic}:0"
            await until(lambda: b.board.problems.get(part, "").startswith(why))
            source.upsert(table(free), [{"id": 1, "text": "x"}])
            await until_held("free", 1)
            assert b.board.problems.keys() == {part}
        await until_held("locked", 2)
        await until(lambda: b.board.is_ready)
        assert CountedSink.made == 1
        await holder.close()
