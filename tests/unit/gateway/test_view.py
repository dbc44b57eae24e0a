"""The judge's view: read to the end, kept fresh, begun anew with new anchors."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fabric.attest.members import Heartbeat, heartbeat_record, notice_record
from fabric.attest.notices import NO_NOTICES
from fabric.gateway.judge import Judge
from fabric.gateway.replay import Replays
from fabric.gateway.view import Keeper
from fabric.metrics import GatewayMetrics
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.names import MEMBERS
from fabric.policy.types import Policy
from fabric.repository.audited import PolicyAudit
from fabric.store.clock import SystemClock
from tests.fakes.audit import MemoryAudit
from tests.fakes.gateway import World
from tests.fakes.gateway_doors import until
from tests.fakes.log import MemoryLog
from tests.fakes.verifier import OTHER, Verifier, a_notice


class Policies:
    """A policy folder whose content the test sets."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.next: Policy | UsageError | None = None
        self.fault: UnavailableError | None = None
        self.always: UnavailableError | None = None
        self.looks = 0

    def refresh(self) -> Policy | None:
        self.looks += 1
        if self.always is not None:
            raise self.always
        found, self.next = self.next, None
        if isinstance(found, UsageError):
            raise found
        if found is not None:
            self.policy = found
        return found


class Desk:
    """A keeper at work."""

    def __init__(self) -> None:
        self.world = World(datetime.now(UTC))
        self.log = MemoryLog()
        for topic, key, value in (*self.world.records(), self.world.heartbeat()):
            self.log.put(topic, 0, key, value)
        self.policies = Policies(self.world.policy)
        self.judge = Judge(Replays(), heartbeat_interval_s=60)
        self.metrics = GatewayMetrics(tuple(self.world.policy.rules.values()))
        policies: Any = self.policies
        self.clock = SystemClock()
        self.audit = MemoryAudit()
        self.keeper = Keeper(
            self.judge,
            policies,
            self.log,
            metrics=self.metrics,
            audit=PolicyAudit(self.audit, SystemClock()),
            refresh_s=0.01,
            latest=self.clock.latest,
        )

    def readiness(self) -> dict[str, str | None]:
        return dict(self.keeper.readiness(SystemClock(), 60))

    def refused(self, reason: str) -> float | None:
        labels = {"level": "", "reason": reason}
        return self.metrics.registry.get_sample_value("fabric_gateway_denied_total", labels)

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"fabric_{name}")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    found = Desk()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.keeper.run())
        yield found
        task.cancel()


async def test_a_heartbeat_of_a_wrong_clock_holds_up_nobody_once_right_ones_come(
    desk: Desk,
) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    wrong = desk.world.heartbeat(at=desk.world.now + timedelta(hours=1))
    desk.log.put(wrong[0], 0, *wrong[1:])
    await until(lambda: desk.refused("from_the_future") == 1, "the heartbeat to be refused")
    assert desk.readiness()["members"] == Reason.MEMBERS_STALE
    right = desk.world.heartbeat(at=datetime.now(UTC))
    desk.log.put(right[0], 0, *right[1:])
    await until(lambda: desk.readiness()["members"] is None, "the right time to count")


def test_before_it_runs_nothing_is_ready() -> None:
    assert Desk().readiness() == {"policy": Reason.NOT_READY, "members": Reason.NOT_READY}


