"""Measured: a figure is told with the time of its measurement, or not at all."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.cli.measuring import Measured, of_all, of_capture, of_partition
from fabric.cli.samples import Page
from tests.fakes.agent_page import SECRET, FakeAgent

NOW = datetime.now(UTC)


def page(age: float) -> Page:
    """What is seen `age` seconds after a target and a source were measured."""
    agent = FakeAgent()
    agent.lag(SECRET, 3, 2.0)
    agent.captures("registry", 4.0, 512)
    return agent.page(datetime.now(UTC) + timedelta(seconds=age))


@pytest.mark.parametrize("age", [0, 29, -29])
def test_a_lag_that_was_measured_just_now_is_known(age: float) -> None:
    seen = of_partition(page(age), str(SECRET), 0)
    assert (seen.is_known, seen.records, seen.seconds, seen.log_bytes) == (True, 3, 2.0, None)
    seen = of_capture(page(age), "registry")
    assert (seen.is_known, seen.records, seen.seconds, seen.log_bytes) == (True, None, 4.0, 512)


@pytest.mark.parametrize("age", [31, -31])
def test_a_lag_of_another_time_has_its_time_and_no_figure(age: float) -> None:
    for seen in (of_partition(page(age), str(SECRET), 0), of_capture(page(age), "registry")):
        assert seen == Measured(at=seen.at, is_known=False)
        assert seen.at is not None


def test_a_lag_that_was_never_measured_has_no_time_either() -> None:
    agent = FakeAgent()
    agent.metrics.lag(SECRET, 0, records=0, seconds=0, measured=0)
    never = Measured(at=None, is_known=False)
    assert of_partition(agent.page(), str(SECRET), 0) == never
    assert of_partition(agent.page(), str(SECRET), 1) == never
    assert of_capture(agent.page(), "registry") == never


def test_partitions_are_summed_and_the_longest_counts() -> None:
    parts = [
        Measured(at=NOW, is_known=True, records=3, seconds=9.0),
        Measured(at=NOW - timedelta(seconds=5), is_known=True, records=4, seconds=2.0),
    ]
    whole = Measured(at=NOW - timedelta(seconds=5), is_known=True, records=7, seconds=9.0)
    assert of_all(parts) == whole


def test_the_time_of_an_unknown_lag_is_that_of_a_partition_which_is_not_known() -> None:
    known = Measured(at=NOW, is_known=True, records=3, seconds=9.0)
    ahead = Measured(at=NOW + timedelta(hours=1), is_known=False)
    assert of_all([known, ahead]) == ahead


def test_one_partition_that_is_not_known_leaves_the_whole_unknown() -> None:
    known = Measured(at=NOW, is_known=True, records=3, seconds=9.0)
    before = NOW - timedelta(minutes=5)
    old, never = Measured(at=before, is_known=False), Measured(at=None, is_known=False)
    assert of_all([known, old]) == old
    assert of_all([known, old, never]) == never
