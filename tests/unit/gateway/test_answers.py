"""Answers, held against kio from the other side."""

from datetime import UTC, datetime

import pytest

from fabric.gateway import answers
from fabric.gateway.answers import PartAnswer
from fabric.gateway.apis import Api
from fabric.model.errors import Malformed
from tests.fakes import kafka_frames
from tests.fakes.kafka_frames import Broker, read_answer

WHEN = datetime(2026, 11, 24, 8, 0, 0, 123_000, tzinfo=UTC)
PARTS = [
    PartAnswer(topic="a", partition=0, base_offset=5, appended=WHEN, log_start_offset=1),
    PartAnswer(
        topic="b", partition=1, error=87, record_errors=((2, "why"),), message="gateway: why"
    ),
]


@pytest.mark.parametrize("version", range(3, 13))
def test_produce_answers_are_written_for_every_version(version: int) -> None:
    frame = answers.write_produce(version, 9, parts=PARTS, throttle_ms=25)
    correlation, body = read_answer(0, version, frame)
    assert correlation == 9
    good, bad = (topic.partition_responses[0] for topic in body.responses)
    assert (good.base_offset, good.log_append_time, good.error_code) == (5, WHEN, 0)
    assert bad.error_code == 87
    if version >= 8:
        assert bad.record_errors[0].batch_index == 2
        assert bad.error_message == "gateway: why"
    assert getattr(body, "node_endpoints", ()) == ()
    assert body.throttle_time.total_seconds() == 0.025


@pytest.mark.parametrize("version", range(3, 13))
def test_produce_answers_are_read_as_they_were_written(version: int) -> None:
    frame = answers.write_produce(version, 9, parts=PARTS, throttle_ms=25)
    found, throttle_ms = answers.read_produce(version, frame)
    assert throttle_ms == 25
    assert [(p.topic, p.partition, p.error, p.base_offset) for p in found] == [
        ("a", 0, 0, 5),
        ("b", 1, 87, -1),
    ]
    assert found[0].appended == WHEN


def test_a_brokers_address_does_not_survive() -> None:
    answer = Broker().answer(kafka_frames.produce(12, 1, [("a", 0, b"x")]))
    assert b"broker1" in answer
    parts, _ = answers.read_produce(12, answer)
    assert b"broker1" not in answers.write_produce(12, 1, parts=parts, throttle_ms=0)


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\1", b"\0\0\0\1\0", b"\0\0\0\1\1\0\0", bytes(99)])
def test_answers_that_do_not_decode_are_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        answers.read_produce(9, frame)


def test_an_error_code_nobody_knows_is_malformed_from_a_broker_and_unknown_to_a_client() -> None:
    part = PartAnswer(topic="a", partition=0, error=31_000)
    frame = answers.write_produce(9, 1, parts=[part], throttle_ms=0)
    assert answers.read_produce(9, frame)[0][0].error == -1


@pytest.mark.parametrize("version", range(13))
def test_metadata_is_rewritten_for_every_version(version: int) -> None:
    broker = Broker({1: ("broker1", 9092), 2: ("broker2", 9092)})
    broker.leaders = {("a", 0): 2, ("a", 1): 1}
    frame = broker.answer(kafka_frames.metadata(version, 1, ["a"]))
    found = answers.read_metadata(version, frame)
    assert found.nodes == broker.nodes
    assert found.leaders == broker.leaders
    shown = {1: ("gw1", 1), 2: ("gw2", 2)}
    rewritten = answers.rewrite_metadata(version, 77, frame=frame, nodes=shown)
    assert b"broker" not in rewritten
    correlation, _ = read_answer(3, version, rewritten)
    assert correlation == 77
    assert answers.read_metadata(version, rewritten) == answers.Cluster(
        nodes=shown, leaders=broker.leaders
    )


@pytest.mark.parametrize("version", range(13))
def test_metadata_of_ours_has_an_error_for_every_topic(version: int) -> None:
    frame = answers.write_metadata(version, 3, nodes={1: ("gw", 1)}, topics=["a"], error=5)
    _, body = read_answer(3, version, frame)
    assert [(topic.name, topic.error_code) for topic in body.topics] == [("a", 5)]
    assert answers.read_metadata(version, frame).leaders == {}


@pytest.mark.parametrize("version", range(5))
def test_api_versions_name_spans_and_no_features(version: int) -> None:
    spans = {Api.PRODUCE: (0, 12)}
    frame = answers.write_api_versions(version, 3, spans=spans, error=35)
    correlation, body = read_answer(18, version, frame)
    assert (correlation, body.error_code) == (3, 35)
    assert [(k.api_key, k.min_version, k.max_version) for k in body.api_keys] == [(0, 0, 12)]
    assert getattr(body, "finalized_features", ()) == ()


def test_a_brokers_versions_are_read() -> None:
    found = answers.read_api_versions(Broker().answer(kafka_frames.api_versions(0, 1)))
    assert found[0] == (0, 13)
    assert found[24] == (0, 5)


@pytest.mark.parametrize("version", range(6))
def test_init_producer_id_is_refused_with_an_error(version: int) -> None:
    frame = answers.write_init_producer_id(version, 3, error=53)
    _, body = read_answer(22, version, frame)
    assert (body.error_code, body.producer_id) == (53, -1)
