"""Figures that people are told nothing of beside the metrics."""

import pytest

from fabric.model.errors import Reason
from tests.fakes.platform import TestHost


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
