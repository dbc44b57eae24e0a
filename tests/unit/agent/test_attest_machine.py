"""The attest machine's answers, one by one."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.attest_machine import (
    Attest,
    Attested,
    AttestMachine,
    Enrol,
    Enrolled,
    Refused,
    Show,
    Sleep,
    Started,
    Woke,
)
from fabric.model.errors import Reason

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def attested(life_s: float = 600, jitter: float = 0.5) -> Attested:
    return Attested(issued=NOW, expires=NOW + timedelta(seconds=life_s), jitter=jitter)


def test_a_new_host_enrols_then_attests() -> None:
    it = AttestMachine()
    assert it.step(Started(enrolled=False), NOW) == (Enrol(),)
    assert it.step(Enrolled(), NOW) == (Attest(),)


def test_a_known_host_attests_at_once() -> None:
    assert AttestMachine().step(Started(enrolled=True), NOW) == (Attest(),)


def test_renewal_comes_at_half_life_with_jitter() -> None:
    for jitter, seconds in ((0.0, 270), (0.5, 300), (1.0, 330)):
        show, sleep = AttestMachine().step(attested(jitter=jitter), NOW)
        assert show == Show(reason=None)
        assert isinstance(sleep, Sleep)
        assert sleep.seconds == pytest.approx(seconds)


def test_a_refused_host_asks_again_slowly_and_for_ever() -> None:
    it = AttestMachine()
    it.step(Started(enrolled=True), NOW)
    pauses = []
    for _ in range(10):
        show, sleep = it.step(Refused(reason=Reason.STATE_REFUSED), NOW)
        assert show == Show(reason=Reason.STATE_REFUSED)
        assert isinstance(sleep, Sleep)
        pauses.append(sleep.seconds)
        assert it.step(Woke(), NOW) == (Attest(),)
    assert pauses[0] == 5
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30


def test_an_authority_that_is_away_is_asked_again_soon() -> None:
    it = AttestMachine()
    _, sleep = it.step(Refused(reason=Reason.AUTHORITY_UNAVAILABLE), NOW)
    assert isinstance(sleep, Sleep)
    assert sleep.seconds < 1


def test_pauses_begin_anew_after_success() -> None:
    it = AttestMachine()
    for _ in range(8):
        it.step(Refused(reason=Reason.STATE_REFUSED), NOW)
    it.step(attested(), NOW)
    _, sleep = it.step(Refused(reason=Reason.STATE_REFUSED), NOW)
    assert sleep == Sleep(seconds=5)


def test_an_authority_that_lost_us_is_shown_the_tpm_again() -> None:
    it = AttestMachine()
    it.step(Started(enrolled=True), NOW)
    _, sleep = it.step(Refused(reason=Reason.NOT_ENROLLED), NOW)
    assert sleep == Sleep(seconds=0)
    assert it.step(Woke(), NOW) == (Enrol(),)


def test_a_host_that_may_not_enrol_asks_slowly() -> None:
    it = AttestMachine()
    it.step(Started(enrolled=False), NOW)
    _, sleep = it.step(Refused(reason=Reason.NOT_APPROVED), NOW)
    assert sleep == Sleep(seconds=5)
    assert it.step(Woke(), NOW) == (Enrol(),)


def test_an_authority_that_loses_a_host_again_and_again_is_asked_in_pauses() -> None:
    it = AttestMachine()
    it.step(Started(enrolled=True), NOW)
    pauses = []
    for _ in range(10):
        _, sleep = it.step(Refused(reason=Reason.NOT_ENROLLED), NOW)
        assert isinstance(sleep, Sleep)
        pauses.append(sleep.seconds)
        assert it.step(Woke(), NOW) == (Enrol(),)
        assert it.step(Enrolled(), NOW) == (Attest(),)
    assert (pauses[0], min(pauses[1:])) == (0, 5)
    it.step(attested(), NOW)
    assert it.step(Refused(reason=Reason.NOT_ENROLLED), NOW)[1] == Sleep(seconds=0)
