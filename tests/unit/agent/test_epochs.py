"""Epochs at their sender: order of effects, recipients, grants."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fabric.agent import pace
from fabric.agent.epoch_machine import JOIN_BATCH_S, Why
from fabric.agent.epochs import Epochs
from fabric.agent.lane import allowed
from fabric.attest.keys import Kem, Use
from fabric.attest.members import notice_record
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError
from fabric.model.label import Label
from fabric.model.limits import EPOCH_AGE_S_MAX, RESEAL_INTERVAL_S, TICK_GRANTS_S_MAX
from fabric.model.names import MEMBERS, HostId, grants_topic
from fabric.policy.types import SuiteRule
from fabric.seal.epoch import Wrapped, parse_start, wrap_start
from fabric.seal.grant import KIND as GRANT
from fabric.seal.grant import parse_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.record import kind_of
from tests.fakes.approvals import approved
from tests.fakes.platform import NOTES, SECRET, A, B, C, Platform, TestHost, dataset
from tests.fakes.running import running
from tests.fakes.verifier import a_state, unfit
from tests.support.cost import wraps_cpu_s

GRANTS = grants_topic(SECRET)


def epochs(host: TestHost, streams: int = 1) -> Epochs:
    return Epochs(host.host, SECRET, heads=list, streams=streams)


async def ready(host: TestHost, it: Epochs) -> int:
    """Number of the epoch for the next block."""
    async with running() as parts, asyncio.timeout(10):
        await parts.view(host)
        found, result = allowed(host.host.view, SECRET, NOTES, host.host.clock.now())
        return (await it.ready(found, result)).served.number


async def maintain(host: TestHost, it: Epochs) -> None:
    async with running() as parts, asyncio.timeout(10):
        await parts.view(host)
        found, _ = allowed(host.host.view, SECRET, NOTES, host.host.clock.now())
        await it.prepare(found)


async def grant_late(host: TestHost, it: Epochs) -> int:
    async with running() as parts, asyncio.timeout(10):
        await parts.view(host)
        found, result = allowed(host.host.view, SECRET, NOTES, host.host.clock.now())
        return await it.grant_late(found, result)


def learn_of_a_suspension(host: TestHost, of: HostId) -> None:
    """Suspend a host, and let the other's view have it at once."""
    platform = host.platform
    platform.suspend(of)
    notice = notice_record(platform.given[-1], platform.verifier.signers)
    host.host.view.take(MEMBERS, *notice)


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


async def test_a_gateway_that_refuses_starts_is_sent_one_in_ten_seconds_or_after_a_new_result(
    platform: Platform, a: TestHost
) -> None:
    """Each start that is sent is kept: a cause that stands must not fill the state file."""
    a.attest()
    why = DeniedError(Reason.FROM_THE_FUTURE, "start is ahead of the gateway's clock")
    platform.log.judge = lambda topic, *_: why if topic == GRANTS else None
    it, state = epochs(a), a.host.identity.state

    async def turned_away(times: int) -> int:
        for _ in range(times):
            with pytest.raises(ExceptionGroup) as caught:
                await ready(a, it)
            assert caught.group_contains(DeniedError, match="from_the_future")
        return len(state.epochs(SECRET))

    assert await turned_away(5) == 1
    platform.clock.ahead += timedelta(seconds=RESEAL_INTERVAL_S)
    assert await turned_away(5) == 2
    a.attest()
    assert await turned_away(5) == 3
    platform.log.judge = None
    a.attest()
    await ready(a, it)
    assert it.current is not None


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


