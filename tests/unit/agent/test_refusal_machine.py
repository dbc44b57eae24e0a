"""What follows a refusal, class by class."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.refusal_machine import HOLD_S, Action, Plan, pause_s, plan
from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.limits import RESEAL_INTERVAL_S, RETRY_S_MAX, RETRY_S_MIN

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def after(
    reason: Reason, *, attempt: int = 0, lives: bool | None = True, opened: datetime | None = None
) -> Plan:
    return plan(reason, attempt=attempt, result_lives=lives, epoch_opened=opened, now=NOW)


def of_class(kind: ReasonClass) -> list[Reason]:
    return [reason for reason in Reason if class_of(reason) is kind]


@pytest.mark.parametrize("reason", of_class(ReasonClass.WAIT))
def test_wait_sends_the_same_bytes_again_in_silence(reason: Reason) -> None:
    what = after(reason)
    assert (what.action, what.pause_s, what.loud) == (Action.AGAIN, RETRY_S_MIN, False)


@pytest.mark.parametrize("reason", of_class(ReasonClass.HOLD))
def test_hold_says_so_once_and_looks_again_slowly(reason: Reason) -> None:
    assert (after(reason).action, after(reason).pause_s) == (Action.AGAIN, HOLD_S)
    assert after(reason).loud
    assert not after(reason, attempt=1).loud


@pytest.mark.parametrize("reason", of_class(ReasonClass.NEVER))
def test_never_stops_loudly(reason: Reason) -> None:
    assert (after(reason).action, after(reason).loud) == (Action.STOP, True)


@pytest.mark.parametrize("reason", of_class(ReasonClass.RESEAL))
def test_reseal_comes_at_most_once_per_interval(reason: Reason) -> None:
    assert after(reason).action is Action.RESEAL
    assert after(reason, opened=NOW - timedelta(seconds=60)).pause_s == 0
    soon = after(reason, opened=NOW - timedelta(seconds=4))
    assert soon.pause_s == RESEAL_INTERVAL_S - 4


@pytest.mark.parametrize("reason", of_class(ReasonClass.RESEAL))
def test_where_nothing_was_sealed_there_is_nothing_to_seal_anew_and_a_pause(reason: Reason) -> None:
    opened = NOW - timedelta(seconds=60)
    plans = [after(reason, attempt=n, lives=None, opened=opened) for n in range(1_000)]
    assert {what.action for what in plans} == {Action.AGAIN}
    assert plans[0].pause_s == HOLD_S
    assert plans[-1].pause_s == RETRY_S_MAX
    assert [what.loud for what in plans].index(False) == 1
    assert not any(what.loud for what in plans[1:])


@pytest.mark.parametrize("reason", of_class(ReasonClass.RESEAL))
def test_reseal_says_so_once(reason: Reason) -> None:
    assert after(reason).loud
    assert not after(reason, attempt=1).loud


@pytest.mark.parametrize("reason", [r for r in Reason if class_of(r) is not ReasonClass.NEVER])
def test_nothing_that_lasts_is_tried_without_a_pause(reason: Reason) -> None:
    opened = NOW - timedelta(seconds=60)
    assert after(reason, attempt=1_000, lives=None, opened=opened).pause_s >= HOLD_S


@pytest.mark.parametrize("kind", [ReasonClass.WAIT, ReasonClass.HOLD])
def test_bytes_that_name_a_dead_result_are_sealed_anew(kind: ReasonClass) -> None:
    for reason in of_class(kind):
        assert after(reason, lives=False).action is Action.RESEAL


def test_pauses_grow_and_are_bounded() -> None:
    pauses = [pause_s(n) for n in range(40)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (RETRY_S_MIN, RETRY_S_MAX)
