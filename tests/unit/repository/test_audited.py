"""The audit log's words on the policy: each once, however often the repository is looked at."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.repository.audited import QUIET_S, PolicyAudit
from fabric.store.clock import SigningClock
from tests.fakes.audit import MemoryAudit
from tests.fakes.clock import ManualClock
from tests.fakes.policy_files import policy

POLICY = policy()
FORGED = PeerError(Reason.BAD_SIGNATURE, "lacks signatures")


class Told:
    """What is told, and what is written of it."""

    def __init__(self) -> None:
        self.audit = MemoryAudit()
        self.clock = ManualClock()
        self.policy = PolicyAudit(self.audit, self.clock)

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.audit.events]


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_version_is_taken_once_and_a_later_end_is_no_event(told: Told) -> None:
    told.policy.taken(POLICY)
    told.policy.taken(replace(POLICY, expires=POLICY.expires + timedelta(days=1)))
    told.policy.taken(replace(POLICY, version=8))
    assert told.audit.events == [
        ("policy_taken", {"version": 7}),
        ("policy_taken", {"version": 8}),
    ]


def test_a_refusal_names_its_reason_and_what_stays_in_force(told: Told) -> None:
    told.policy.refused(FORGED, POLICY)
    assert told.audit.events == [("policy_refused", {"reason": "bad_signature", "version": 7})]


def test_a_reason_that_stays_is_written_again_after_ten_minutes_with_its_count(told: Told) -> None:
    for _ in range(50):
        told.policy.refused(FORGED, POLICY)
    told.policy.refused(PeerError(Reason.REPLAYED, "older"), POLICY)
    assert told.events == ["policy_refused"] * 2
    told.clock.advance(QUIET_S)
    told.policy.refused(FORGED, POLICY)
    told.policy.refused(FORGED, POLICY)
    assert [fields.get("unsaid") for _, fields in told.audit.events] == [None, None, 49]


def test_that_nobody_answers_is_no_refusal(told: Told) -> None:
    told.policy.refused(UnavailableError(Reason.AUTHORITY_UNAVAILABLE, "away"), POLICY)
    assert told.audit.events == []


def test_the_end_of_what_is_in_force_is_written_once_for_each_end(told: Told) -> None:
    soon = replace(POLICY, expires=told.clock.now() + timedelta(seconds=5))
    told.policy.looked(soon)
    assert told.audit.events == []
    told.clock.advance(5)
    told.policy.looked(soon)
    told.policy.looked(soon)
    assert told.audit.events == [("policy_ended", {"reason": "policy_expired", "version": 7})]
    later = replace(soon, expires=soon.expires + timedelta(seconds=5))
    told.policy.looked(later)
    told.clock.advance(5)
    told.policy.looked(later)
    assert told.events == ["policy_ended"] * 2


def test_a_clock_that_went_back_says_nothing_of_an_end(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lies() -> datetime:
        raise DeniedError(Reason.CLOCK_WENT_BACK, "clock went back")

    monkeypatch.setattr(told.clock, "now", lies)
    told.policy.looked(POLICY)
    assert told.audit.events == []


def test_a_clock_that_jumped_says_nothing_of_the_policys_end() -> None:
    audit, system = MemoryAudit(), ManualClock()
    clock = SigningClock(wall=system.now, monotonic=system.monotonic)
    system.set_wall(system.now() + timedelta(days=9_000))
    PolicyAudit(audit, clock).looked(policy())
    assert audit.events == []
