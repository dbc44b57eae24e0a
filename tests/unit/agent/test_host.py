"""The tools of a host's parts."""

import dataclasses

import pytest

from tests.fakes.platform import TestHost


def test_a_host_is_a_value_that_nobody_changes(a: TestHost) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.host.log = None  # type: ignore[misc, assignment]


async def test_its_log_says_which_log_it_is(a: TestHost) -> None:
    cluster, topic_id = await a.host.log.identity("secret.G01.notes")
    assert cluster
    assert topic_id
