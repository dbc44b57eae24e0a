"""The clock is held up by signed times and stops when it lies far behind them."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.ports import Clock
from fabric.store.clock import SigningClock, SystemClock
from tests.fakes.clock import START, ManualClock

SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)


def clock_at(wall: datetime, high: datetime | None = None) -> SystemClock:
    return SystemClock(high, wall=lambda: wall, monotonic=lambda: 5.0)


def test_clock_tells_the_system_time_when_nothing_signed_is_newer() -> None:
    clock = clock_at(START)
    assert clock.now() == START
    clock.observe(START - timedelta(days=1))
    assert clock.now() == START


def test_clock_never_reads_below_the_newest_signed_time() -> None:
    clock = clock_at(START)
    clock.observe(START + SKEW)
    clock.observe(START + timedelta(seconds=1))
    assert clock.now() == START + SKEW
    assert clock.high == START + SKEW


def test_clock_that_lies_further_back_than_the_skew_stops() -> None:
    clock = clock_at(START)
    clock.observe(START + SKEW + timedelta(microseconds=1))
    with pytest.raises(DeniedError) as caught:
        clock.now()
    assert caught.value.reason is Reason.CLOCK_WENT_BACK


def test_high_water_mark_holds_over_a_restart() -> None:
    before = clock_at(START)
    before.observe(START)
    with pytest.raises(DeniedError):
        clock_at(START - timedelta(hours=1), before.high).now()


def test_clock_forgets_a_time_whose_signer_is_trusted_no_more() -> None:
    clock = SystemClock(START + timedelta(days=1), wall=lambda: START, monotonic=float)
    clock.forget()
    assert clock.now() == START
    assert clock.high is None


def test_clock_goes_on_when_it_is_corrected() -> None:
    wall = ManualClock(START - timedelta(hours=1))
    clock = SystemClock(START, wall=wall.now)
    with pytest.raises(DeniedError):
        clock.now()
    wall.set_wall(START + timedelta(seconds=1))
    assert clock.now() == START + timedelta(seconds=1)


def test_what_may_be_signed_now_follows_the_machines_own_clock_alone() -> None:
    clock = clock_at(START, high=START + timedelta(days=1))
    assert clock.latest() == START + SKEW


def test_defaults_are_the_systems_clocks() -> None:
    clock: Clock = SystemClock()
    assert abs(datetime.now(UTC) - clock.now()) < timedelta(seconds=5)
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


def signing(at: ManualClock) -> SigningClock:
    return SigningClock(wall=at.now, monotonic=at.monotonic)


def test_who_signs_says_no_time_after_a_jump_ahead_until_it_is_taken_back() -> None:
    system = ManualClock()
    clock = signing(system)
    system.advance(86_400)
    assert clock.now() == system.now()
    right = system.now()
    system.set_wall(right + SKEW)
    assert clock.now() == right + SKEW
    system.set_wall(right + SKEW + timedelta(seconds=1))
    for _ in range(3):
        with pytest.raises(UnavailableError, match="31 s ahead") as caught:
            clock.now()
        assert caught.value.reason is Reason.NOT_READY
        system.advance(86_400)
    system.set_wall(right + timedelta(days=3))
    assert clock.now() == right + timedelta(days=3)


def test_who_signs_goes_on_after_a_jump_that_another_clock_confirms() -> None:
    system = ManualClock()
    clock = signing(system)
    assert clock.is_in_doubt
    clock.compare(system.now(), since=system.now())
    assert not clock.is_in_doubt
    system.set_wall(START + timedelta(hours=1))
    assert clock.is_in_doubt
    clock.compare(clock.wall(), since=clock.wall())
    assert clock.now() == START + timedelta(hours=1)
    assert not clock.is_in_doubt


@pytest.mark.parametrize(("off_s", "said"), [(31, "31 s behind"), (-31, "31 s ahead of")])
def test_who_signs_says_no_time_that_another_clock_gainsays(off_s: int, said: str) -> None:
    system = ManualClock()
    clock = signing(system)
    with pytest.raises(UnavailableError, match=said):
        clock.compare(START + timedelta(seconds=off_s), since=START)
    with pytest.raises(UnavailableError, match=said) as caught:
        clock.now()
    assert caught.value.reason is Reason.NOT_READY
    assert clock.is_in_doubt
    clock.compare(START + (SKEW if off_s > 0 else -SKEW), since=START)
    assert clock.now() == START


def test_a_slow_answer_is_no_difference_of_clocks() -> None:
    system = ManualClock()
    clock = signing(system)
    system.advance(50)
    clock.compare(START + timedelta(seconds=1), since=START)
    assert not clock.is_in_doubt


def test_who_signs_heeds_an_acknowledgement_that_gainsays_its_clock() -> None:
    """Slewed: no jump, and the monotonic clock runs as fast."""
    system = ManualClock()
    clock = signing(system)
    clock.compare(START, since=START)
    since = system.advance(3_600)
    clock.heed(since - SKEW, since=since)
    assert clock.confirmed() == since
    clock.heed(since - SKEW - timedelta(seconds=1), since=since)
    for told in (clock.now, clock.confirmed):
        with pytest.raises(UnavailableError, match="31 s ahead of the brokers' clock") as caught:
            told()
        assert caught.value.reason is Reason.NOT_READY
    assert clock.is_in_doubt


def test_an_acknowledgement_confirms_no_clock() -> None:
    """It came through a gateway."""
    system = ManualClock()
    clock = signing(system)
    clock.heed(START, since=START)
    assert clock.is_in_doubt
    clock.compare(START, since=START)
    clock.heed(START - timedelta(hours=1), since=START)
    clock.heed(START, since=START)
    assert clock.is_in_doubt
    clock.compare(START, since=START)
    assert clock.confirmed() == START


def test_an_acknowledgement_takes_no_jump_back() -> None:
    system = ManualClock()
    clock = signing(system)
    clock.compare(START, since=START)
    system.set_wall(START + timedelta(hours=1))
    clock.heed(system.now(), since=system.now())
    with pytest.raises(UnavailableError, match="3600 s ahead of the time that has passed"):
        clock.now()


def test_an_acknowledgement_of_a_clock_that_is_behind_is_no_matter() -> None:
    system = ManualClock()
    clock = signing(system)
    clock.compare(START, since=START)
    clock.heed(START + timedelta(hours=1), since=START)
    assert clock.confirmed() == START


def test_an_acknowledgement_without_a_time_asks_for_a_comparison() -> None:
    system = ManualClock()
    clock = signing(system)
    clock.compare(START, since=START)
    clock.heed(None, since=START)
    assert clock.is_in_doubt
    assert clock.now() == START
    clock.compare(START, since=START)
    assert clock.confirmed() == START


def test_small_steps_of_a_clock_that_is_kept_right_do_not_add_up() -> None:
    system = ManualClock()
    clock = signing(system)
    for _ in range(10):
        system.set_wall(system.advance(3_600) + timedelta(seconds=10))
        assert clock.now() == system.now()


def test_a_clock_that_is_set_back_is_measured_from_there() -> None:
    system = ManualClock()
    clock = signing(system)
    system.set_wall(START - timedelta(hours=1))
    assert clock.now() == system.now()
    system.set_wall(START)
    with pytest.raises(UnavailableError, match="3600 s ahead"):
        clock.now()


def test_who_signs_heeds_what_was_signed_before() -> None:
    system = ManualClock()
    clock = SigningClock(START + timedelta(hours=1), wall=system.now, monotonic=system.monotonic)
    with pytest.raises(DeniedError, match="--clock-is-right") as caught:
        clock.now()
    assert caught.value.reason is Reason.CLOCK_WENT_BACK


def test_who_signs_goes_by_no_clock_before_another_has_confirmed_it() -> None:
    system = ManualClock()
    clock = signing(system)
    with pytest.raises(UnavailableError, match="no other clock") as caught:
        clock.confirmed()
    assert caught.value.reason is Reason.NOT_READY
    clock.compare(START, since=START)
    assert clock.confirmed() == START
    system.set_wall(START + timedelta(hours=1))
    with pytest.raises(UnavailableError, match="3600 s ahead"):
        clock.confirmed()
