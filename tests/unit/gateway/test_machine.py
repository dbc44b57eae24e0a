"""What the machine does with frames as such; the conversations are in tests/transcripts."""

from datetime import timedelta

import pytest

from fabric.gateway import answers
from fabric.gateway.machine import (
    Answered,
    Close,
    Failed,
    Forward,
    Judging,
    Note,
    Pass,
    Received,
    Reply,
)
from fabric.kafka import broker_answers
from fabric.kafka.broker_answers import PartAnswer
from fabric.model.errors import Reason, UsageError
from fabric.model.limits import JUDGED_BYTES_MIN
from tests.fakes import kafka_frames
from tests.fakes.gateway import OPEN, SEALED, batch
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


def large(stage: Stage, parts: int) -> bytes:
    data = batch(*[stage.world.open_record()] * 600)
    assert len(data) > JUDGED_BYTES_MIN
    return kafka_frames.produce(9, 1, [(OPEN, number, data) for number in range(parts)])


def test_a_request_that_is_long_to_judge_is_judged_in_steps() -> None:
    stage = Stage()
    commands = stage.machine.step(Received(large(stage, 2)), stage.now)
    assert (stage.machine.is_judging, list(commands)) == (True, [])
    commands = stage.machine.step(Judging(), stage.now)
    assert not stage.machine.is_judging
    assert [type(command) for command in commands].count(Pass) == 2
    assert isinstance(commands[-1], Forward)
    assert stage.machine.step(Judging(), stage.now) == []


def test_a_revocation_between_two_steps_takes_back_what_the_first_admitted() -> None:
    stage = Stage()
    assert stage.machine.step(Received(large(stage, 2)), stage.now) == []
    stage.suspend()
    *notes, reply = stage.machine.step(Judging(), stage.now)
    assert {(c.partition, c.reason) for c in notes if isinstance(c, Note)} == {
        (0, Reason.HOST_SUSPENDED),
        (1, Reason.HOST_SUSPENDED),
    }
    assert {type(command) for command in notes} == {Note}
    assert isinstance(reply, Reply)
    assert not reply.is_ok


def test_nothing_is_sent_after_the_time_that_the_client_gave() -> None:
    stage = Stage()
    assert stage.machine.step(Received(large(stage, 3)), stage.now) == []
    stage.now += timedelta(seconds=5.1)
    stage.world.members.feed(*stage.world.heartbeat(at=stage.now))
    (reply,) = stage.machine.step(Judging(), stage.now)
    assert isinstance(reply, Reply)
    assert not reply.is_ok


def sent(stage: Stage, frame: bytes) -> Forward:
    """What is sent on for a request whose leader is known."""
    commands = stage.machine.step(Received(frame), stage.now)
    (forward,) = [command for command in commands if isinstance(command, Forward)]
    assert forward.node is not None
    return forward


def test_a_frame_that_waited_is_refused_when_its_host_was_suspended_meanwhile() -> None:
    stage = Stage()
    records = batch(stage.world.open_record())
    forward = sent(stage, kafka_frames.produce(9, 1, [(OPEN, 0, records)]))
    assert stage.machine.stands(forward.ticket, stage.now)
    stage.suspend()
    assert not stage.machine.stands(forward.ticket, stage.now)
    note, reply = stage.machine.step(Failed(forward.ticket, is_unsent=True), stage.now)
    assert isinstance(note, Note)
    assert note.reason is Reason.HOST_SUSPENDED
    assert isinstance(reply, Reply)
    assert not reply.is_ok
    assert not stage.machine.in_flight


def test_what_was_not_sent_and_may_be_sent_comes_again() -> None:
    stage = Stage()
    envelope = batch(stage.world.seal())
    forward = sent(stage, kafka_frames.produce(9, 1, [(SEALED, 0, envelope)]))
    (reply,) = stage.machine.step(Failed(forward.ticket, is_unsent=True), stage.now)
    assert isinstance(reply, Reply)
    assert reply.frame is not None
    assert broker_answers.read_produce(9, reply.frame)[0][0].error == 7
    sent(stage, kafka_frames.produce(9, 2, [(SEALED, 0, envelope)]))


def test_no_frame_overtakes_one_that_is_judged() -> None:
    stage = Stage()
    stage.machine.step(Received(large(stage, 2)), stage.now)
    with pytest.raises(UsageError, match="before the last one was judged"):
        stage.machine.step(Received(stage.frame("api_versions v3")), stage.now)


def test_half_of_what_the_broker_found_too_large_is_no_replay() -> None:
    stage = Stage()
    whole = stage.world.seal()
    stage.world.sealed.pop()
    half = stage.world.seal(now=stage.world.now + timedelta(milliseconds=7))
    frame = kafka_frames.produce(9, 1, [(SEALED, 0, batch(whole))])
    (sent,) = [c for c in stage.machine.step(Received(frame), stage.now) if isinstance(c, Forward)]
    said = PartAnswer(topic=SEALED, partition=0, error=10)
    too_large = answers.write_produce(9, 1, parts=[said], throttle_ms=0)
    stage.machine.step(Answered(sent.ticket, too_large), stage.now)
    frame = kafka_frames.produce(9, 2, [(SEALED, 0, batch(half))])
    assert [c for c in stage.machine.step(Received(frame), stage.now) if isinstance(c, Forward)]
