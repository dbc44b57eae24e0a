"""Samples and pages: figures are found by their labels, and what is no agent's page is refused."""

from datetime import UTC, datetime

import pytest

from fabric.cli.page import parse_page
from fabric.cli.samples import Samples
from fabric.model.errors import Malformed

NOW = datetime(2026, 9, 1, tzinfo=UTC)


def test_a_page_that_is_no_agents_is_refused() -> None:
    for metrics, ready in (
        (b"<html>", b"{}"),
        (b"up 1\n", b'{"parts": {}}'),
        (b"\xff", b'{"parts": {}}'),
        (b"up 1\n", b'{"parts": []}'),
        (b"up 1\n", b"not json"),
    ):
        with pytest.raises(Malformed):
            parse_page(metrics, ready, NOW)


def test_samples_are_found_by_the_labels_that_were_asked_for() -> None:
    text = 'fabric_x{a="1",b="1"} 3\nfabric_x{a="1",b="2"} 4\nfabric_x{a="2",b="1"} 9\n'
    samples = Samples.parse(text)
    assert (samples.value("x", a="1"), samples.total("x", a="1")) == (4, 7)
    assert (samples.value("x", a="3"), samples.total("x", a="3")) == (None, None)
    assert samples.time("y") is None