async def test_a_recipient_whose_key_takes_no_wrap_is_left_out_and_named_once(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    it = epochs(a)
    first = await ready(a, it)
    b.attest(bound=unfit(b.keys.bound))
    assert await ready(a, it) == first
    platform.clock.ahead += timedelta(seconds=600)  # as long as a result lives
    a.attest()
    b.attest(bound=unfit(b.keys.bound))
    assert await ready(a, it) == first
    await maintain(a, it)
    assert await ready(a, it) == first + 1
    assert await grant_late(a, it) == 0
    a.attest()
    assert await ready(a, it) == first + 1
    assert starts(platform) == [frozenset({A, B}), frozenset({A})]
    named = {"topic": str(SECRET), "host": str(B), "reason": "malformed"}
    assert [said for event, said in a.audit.events if event == "recipient_refused"] == [named]
    assert a.board.is_ready


async def test_a_consumer_that_attests_with_its_key_and_without_it_opens_no_epochs(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    other = HpkeKey.generate(Kem.MLKEM1024_P384).public
    without = (*(key for key in b.keys.bound if key.use is not Use.HPKE), other)
    it = epochs(a)
    first = await ready(a, it)
    for _ in range(3):
        b.attest(bound=without)
        assert await ready(a, it) == first
        b.attest()
        assert await ready(a, it) == first
        assert await grant_late(a, it) == 0
    assert starts(platform) == [frozenset({A, B})]
    platform.suspend(B)  # whom nobody approves any more reads no further block
    a.attest()
    assert await ready(a, it) == first + 1
    assert starts(platform)[-1] == frozenset({A})


async def test_a_consumer_without_the_key_of_a_new_suite_is_served_when_it_has_one(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """A dataset moves before every consumer has attested with the keys of its new suite."""
    a.attest()
    b.attest(bound=[key for key in b.keys.bound if key.alg != Kem.MLKEM768_X25519])
    first = await ready(a, epochs(a))
    both = {name: SuiteRule(id=name, status="approved") for name in ("classic", "hybrid")}
    sets = {str(SECRET): dataset(SECRET, suite="hybrid")}
    platform.policy = replace(platform.policy, version=8, datasets=sets, suites=both)
    a.host.view.take_policy(platform.policy)
    it = epochs(a)  # a dataset that changes begins its captures anew
    assert await ready(a, it) == first + 1
    assert await grant_late(a, it) == 0
    b.attest()
    assert await ready(a, it) == first + 1
    assert await grant_late(a, it) == 1
    assert starts(platform) == [frozenset({A, B}), frozenset({A})]


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


async def test_captures_that_begin_again_and_again_open_epochs_more_and_more_slowly(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    for _ in range(pace._FREE):
        await ready(a, epochs(a))
    again = epochs(a)
    with pytest.raises(ExceptionGroup) as caught:
        await ready(a, again)
    assert caught.group_contains(UnavailableError, match="the capture starts too often")
    assert len(starts(platform)) == pace._FREE
    platform.clock.ahead += timedelta(seconds=10)
    await ready(a, again)
    assert len(starts(platform)) == pace._FREE + 1


async def test_refusals_that_last_open_epochs_more_and_more_slowly(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    for host in (a, b):
        host.attest()
    it = epochs(a)
    await ready(a, it)
    for _ in range(pace._FREE - 1):
        it.ask(Why.RESEAL)
        await ready(a, it)
    it.ask(Why.RESEAL, Reason.TOO_OLD)
    with pytest.raises(ExceptionGroup) as caught:
        await ready(a, it)
    assert caught.group_contains(UnavailableError, match="too_old")
    platform.suspend(B)  # whom nobody seals for any more ends the epoch at once
    await ready(a, it)
    assert starts(platform)[-1] == frozenset({A})


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
    assert a.metric("fabric_grants_given_total", topic=str(SECRET)) == 2  # to itself, twice
    assert await grant_late(a, it) == 2
    assert await grant_late(a, it) == 0
    assert a.metric("fabric_grants_given_total", topic=str(SECRET)) == 4
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


async def test_an_approval_that_is_withdrawn_ends_the_epoch_and_every_grant(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    first = await ready(a, it)
    b.attest()
    await grant_late(a, it)
    a.host.view.take_policy(replace(platform.policy, version=8, approvals=approved(A)))
    platform.policy = a.host.view.policy
    assert await ready(a, it) == first + 1
    assert starts(platform)[-1] == frozenset({A})
    assert await grant_late(a, it) == 0
    assert a.audit.events[-1][0] == "epoch_opened"
    assert a.audit.events[-1][1]["why"] == "lost"


async def test_a_recipient_that_only_a_newer_policy_approves_asks_for_that_policy(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    a.host.view.take_policy(replace(platform.policy, approvals=approved(A)))
    platform.policy = replace(platform.policy, version=8)
    it = epochs(a)
    await ready(a, it)
    assert not a.host.view.policy_wanted.is_set()
    b.attest()
    assert await grant_late(a, it) == 0
    assert a.host.view.policy_wanted.is_set()


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


async def test_blocks_go_on_under_the_old_epoch_until_the_next_is_drawn_up(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    it = epochs(a)
    first = await ready(a, it)
    platform.clock.ahead += timedelta(seconds=EPOCH_AGE_S_MAX)
    a.attest()
    b.attest()
    assert await ready(a, it) == first
    await maintain(a, it)
    assert len(starts(platform)) == 1
    assert await ready(a, it) == first + 1
    assert starts(platform)[-1] == frozenset({A, B})


async def test_an_epoch_that_was_drawn_up_for_a_lost_host_is_never_opened(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    it = epochs(a)
    first = await ready(a, it)
    platform.clock.ahead += timedelta(seconds=EPOCH_AGE_S_MAX)
    a.attest()
    b.attest()
    await ready(a, it)
    await maintain(a, it)
    platform.suspend(B)
    a.attest()
    assert await ready(a, it) == first + 1
    assert starts(platform)[-1] == frozenset({A})


async def test_a_start_that_does_not_know_the_last_notice_is_made_anew_at_once(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    judge, refusals = platform.log.judge, [DeniedError(Reason.TOO_OLD, "revoked meanwhile")]
    platform.log.judge = lambda *given: refusals.pop() if refusals else judge(*given)  # type: ignore[misc]
    it = epochs(a)
    await ready(a, it)
    assert not refusals
    assert len(starts(platform)) == 1


def while_it_wraps(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen in the loop while the first start is drawn up in its thread."""
    loop, calls = asyncio.get_running_loop(), [happens]

    def wrap(*given: Any) -> Wrapped:
        if calls:
            done = threading.Event()
            first = calls.pop()
            loop.call_soon_threadsafe(lambda: (first(), done.set()))
            assert done.wait(5)
        return wrap_start(*given)

    monkeypatch.setattr("fabric.agent.epochs.wrap_start", wrap)


async def test_a_notice_that_comes_while_an_epoch_is_drawn_up_leaves_nobody_in_it(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    b.attest()
    platform.log.judge = None
    while_it_wraps(monkeypatch, lambda: learn_of_a_suspension(a, B))
    await ready(a, epochs(a))
    assert starts(platform) == [frozenset({A})]


def while_it_is_acknowledged(platform: Platform, happen: Callable[[], None]) -> None:
    """Let something happen between the first start's place in the log and its acknowledgement."""
    append, left = platform.log.append, [happen]

    async def slow(topic: str, partition: int, records: Any) -> int:
        offset = await append(topic, partition, records)
        if topic == GRANTS and left:
            left.pop()()
        return offset

    platform.log.append = slow  # type: ignore[method-assign]


async def test_a_notice_that_comes_while_a_start_is_acknowledged_leaves_nobody_in_its_epoch(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    while_it_is_acknowledged(platform, lambda: learn_of_a_suspension(a, B))
    it = epochs(a)
    await ready(a, it)
    assert starts(platform) == [frozenset({A, B}), frozenset({A})]
    assert it.current is not None
    assert it.current.served.hosts == {A}


async def test_a_policy_that_comes_while_a_start_is_acknowledged_is_asked_anew(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    platform.log.judge = None
    sets = {str(SECRET): dataset(SECRET, consumers=())}
    newer = replace(platform.policy, version=8, datasets=sets)
    while_it_is_acknowledged(platform, lambda: a.host.view.take_policy(newer))
    it = epochs(a)
    with pytest.raises(ExceptionGroup) as caught:
        await ready(a, it)
    assert caught.group_contains(UnavailableError, match="policy changed")
    await ready(a, it)
    assert starts(platform) == [frozenset({A, B}), frozenset({A})]


async def test_a_policy_that_comes_while_an_epoch_is_drawn_up_is_asked_anew(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.attest()
    b.attest()
    platform.log.judge = None
    sets = {str(SECRET): dataset(SECRET, consumers=())}
    newer = replace(platform.policy, version=8, datasets=sets)
    while_it_wraps(monkeypatch, lambda: a.host.view.take_policy(newer))
    it = epochs(a)
    with pytest.raises(ExceptionGroup) as caught:
        await ready(a, it)
    assert caught.group_contains(UnavailableError, match="policy changed")
    assert starts(platform) == []
    await ready(a, it)
    assert starts(platform) == [frozenset({A})]


async def test_who_was_chosen_by_an_older_policy_is_not_kept_for_a_newer_one(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    it, now = epochs(a), platform.clock.now()
    platform.clock.now = lambda: now  # type: ignore[method-assign]
    async with running() as parts, asyncio.timeout(10):
        await parts.view(a)
        older, result = allowed(a.host.view, SECRET, NOTES, now)
        sets = {str(SECRET): dataset(SECRET, consumers=())}
        platform.policy = replace(platform.policy, version=8, datasets=sets)
        a.host.view.take_policy(platform.policy)
        await it.prepare(older)
        newer, _ = allowed(a.host.view, SECRET, NOTES, now)
        await it.ready(newer, result)
    assert starts(platform) == [frozenset({A})]


async def test_under_from_join_a_host_that_was_away_gets_what_was_sent_since_it_was_named(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """Named is not attested now: it was named before the first epoch, and came a day later."""
    sets = {str(SECRET): dataset(SECRET, history="from_join")}
    platform.policy = replace(platform.policy, datasets=sets)
    a.open().attest()
    b.attest(life_s=1)
    platform.clock.ahead += timedelta(seconds=2)
    it = epochs(a)
    first = await ready(a, it)
    assert starts(platform) == [frozenset({A})]
    it.ask(Why.RESEAL)
    await ready(a, it)
    platform.clock.ahead += timedelta(hours=20)
    a.attest()
    b.attest()
    assert await grant_late(a, it) == 2
    assert await ready(a, it) == first + 1


async def test_under_from_join_a_newly_named_host_gets_a_new_epoch_and_no_old_one(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    sets = {str(SECRET): dataset(SECRET, history="from_join", consumers=())}
    platform.policy = replace(platform.policy, datasets=sets)
    it = epochs(a.open())
    first = await ready(a, it)
    joined = {str(SECRET): dataset(SECRET, history="from_join")}
    a.host.view.take_policy(replace(platform.policy, version=8, datasets=joined))
    platform.policy = a.host.view.policy
    assert await ready(a, it) == first
    platform.clock.ahead += timedelta(seconds=JOIN_BATCH_S)
    assert await ready(a, it) == first
    await maintain(a, it)
    assert await ready(a, it) == first + 1
    assert starts(platform) == [frozenset({A}), frozenset({A, B})]
    assert await grant_late(a, it) == 0


async def test_epochs_of_a_deprecated_suite_are_granted_with_their_own_kind_of_key(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    await ready(a, epochs(a))
    suites = {
        "classic": SuiteRule(id="classic", status="deprecated"),
        "hybrid": SuiteRule(id="hybrid", status="approved"),
    }
    sets = {str(SECRET): dataset(SECRET, suite="hybrid")}
    platform.policy = replace(platform.policy, version=8, datasets=sets, suites=suites)
    a.host.view.take_policy(platform.policy)
    it = epochs(a)
    await ready(a, it)
    b.attest()
    assert await grant_late(a, it) == 2
    granted = [parse_grant(v).grant for v in platform.log.values(GRANTS) if kind_of(v) == GRANT]
    assert [grant.terms.suite for grant in granted] == ["classic", "hybrid"]


async def test_a_refused_grant_is_tried_again_and_stops_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    await ready(a, it)
    b.attest()
    judge = platform.log.judge
    platform.log.judge = lambda *_: DeniedError(Reason.TOO_OLD, "revoked meanwhile")
    assert await grant_late(a, it) == 0
    platform.log.judge = judge
    assert await grant_late(a, it) == 0  # not every second: wraps cost
    platform.clock.ahead += timedelta(seconds=5)
    assert await grant_late(a, it) == 1


async def test_a_clock_that_was_ahead_and_is_set_right_keeps_nobody_waiting_for_a_grant(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    elapsed_s = 0.0
    monkeypatch.setattr(platform.clock, "monotonic", lambda: elapsed_s)
    a.attest()
    it = epochs(a)
    await ready(a, it)
    b.attest()
    platform.clock.ahead += timedelta(seconds=20)
    judge = platform.log.judge
    platform.log.judge = lambda *_: DeniedError(Reason.TOO_OLD, "revoked meanwhile")
    assert await grant_late(a, it) == 0
    platform.log.judge = judge
    platform.clock.ahead -= timedelta(seconds=20)
    elapsed_s += 5
    assert await grant_late(a, it) == 1


async def test_a_notice_in_the_middle_of_a_sweep_ends_it(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    await ready(a, it)
    it.ask(Why.RESEAL)
    await ready(a, it)
    b.attest()
    platform.log.judge = lambda *_: learn_of_a_suspension(a, B)
    assert await grant_late(a, it) == 1
    granted = [parse_grant(v).grant for v in platform.log.values(GRANTS) if kind_of(v) == GRANT]
    assert [grant.revocation_number for grant in granted] == [0]


async def test_a_view_that_grows_old_in_the_middle_of_a_sweep_ends_it(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    it = epochs(a)
    await ready(a, it)
    it.ask(Why.RESEAL)
    await ready(a, it)
    b.attest()

    def judge(*_: object) -> None:
        platform.is_ticking = False
        platform.clock.ahead += timedelta(seconds=TICK_GRANTS_S_MAX + 1)

    platform.log.judge = judge
    assert await grant_late(a, it) == 1


async def test_secrets_are_erased_with_the_data(platform: Platform, a: TestHost) -> None:
    a.attest()
    it = epochs(a)
    first = await ready(a, it)
    it.ask(Why.RESEAL)
    await ready(a, it)
    retention_s = dataset(SECRET).retention_s
    platform.clock.ahead += timedelta(seconds=retention_s)
    a.attest()
    await grant_late(a, it)
    kept = a.host.identity.state.epochs(SECRET)
    assert [item.number for item in kept] == [first, first + 1]  # its last block is a day younger
    platform.clock.ahead += timedelta(seconds=EPOCH_AGE_S_MAX + 1)
    a.attest()
    await grant_late(a, it)
    assert [item.number for item in a.host.identity.state.epochs(SECRET)] == [first + 1]


def crowd(a: TestHost, count: int) -> None:
    """Put attested hosts into the view, past the signatures of their records."""
    found = a.host.view.members
    template = found.result(next(iter(found.hosts.values())).result_id)
    for number in range(count):
        host, ident = HostId("G02", "health", f"many-{number}"), number.to_bytes(16)
        key = HpkeKey.generate(Kem.MLKEM768_X25519).public
        result = replace(template, id=ident, host=host, keys=(*template.keys[:3], key))
        a.platform.approve(host)
        found._results.add(result)
        found._hosts[host] = a_state(result)


async def test_an_epoch_for_a_thousand_costs_less_than_thrice_its_wraps(
    platform: Platform, a: TestHost
) -> None:
    """Processor time of the sender: choosing, wrapping, keeping, signing, sending."""
    sets = {str(SECRET): dataset(SECRET, suite="hybrid")}
    platform.policy = replace(platform.policy, datasets=sets)
    a.open().attest()
    platform.log.judge = None
    costs, least = [], []
    async with running() as parts, asyncio.timeout(60):
        await parts.view(a)
        crowd(a, 999)
        for _ in range(3):
            found, result = allowed(a.host.view, SECRET, NOTES, a.host.clock.now())
            it = epochs(a)
            least.append(wraps_cpu_s(1_000))
            began = time.process_time()
            epoch = await it.ready(found, result)
            costs.append(time.process_time() - began)
            assert len(epoch.served.hosts) == 1_000
            assert await it.grant_late(found, result) == 0
    assert min(costs) < 3 * min(least), (costs, least)
    assert len(starts(platform)) == 6


async def test_drawing_up_an_epoch_ahead_leaves_next_to_nothing_for_the_stream_to_wait_for(
    platform: Platform, a: TestHost
) -> None:
    sets = {str(SECRET): dataset(SECRET, suite="hybrid")}
    platform.policy = replace(platform.policy, datasets=sets)
    a.open().attest(life_s=9 * EPOCH_AGE_S_MAX)
    costs, least = [], []
    platform.log.judge = None
    async with running() as parts, asyncio.timeout(60):
        await parts.view(a)
        crowd(a, 999)
        it = epochs(a)
        found, result = allowed(a.host.view, SECRET, NOTES, a.host.clock.now())
        first = (await it.ready(found, result)).served.number
        for number in range(first, first + 3):
            platform.clock.ahead += timedelta(seconds=EPOCH_AGE_S_MAX)
            assert (await it.ready(found, result)).served.number == number
            await it.prepare(found)
            least.append(wraps_cpu_s(1_000))
            began = time.process_time()
            assert (await it.ready(found, result)).served.number == number + 1
            costs.append(time.process_time() - began)
    assert min(costs) < min(least), (costs, least)
