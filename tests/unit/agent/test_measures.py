"""Figures that people are told nothing of beside the metrics."""

import pytest

from fabric.agent.measures import Waiting
from fabric.model.change import ZERO
from fabric.model.errors import Reason
from fabric.ports import StreamState
from tests.fakes.platform import SECRET, TestHost


def state(*, is_incomplete: bool) -> StreamState:
    return StreamState(
        high=ZERO, chain=b"", offset=5, cluster="c", topic_id="t", incomplete=is_incomplete
    )


@pytest.mark.parametrize(
    ("reason", "answers"),
    [
        (None, 1),
        (Reason.TARGET_UNFIT, 1),
        (Reason.DATABASE_UNAVAILABLE, 0),
        (Reason.CONFIG_INVALID, 0),
    ],
)
def test_a_database_answers_unless_what_it_was_asked_failed(
    a: TestHost, reason: Reason | None, answers: int
) -> None:
    a.host.telemetry.database("target", "0", reason)
    assert a.metric("fabric_database_up", kind="target", database="0") == answers


def test_quarantine_shows_its_size_and_the_commit_of_its_oldest_change(a: TestHost) -> None:
    place = {"topic": str(SECRET), "level": "secret"}
    a.host.telemetry.quarantine(SECRET, Waiting(3, 1700000000.5))
    assert a.metric("fabric_quarantine_records", **place) == 3
    assert a.metric("fabric_quarantine_oldest_timestamp_seconds", **place) == 1700000000.5
    a.host.telemetry.quarantine(SECRET, Waiting(0, 0))
    assert a.metric("fabric_quarantine_oldest_timestamp_seconds", **place) == 0


def test_a_dataset_is_as_incomplete_as_the_worst_of_its_streams_stood(a: TestHost) -> None:
    it, place = a.host.telemetry, {"topic": str(SECRET), "level": "secret"}
    whole = state(is_incomplete=False)
    it.stands(SECRET, [])
    assert a.shows("fabric_dataset_incomplete")
    assert a.metric("fabric_dataset_incomplete", **place) == 0
    it.stands(SECRET, [whole, state(is_incomplete=True)])
    it.stands(SECRET, [whole])
    assert a.metric("fabric_dataset_incomplete", **place) == 1
