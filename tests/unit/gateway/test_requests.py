"""Requests read and written by hand, held against kio."""

from dataclasses import replace

import pytest

from fabric.gateway import requests, wire
from fabric.model.errors import Malformed
from fabric.model.limits import PARTITIONS_PER_REQUEST_MAX
from tests.fakes import kafka_frames

PARTS = [("a", 0, b"one"), ("a", 7, None), ("b", 0, b"")]


@pytest.mark.parametrize("version", range(3, 13))
def test_produce_is_read_as_kio_wrote_it_and_written_as_kio_reads_it(version: int) -> None:
    frame = kafka_frames.produce(version, 5, PARTS, acks=1, timeout_ms=1234, transactional_id="t")
    head = wire.parse_head(frame)
    found = requests.read_produce(frame, head)
    assert found == requests.Produce(
        transactional_id="t",
        acks=1,
        timeout_ms=1234,
        parts=tuple(requests.Part(*part) for part in PARTS),
    )
    assert requests.write_produce(head, found) == frame


def test_produce_with_some_parts_reads_well() -> None:
    frame = kafka_frames.produce(12, 5, PARTS)
    head = wire.parse_head(frame)
    whole = requests.read_produce(frame, head)
    asked = kafka_frames.read_request(
        requests.write_produce(head, replace(whole, parts=whole.parts[1:]))
    )
    parts = [
        (topic.name, part.index, part.records)
        for topic in asked.body.topic_data
        for part in topic.partition_data
    ]
    assert parts == PARTS[1:]


@pytest.mark.parametrize("version", [3, 12])
def test_every_torn_produce_is_malformed(version: int) -> None:
    frame = kafka_frames.produce(version, 5, PARTS)
    head = wire.parse_head(frame)
    for size in range(head.body_at, len(frame)):
        with pytest.raises(Malformed):
            requests.read_produce(frame[:size], head)
    with pytest.raises(Malformed):
        requests.read_produce(frame + b"x", head)


@pytest.mark.parametrize(
    "parts",
    [
        [("a", 0, b"1"), ("a", 0, b"2")],
        [("", 0, b"1")],
        [("x" * 250, 0, b"1")],
        [("a", number, b"") for number in range(PARTITIONS_PER_REQUEST_MAX + 1)],
    ],
    ids=["twice", "no topic", "long topic", "too many"],
)
def test_strange_parts_are_malformed(parts: list[tuple[str, int, bytes]]) -> None:
    frame = kafka_frames.produce(9, 5, parts)
    with pytest.raises(Malformed):
        requests.read_produce(frame, wire.parse_head(frame))


def test_an_array_that_would_fill_the_memory_is_malformed() -> None:
    """kio aborts the process here."""
    for frame in (
        kafka_frames.head(0, 3, 1) + b"\xff\xff\xff\xff\0\0\0\0\0\1" + b"\x7f\xff\xff\xff",
        kafka_frames.head(0, 3, 1) + b"\xff\xff\xff\xff\0\0\0\0\0\1" + b"\xff\xff\xff\xff",
        kafka_frames.head(0, 9, 1) + b"\0\xff\xff\0\0\0\1" + b"\xff\xff\xff\xff\x0f",
    ):
        with pytest.raises(Malformed):
            requests.read_produce(frame, wire.parse_head(frame))


@pytest.mark.parametrize("version", range(13))
@pytest.mark.parametrize("topics", [("a", "b"), None])
def test_metadata_is_read_and_written_without_creating_topics(
    version: int, topics: tuple[str, ...] | None
) -> None:
    if version == 0 and topics is None:
        topics = ()
    frame = kafka_frames.metadata(version, 5, topics)
    head = wire.parse_head(frame)
    found = requests.read_metadata(frame, head)
    asked = kafka_frames.read_request(requests.write_metadata(head, found))
    names = None if asked.body.topics is None else [t.name for t in asked.body.topics]
    assert names == (None if topics is None else list(topics))
    assert not getattr(asked.body, "allow_auto_topic_creation", False)


def test_an_empty_list_of_topics_is_not_all_topics() -> None:
    frame = kafka_frames.metadata(9, 5, ())
    head = wire.parse_head(frame)
    assert requests.read_metadata(frame, head).topics == ()
    frame = kafka_frames.metadata(0, 5, ())
    assert requests.read_metadata(frame, wire.parse_head(frame)).topics is None


def test_what_librdkafka_leaves_behind_is_dropped() -> None:
    frame = kafka_frames.metadata(12, 5, None) + b"\1\0\0"
    head = wire.parse_head(frame)
    found = requests.read_metadata(frame, head)
    kafka_frames.read_request(requests.write_metadata(head, found))


def test_torn_metadata_is_malformed() -> None:
    frame = kafka_frames.metadata(12, 5, ("a", "b"))
    head = wire.parse_head(frame)
    for size in range(head.body_at, len(frame)):
        with pytest.raises(Malformed):
            requests.read_metadata(frame[:size], head)


@pytest.mark.parametrize("version", range(6))
def test_transactional_ids_are_read(version: int) -> None:
    for name in (None, "t1"):
        frame = kafka_frames.init_producer_id(version, 5, name)
        assert requests.read_transactional_id(frame, wire.parse_head(frame)) == name
        with pytest.raises(Malformed):
            requests.read_transactional_id(frame[:-1], wire.parse_head(frame))


def test_the_gateways_own_questions_read_well() -> None:
    asked = kafka_frames.read_request(requests.ask_metadata(["a"]))
    assert [topic.name for topic in asked.body.topics] == ["a"]
    assert asked.version == requests.OWN_METADATA_VERSION
    assert kafka_frames.read_request(requests.ask_api_versions()).api == 18