async def test_the_view_is_ready_once_both_topics_were_read(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    assert desk.judge.view is not None
    assert desk.judge.view.members.current(desk.world.a.host, desk.world.now)
    assert desk.readiness() == {"policy": None, "members": None}
    assert desk.sample("policy_version") == 7


async def test_a_log_that_cannot_be_read_means_not_ready(desk: Desk) -> None:
    await until(desk.judge.is_caught_up, "the topics to be read")
    desk.log.fail(UnavailableError(Reason.BROKER_UNAVAILABLE, "away"))
    await until(lambda: not desk.judge.is_caught_up(), "the loss to be noticed")
    assert desk.readiness()["members"] == Reason.NOT_READY
    desk.log.fail(None)
    await until(desk.judge.is_caught_up, "the topics to be read again")


async def test_a_bad_record_is_counted_and_passed_over(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    desk.log.put(MEMBERS, 0, b"verifier/heartbeat", b"garbage")
    desk.log.put(MEMBERS, 0, None, None)
    beat = desk.world.heartbeat(at=desk.world.now + timedelta(seconds=5))
    desk.log.put(MEMBERS, 0, *beat[1:])
    view = desk.judge.view
    assert view is not None
    before = view.members.heartbeat
    await until(lambda: view.members.heartbeat != before, "the next heartbeat")


async def test_a_missing_notice_is_stale(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    beat = desk.world.heartbeat(1, at=desk.world.now + timedelta(seconds=5))
    desk.log.put(MEMBERS, 0, *beat[1:])
    await until(
        lambda: desk.readiness()["members"] == Reason.MEMBERS_STALE, "the gap to be noticed"
    )


async def test_a_list_that_is_not_the_authoritys_is_stale(desk: Desk) -> None:
    """A broker shows another notice under the number: it comes from an authority's old copy."""
    await until(desk.keeper.is_caught_up, "the topics to be read")
    desk.log.put(MEMBERS, 0, *notice_record(a_notice(1, host=OTHER), desk.world.verifier.signers))
    beat = desk.world.heartbeat(1, at=desk.world.now + timedelta(seconds=5))
    desk.log.put(MEMBERS, 0, *beat[1:])
    await until(
        lambda: desk.readiness()["members"] == Reason.MEMBERS_STALE, "the difference to be noticed"
    )


async def test_a_new_policy_is_used_with_the_same_members(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    members = desk.judge.view.members if desk.judge.view else None
    desk.policies.next = replace(desk.world.policy, version=8)
    await until(lambda: desk.sample("policy_version") == 8, "the new policy")
    assert desk.judge.view is not None
    assert desk.judge.view.members is members


async def test_a_broken_policy_changes_nothing_and_is_counted(desk: Desk) -> None:
    desk.policies.next = UsageError(Reason.POLICY_INVALID, "broken")
    await until(lambda: desk.sample("policy_refresh_failures_total") == 1, "the failure")
    assert desk.sample("policy_version") == 7
    assert desk.audit.events == [
        ("policy_taken", {"version": 7}),
        ("policy_refused", {"reason": "policy_invalid", "version": 7}),
    ]


async def test_somebody_who_hurries_is_heard_before_the_refresh_is_due() -> None:
    desk = Desk()
    desk.keeper._refresh_s = 600
    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.keeper.run())
        desk.policies.next = replace(desk.world.policy, version=8)
        desk.keeper.hurry()
        await until(lambda: desk.sample("policy_version") == 8, "the new policy")
        task.cancel()


async def test_a_gateway_whose_clock_is_set_back_is_not_ready(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    behind = SystemClock(wall=lambda: desk.world.now - timedelta(seconds=31))
    assert desk.keeper.readiness(behind, 60)["members"] == Reason.MEMBERS_STALE


async def test_a_denied_topic_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from fabric.gateway import view

    monkeypatch.setattr(view, "_AGAIN_S", 0.01)
    await until(desk.judge.is_caught_up, "the topics to be read")
    desk.log.fail(DeniedError(Reason.TOPIC_DRIFT, "no partition"))
    await until(lambda: not desk.judge.is_caught_up(), "the loss to be noticed")
    desk.log.fail(None)
    await until(desk.judge.is_caught_up, "the topics to be read again")


async def test_an_expired_policy_is_not_ready(desk: Desk) -> None:
    desk.policies.next = replace(desk.world.policy, version=8, expires=datetime.now(UTC))
    await until(
        lambda: desk.readiness()["policy"] == Reason.POLICY_EXPIRED, "the end of the policy"
    )
    ended = {"reason": "policy_expired", "version": 8}
    await until(lambda: ("policy_ended", ended) in desk.audit.events, "the end to be written")


async def test_another_maker_of_tpms_does_not_make_the_gateway_begin_anew(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    members = desk.judge.view.members if desk.judge.view else None
    trust = replace(desk.world.policy.trust, ek_ca_pem=b"another maker")
    desk.policies.next = replace(desk.world.policy, version=8, trust=trust)
    await until(lambda: desk.sample("policy_version") == 8, "the new policy")
    assert desk.judge.view is not None
    assert desk.judge.view.members is members
    assert desk.keeper.is_caught_up()


async def test_new_anchors_begin_anew(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    first = desk.judge.view
    assert first is not None
    desk.policies.next = replace(desk.world.policy, version=8, trust=Verifier().trust)
    await until(
        lambda: desk.judge.view is not None and desk.judge.view.members is not first.members,
        "another view",
    )
    await until(desk.keeper.is_caught_up, "the topics to be read again")
    assert desk.judge.view is not None
    assert not desk.judge.view.members.hosts


async def test_a_tick_of_the_future_goes_with_the_key_that_signed_it(desk: Desk) -> None:
    await until(desk.keeper.is_caught_up, "the topics to be read")
    now, new = datetime.now(UTC), Verifier()
    _, *wrong = desk.world.heartbeat(at=now + timedelta(hours=1))
    desk.log.put(MEMBERS, 0, *wrong)
    await until(lambda: desk.readiness()["members"] == Reason.MEMBERS_STALE, "the tick")
    desk.policies.next = replace(desk.world.policy, version=8, trust=new.trust)
    tick = Heartbeat(number=0, listed=NO_NOTICES, at=now)
    desk.log.put(MEMBERS, 0, *heartbeat_record(tick, new.signers))
    await until(lambda: desk.readiness() == {"policy": None, "members": None}, "a true tick")


async def test_a_disk_that_is_full_is_shown_and_logged_once_until_there_is_room(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await until(lambda: desk.readiness()["policy"] is None, "the view")
    full = UnavailableError(Reason.OVERLOADED, "no room on the disk of state; make room")
    desk.policies.fault = desk.policies.always = full
    before = desk.policies.looks
    await until(lambda: desk.policies.looks > before + 5, "more looks")
    assert desk.readiness()["policy"] == str(full)
    assert [r.getMessage() for r in caplog.records].count(f"policy: {full}") == 1
    desk.policies.fault = desk.policies.always = None
    before = desk.policies.looks
    await until(lambda: desk.policies.looks > before + 1, "a look that succeeds")
    assert desk.readiness()["policy"] is None
    desk.policies.fault = desk.policies.always = full
    before = desk.policies.looks
    await until(lambda: desk.policies.looks > before + 1, "a look that fails again")
    assert [r.getMessage() for r in caplog.records].count(f"policy: {full}") == 2
