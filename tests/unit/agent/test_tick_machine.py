"""When the authority is asked, and how long a view may be acted on."""

from datetime import timedelta

import pytest

from fabric.agent.tick_machine import TickMachine, check_grants, check_rows
from fabric.model.errors import DeniedError, Reason
from tests.fakes.verifier import NOW


def after(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("age_s", "is_behind", "is_due"),
    [(0, False, False), (3, False, False), (3.1, False, True), (0, True, True)],
)
def test_authority_is_asked_after_three_seconds_or_at_once_for_a_gap(
    age_s: float, is_behind: bool, is_due: bool
) -> None:
    """MUST-9.34."""
    machine = TickMachine()
    assert machine.is_due(NOW, is_behind=is_behind, now=NOW + after(age_s)) is is_due


def test_a_view_without_any_tick_asks() -> None:
    assert TickMachine().is_due(None, is_behind=False, now=NOW)


def test_an_authority_that_does_not_answer_is_asked_ever_more_slowly() -> None:
    machine, now, pauses = TickMachine(), NOW, []
    for _ in range(6):
        machine.asked(now, is_answered=False)
        pause = 0
        while not machine.is_due(None, is_behind=True, now=now + after(pause)):
            pause += 1
        pauses.append(pause)
        now += after(pause)
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_an_answer_ends_the_slowness() -> None:
    machine = TickMachine()
    for _ in range(6):
        machine.asked(NOW, is_answered=False)
    machine.asked(NOW, is_answered=True)
    assert machine.is_due(None, is_behind=True, now=NOW + after(0.5))


def test_a_clock_that_went_back_does_not_keep_it_from_asking() -> None:
    machine = TickMachine()
    machine.asked(NOW + after(3600), is_answered=True)
    assert machine.is_due(None, is_behind=True, now=NOW)


@pytest.mark.parametrize(
    ("age_s", "lifetime_s", "grants", "rows"),
    [
        (30, 600, True, True),
        (30.1, 600, False, True),
        (600, 600, False, True),
        (600.1, 600, False, False),
        (11, 10, False, False),
    ],
)
def test_keys_end_after_thirty_seconds_and_rows_with_a_results_life(
    age_s: float, lifetime_s: float, grants: bool, rows: bool
) -> None:
    """MUST-9.35."""
    for check, holds in ((check_grants, grants), (check_rows, rows)):
        if holds:
            check(NOW, NOW + after(age_s), lifetime_s)
            continue
        with pytest.raises(DeniedError) as stale:
            check(NOW, NOW + after(age_s), lifetime_s)
        assert stale.value.reason is Reason.MEMBERS_STALE


def test_nothing_is_done_before_the_first_tick() -> None:
    for check in (check_grants, check_rows):
        with pytest.raises(DeniedError):
            check(None, NOW, 600)
