"""One Produce request on its way; the conversations are in tests/transcripts."""

from datetime import timedelta

import pytest

from fabric.gateway import requests, wire
from fabric.gateway.judge import Judge
from fabric.gateway.produce import Production
from fabric.gateway.replay import Replays
from fabric.model.errors import Malformed
from fabric.model.limits import REQUEST_S_MAX
from tests.fakes import kafka_frames
from tests.fakes.gateway import OPEN, SEALED, World, a_directory, batch
from tests.fakes.kafka_frames import Broker


@pytest.fixture
def world() -> World:
    return World()


def production(
    world: World,
    *parts: tuple[str, int, bytes],
    timeout_ms: int = 500,
    judge: Judge | None = None,
) -> Production:
    frame = kafka_frames.produce(9, 1, parts, timeout_ms=timeout_ms)
    head = wire.parse_head(frame)
    found = Production(head, requests.read_produce(frame, head), frame, now=world.now)
    found.judge(judge or world.judge(), world.identity(), world.now)
    return found


def test_a_wholly_admitted_request_goes_out_as_it_came(world: World) -> None:
    parts = [(OPEN, 0, batch(world.open_record())), (SEALED, 0, batch(world.seal()))]
    (shipment,) = production(world, *parts).shipments(a_directory(), Replays())
    assert shipment.frame == kafka_frames.produce(9, 1, parts, timeout_ms=500)
    assert (shipment.node, shipment.places) == (1, ((OPEN, 0), (SEALED, 0)))


def test_a_partly_admitted_request_goes_out_without_the_refused(world: World) -> None:
    good = (OPEN, 1, batch(world.open_record()))
    found = production(world, (OPEN, 0, batch(b"bad")), good)
    (shipment,) = found.shipments(a_directory(), Replays())
    assert shipment.frame == kafka_frames.produce(9, 1, [good], timeout_ms=500)


def test_nothing_is_shipped_while_an_answer_is_due(world: World) -> None:
    found = production(world, (OPEN, 0, batch(world.open_record())))
    directory = a_directory()
    (shipment,) = found.shipments(directory, Replays())
    found.sent(1, shipment)
    assert found.shipments(directory, Replays()) == []
    assert not found.is_complete


def test_an_answer_for_other_partitions_is_none(world: World) -> None:
    found = production(world, (OPEN, 0, batch(world.open_record())))
    directory = a_directory()
    (shipment,) = found.shipments(directory, Replays())
    found.sent(1, shipment)
    answer = Broker().answer(kafka_frames.produce(9, 1, [(OPEN, 1, b"")]))
    with pytest.raises(Malformed):
        found.answered(1, answer, directory)
    found.failed(1, Replays())
    assert found.is_complete


@pytest.mark.parametrize(
    ("timeout_ms", "left_s"), [(500, 0.4), (60_000, REQUEST_S_MAX - 0.1), (-5, 0.001)]
)
def test_time_is_the_clients_within_our_own_limit(
    world: World, timeout_ms: int, left_s: float
) -> None:
    found = production(world, (OPEN, 0, batch(world.open_record())), timeout_ms=timeout_ms)
    assert found.time_left(world.now + timedelta(seconds=0.1)) == pytest.approx(left_s)


@pytest.mark.parametrize("answers", [False, True])
def test_what_was_never_sent_for_want_of_a_leader_may_be_sealed_anew(
    world: World, answers: bool
) -> None:
    judge = world.judge()
    found = production(world, (SEALED, 0, batch(world.seal())), judge=judge)
    assert len(judge.replays) == 1
    directory = a_directory(leaders={})
    (question,) = found.shipments(directory, judge.replays)
    assert question.node is None
    found.sent(1, question)
    if answers:
        found.answered(1, Broker().answer(question.frame), directory)
        assert found.shipments(directory, judge.replays) == []
    else:
        found.failed(1, judge.replays)
    assert found.is_complete
    assert len(judge.replays) == 0


def test_what_was_sent_and_not_answered_stays_in_the_replay_memory(world: World) -> None:
    judge = world.judge()
    found = production(world, (SEALED, 0, batch(world.seal())), judge=judge)
    (shipment,) = found.shipments(a_directory(), judge.replays)
    found.sent(1, shipment)
    found.failed(1, judge.replays)
    assert len(judge.replays) == 1
