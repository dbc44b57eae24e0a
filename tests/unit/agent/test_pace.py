"""How often an epoch may begin that only its sender asks for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.agent import pace
from fabric.agent.epoch_machine import Why
from fabric.agent.pace import Pace, free_at, pause_s
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RESEAL_INTERVAL_S
from fabric.model.names import Topic
from fabric.store.state import StateFile
from tests.fakes.platform import SECRET, A, Platform, TestHost

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
DAY_S = 24 * 3600


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def state_of(folder: Path) -> StateFile:
    return TestHost(Platform(), A, folder).open().host.identity.state


def may(it: Pace, why: Why, now: datetime) -> bool:
    try:
        it.check(why, now, "")
    except UnavailableError:
        return False
    return True


def test_a_few_in_an_hour_wait_for_nothing_and_more_wait_longer_and_longer() -> None:
    pauses = [pause_s(count) for count in range(60)]
    assert pauses[: pace._FREE] == [0] * pace._FREE
    assert pauses[pace._FREE : pace._FREE + 3] == [10, 20, 40]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pace._PAUSE_S_MAX


def test_whoever_asks_every_ten_seconds_opens_some_six_hundred_a_day() -> None:
    began: list[datetime] = []
    for second in range(0, DAY_S, 10):
        if free_at(began, at(second)) <= at(second):
            began.append(at(second))
    assert len(began) < 620
    last_hour = [moment for moment in began if moment >= at(DAY_S - 3600)]
    assert len(last_hour) <= 26


def test_whoever_has_fewer_than_that_in_an_hour_never_waits() -> None:
    began: list[datetime] = []
    for second in range(0, DAY_S, 3600 // pace._FREE + 1):
        assert free_at(began, at(second)) <= at(second)
        began.append(at(second))


def test_starts_and_reseals_are_counted_together_and_what_others_bring_about_is_not(
    tmp_path: Path,
) -> None:
    it = Pace(state_of(tmp_path), SECRET)
    for _ in range(3 * pace._FREE):
        it.began(Why.LOST, NOW)
    assert may(it, Why.START, NOW)
    for n in range(pace._FREE):
        it.began(Why.RESEAL if n % 2 else Why.START, NOW)
    assert not may(it, Why.START, NOW)
    assert not may(it, Why.RESEAL, NOW)
    assert all(may(it, why, NOW) for why in Why if why not in {Why.START, Why.RESEAL})
    assert may(it, Why.START, at(10))


def test_who_has_to_wait_is_told_for_what_and_until_when(tmp_path: Path) -> None:
    it = Pace(state_of(tmp_path), SECRET)
    for _ in range(pace._FREE):
        it.began(Why.RESEAL, NOW)
    with pytest.raises(
        UnavailableError, match=r"refused \(too_old\) too often: no new epoch before 08:00:10"
    ) as caught:
        it.check(Why.RESEAL, NOW, Reason.TOO_OLD)
    assert caught.value.reason is Reason.OVERLOADED


def test_it_outlives_a_process_and_is_bounded(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    it = Pace(state, SECRET)
    for n in range(100):
        it.began(Why.START, at(n))
    again = Pace(state, SECRET)
    assert again._began == it._began
    assert len(again._began) == pace._KEPT_MAX
    assert not may(again, Why.START, at(100))


def test_a_clock_that_was_ahead_and_is_set_right_stops_nobody_for_long(tmp_path: Path) -> None:
    it = Pace(state_of(tmp_path), SECRET)
    for _ in range(pace._FREE):
        it.began(Why.START, at(DAY_S))
    assert not may(it, Why.START, NOW)
    assert may(it, Why.START, at(10))


def test_each_dataset_has_a_pace_of_its_own(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    it = Pace(state, SECRET)
    for n in range(pace._KEPT_MAX):
        it.began(Why.START, at(n))
    assert not may(it, Why.START, at(pace._KEPT_MAX))
    assert may(Pace(state, Topic.parse("secret.G01.others")), Why.START, at(pace._KEPT_MAX))


def test_a_start_that_would_say_what_was_just_refused_is_refused_here(tmp_path: Path) -> None:
    it = Pace(state_of(tmp_path), SECRET)
    it.check_refused("one result", NOW)
    it.refused("one result", NOW, DeniedError(Reason.SUITE_REFUSED, "not this one"))
    with pytest.raises(DeniedError, match="suite_refused: not this one"):
        it.check_refused("one result", at(RESEAL_INTERVAL_S - 1))
    it.check_refused("another result", at(1))
    it.check_refused("one result", at(RESEAL_INTERVAL_S))
    it.check_refused("one result", at(-1))  # of a clock that was ahead


def test_a_start_that_came_too_late_is_made_anew_at_once(tmp_path: Path) -> None:
    it = Pace(state_of(tmp_path), SECRET)
    it.refused("one result", NOW, DeniedError(Reason.TOO_OLD, "revoked meanwhile"))
    it.check_refused("one result", NOW)
