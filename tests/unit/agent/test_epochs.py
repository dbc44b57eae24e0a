"""Epochs at their sender: order of effects, recipients, grants."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.agent.epoch_machine import Why
from fabric.agent.epochs import Epochs
from fabric.agent.lane import allowed
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.label import Label
from fabric.model.names import HostId, grants_topic
from fabric.seal.epoch import parse_start
from fabric.seal.grant import KIND as GRANT
from fabric.seal.grant import parse_grant
from fabric.seal.record import kind_of
from tests.fakes.platform import NOTES, SECRET, A, B, C, Platform, TestHost, dataset
from tests.fakes.running import running

GRANTS = grants_topic(SECRET)


def epochs(host: TestHost, streams: int = 1) -> Epochs:
    return Epochs(host.host, SECRET, heads=list, streams=streams)


async def ready(host: TestHost, it: Epochs) -> int:
    """Number of the epoch for the next block."""
    async with running() as parts, asyncio.timeout(10):
        await parts.view(host)
        found, result = allowed(host.host.view, SECRET, NOTES, host.host.clock.now())
        return (await it.ready(found, result)).served.number


async def grant_late(host: TestHost, it: Epochs) -> int:
    async with running() as parts, asyncio.timeout(10):
        await parts.view(host)
        found, result = allowed(host.host.view, SECRET, NOTES, host.host.clock.now())
        return await it.grant_late(found, result)


def starts(platform: Platform) -> list[frozenset[HostId]]:
    """Recipients of every start in the log, in order."""
    values = [v for v in platform.log.values(GRANTS) if kind_of(v) != GRANT]
    return [frozenset(r.host for r in parse_start(v).start.recipients) for v in values]


async def test_the_secret_is_kept_before_the_start_is_sent(platform: Platform, a: TestHost) -> None:
    a.attest()
    kept_when_sent: list[int] = []

    def judge(topic: str, *_: object) -> FabricError | None:
        kept_when_sent.append(len(a.host.identity.state.epochs(SECRET)))
        return DeniedError(Reason.NOT_A_PRODUCER, "not today")

    platform.log.judge = judge
    with pytest.raises(ExceptionGroup):
        await ready(a, epochs(a))
    assert kept_when_sent == [1]


async def test_a_refused_start_opens_nothing(platform: Platform, a: TestHost) -> None:
    a.attest()
    platform.log.judge = lambda *_: DeniedError(Reason.NOT_A_PRODUCER, "not today")
    it = epochs(a)
    with pytest.raises(ExceptionGroup):
        await ready(a, it)
    assert it.current is None


async def test_only_who_may_read_gets_a_wrap(platform: Platform, a: TestHost, b: TestHost,
                                             tmp_path: Path) -> None:  # fmt: skip
    platform.policy = replace(
        platform.policy,
        datasets={str(SECRET): dataset(SECRET, consumers=("G02/health", "G03/statistics"))},
    )
    c = TestHost(platform, C, tmp_path / "c").open()
    a.open().attest()
    b.attest()
    c.attest(clearance=Label.parse("internal"))
    await ready(a, epochs(a))
    assert starts(platform) == [frozenset({A, B})]


async def test_the_same_epoch_serves_until_something_changes(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    it = epochs(a)
    first = await ready(a, it)
    assert await ready(a, it) == first
    b.attest()  # a renewed result is the same recipient
    assert await ready(a, it) == first
    platform.suspend(B)
    a.attest()
    assert await ready(a, it) == first + 1
    assert starts(platform)[-1] == frozenset({A})


async def test_a_reseal_opens_a_new_epoch(a: TestHost) -> None:
    a.attest()
    it = epochs(a)
    first = await ready(a, it)
    it.ask(Why.RESEAL)
    assert await ready(a, it) == first + 1
    assert await ready(a, it) == first + 1


async def test_a_fresh_state_file_says_that_chains_begin_anew(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    await ready(a, epochs(a))
    (value,) = platform.log.values(GRANTS)
    start = parse_start(value).start
    assert start.chain_reset
    assert start.number >= int(platform.clock.now().timestamp()) - 60


async def test_under_retained_a_late_host_is_granted_every_kept_epoch(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    await ready(a, it)
    it.ask(Why.RESEAL)
    await ready(a, it)
    b.attest()
    assert await grant_late(a, it) == 2
    assert await grant_late(a, it) == 0
    granted = [parse_grant(v).grant for v in platform.log.values(GRANTS) if kind_of(v) == GRANT]
    assert [[r.host for r in grant.recipients] for grant in granted] == [[B], [B]]


async def test_a_host_that_was_granted_late_can_be_lost_too(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    first = await ready(a, it)
    b.attest()
    await grant_late(a, it)
    platform.suspend(B)
    a.attest()
    assert await ready(a, it) == first + 1


async def test_from_join_grants_nothing_of_the_past(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    sets = {str(SECRET): dataset(SECRET, history="from_join")}
    platform.policy = replace(platform.policy, datasets=sets)
    a.open().attest()
    it = epochs(a)
    await ready(a, it)
    b.attest()
    assert await grant_late(a, it) == 0
