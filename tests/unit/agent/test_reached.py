"""How old what is unapplied may be: never younger than what is known, and unknown is no zero."""

from fabric.agent.reached import UNKNOWN, Behind, Reached
from tests.fakes.platform import OPEN, SECRET

PLACE = (SECRET, 0)


def test_after_a_start_nobody_knows_until_a_record_comes() -> None:
    assert Reached().since(PLACE, UNKNOWN) is None


def test_after_a_start_the_log_says_since_when_its_record_waits() -> None:
    assert Reached().since(PLACE, Behind(appended=1000.0)) == 1000


def test_what_was_reached_bounds_the_age_whatever_the_log_says() -> None:
    reached = Reached()
    reached.reach(PLACE, 5000.0)
    assert reached.since(PLACE, UNKNOWN) == 5000
    assert reached.since(PLACE, Behind(appended=1.0)) == 5000


def test_a_change_that_was_long_on_its_way_is_as_old_as_its_commit() -> None:
    reached = Reached()
    reached.reach(PLACE, 5000.0)
    assert reached.since(PLACE, Behind(appended=5001.0, committed=900.0)) == 900


def test_a_commit_from_a_clock_that_goes_ahead_makes_nothing_younger() -> None:
    assert Reached().since(PLACE, Behind(appended=1000.0, committed=7000.0)) == 1000


def test_what_was_reached_never_goes_back_and_is_each_partitions_own() -> None:
    reached = Reached()
    reached.reach(PLACE, 5000.0)
    reached.reach(PLACE, 4000.0)
    assert reached.since(PLACE, UNKNOWN) == 5000
    for other in ((SECRET, 1), (OPEN, 0)):
        assert reached.since(other, UNKNOWN) is None
    reached.forget(PLACE)
    assert reached.since(PLACE, UNKNOWN) is None
