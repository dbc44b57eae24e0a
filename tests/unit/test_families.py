"""Families: children from the start, closed sets, and what is asked at a scrape."""

import pytest
from prometheus_client import generate_latest

from fabric.families import Families, Waiting, collecting, one_of, start
from fabric.model.errors import Reason, UsageError


class House(Families):
    def __init__(self) -> None:
        super().__init__("house")
        self._info("build", "Build.")
        self.doors = self._counter("doors_total", "Doors.", ("floor",))
        self.heat = self._gauge("heat_celsius", "Heat.")
        self.wait = self._histogram("wait_seconds", "Waits.", (), (1.0, 2.0))


def test_every_family_has_the_prefix_and_the_process_is_shown() -> None:
    text = generate_latest(House().registry).decode()
    for name in ("house_build_info", "house_heat_celsius", "house_wait_seconds_bucket"):
        assert name in text
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text
    assert "_created" not in text


def test_children_are_there_before_they_are_used() -> None:
    house = House()
    start(house.doors, [("1",), ("2",)])
    assert house.registry.get_sample_value("house_doors_total", {"floor": "2"}) == 0
    assert house.registry.get_sample_value("house_doors_total", {"floor": "3"}) is None


def test_word_outside_the_closed_set_is_our_bug() -> None:
    assert one_of("a", ("a", "b")) == "a"
    with pytest.raises(UsageError) as caught:
        one_of("c", ("a", "b"))
    assert caught.value.reason is Reason.INTERNAL


def test_waiting_parts_are_asked_for_at_every_scrape() -> None:
    house, parts = House(), {"lift 1": "stuck", "lift 2": None, "cat": "asleep"}
    waiting = Waiting("house_waiting", "Waits.", ("lift", "other"), lambda: parts)
    with collecting(house.registry, waiting):
        sample = house.registry.get_sample_value
        assert sample("house_waiting", {"part": "lift"}) == 1
        assert sample("house_waiting", {"part": "other"}) == 1
        parts["lift 2"] = "stuck"
        assert sample("house_waiting", {"part": "lift"}) == 2
    assert sample("house_waiting", {"part": "lift"}) is None
