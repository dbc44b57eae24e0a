"""Answers, held against kio from the other side."""

import sys
from datetime import UTC, datetime

import pytest

from fabric.gateway import answers
from fabric.gateway.apis import Api
from fabric.kafka import broker_answers
from fabric.kafka.broker_answers import Cluster, PartAnswer
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


def test_a_brokers_address_does_not_survive() -> None:
    answer = Broker().answer(kafka_frames.produce(12, 1, [("a", 0, b"x")]))
    assert b"broker1" in answer
    parts, _ = broker_answers.read_produce(12, answer)
    assert b"broker1" not in answers.write_produce(12, 1, parts=parts, throttle_ms=0)


def test_an_error_code_nobody_knows_is_unknown_to_a_client() -> None:
    part = PartAnswer(topic="a", partition=0, error=31_000)
    frame = answers.write_produce(9, 1, parts=[part], throttle_ms=0)
    assert broker_answers.read_produce(9, frame)[0][0].error == -1


@pytest.mark.parametrize("version", range(13))
def test_metadata_is_rewritten_for_every_version(version: int) -> None:
    broker = Broker({1: ("broker1", 9092), 2: ("broker2", 9092)})
    broker.leaders = {("a", 0): 2, ("a", 1): 1}
    frame = broker.answer(kafka_frames.metadata(version, 1, ["a"]))
    said = broker_answers.read_metadata(version, frame)
    shown = {1: ("gw1", 1), 2: ("gw2", 2)}
    rewritten = answers.rewrite_metadata(version, 77, said=said, nodes=shown)
    assert b"broker" not in rewritten
    correlation, body = read_answer(3, version, rewritten)
    _, before = read_answer(3, version, frame)
    assert correlation == 77
    assert body.topics == before.topics
    assert broker_answers.read_metadata(version, rewritten).cluster == Cluster(
        nodes=shown, leaders=broker.leaders
    )


@pytest.mark.parametrize("version", [1, 9, 12])
def test_rewriting_costs_a_few_calls_a_partition(version: int) -> None:
    """A request of 20 bytes asks for every topic, and nobody has a turn meanwhile."""
    broker = Broker()
    broker.leaders = {(f"topic-{n}", part): 1 for n in range(50) for part in range(10)}
    frame = broker.answer(kafka_frames.metadata(version, 1, None))
    said = broker_answers.read_metadata(version, frame)
    assert len(said.topics) == 50
    calls = 0

    def count(*told: object) -> None:
        nonlocal calls
        calls += told[1] in ("call", "c_call")

    sys.setprofile(count)
    try:
        answers.rewrite_metadata(version, 7, said=said, nodes={1: ("gw", 1)})
    finally:
        sys.setprofile(None)
    assert calls < 20 * 500


@pytest.mark.parametrize("version", range(13))
def test_metadata_of_ours_has_an_error_for_every_topic(version: int) -> None:
    frame = answers.write_metadata(version, 3, nodes={1: ("gw", 1)}, topics=["a"], error=5)
    _, body = read_answer(3, version, frame)
    assert [(topic.name, topic.error_code) for topic in body.topics] == [("a", 5)]
    assert broker_answers.read_metadata(version, frame).cluster.leaders == {}


@pytest.mark.parametrize("version", range(5))
def test_api_versions_name_spans_and_no_features(version: int) -> None:
    spans = {Api.PRODUCE: (0, 12)}
    frame = answers.write_api_versions(version, 3, spans=spans, error=35)
    correlation, body = read_answer(18, version, frame)
    assert (correlation, body.error_code) == (3, 35)
    assert [(k.api_key, k.min_version, k.max_version) for k in body.api_keys] == [(0, 0, 12)]
    assert getattr(body, "finalized_features", ()) == ()


@pytest.mark.parametrize("version", range(6))
def test_init_producer_id_is_refused_with_an_error(version: int) -> None:
    frame = answers.write_init_producer_id(version, 3, error=53)
    _, body = read_answer(22, version, frame)
    assert (body.error_code, body.producer_id) == (53, -1)
