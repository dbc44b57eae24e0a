"""What the machine does with frames as such; the conversations are in tests/transcripts."""

import pytest

from fabric.gateway.machine import Close, Received, Reply
from fabric.model.errors import Reason
from tests.fakes.gateway_play import Stage


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\x09", bytes(200)])
def test_what_is_no_request_closes(frame: bytes) -> None:
    stage = Stage()
    commands = stage.machine.step(Received(frame), stage.now)
    assert isinstance(commands[-1], Close)
    assert commands[-1].reason in (Reason.MALFORMED, Reason.API_REFUSED)


def test_after_the_end_nothing_is_done() -> None:
    stage = Stage()
    stage.request("api v19")
    assert stage.request("produce v9 open:0=open") == ["close api_refused"]


def test_a_reply_says_what_it_answers_and_how_long_the_request_was() -> None:
    stage = Stage()
    frame = stage.frame("api_versions v3")
    (reply,) = stage.machine.step(Received(frame), stage.now)
    assert isinstance(reply, Reply)
    assert (reply.api.name, reply.request_bytes, reply.is_ok) == ("API_VERSIONS", len(frame), True)


def test_refusals_and_failures_are_not_ok() -> None:
    for words in ("produce v9 open:0=plain", "init_producer_id v2 transaction=t"):
        stage = Stage()
        commands = stage.machine.step(Received(stage.frame(words)), stage.now)
        reply = commands[-1]
        assert isinstance(reply, Reply)
        assert not reply.is_ok
