"""Garbage raises PeerError and nothing else; valid bytes mean what kio and aiokafka mean."""

import gzip
import struct
from contextlib import suppress

from aiokafka.record.default_records import DefaultRecordBatch
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.gateway import requests, wire
from fabric.gateway.machine import Answered, Received
from fabric.kafka import broker_answers
from fabric.model.errors import PeerError
from tests.fakes import kafka_frames
from tests.fakes.gateway import batch
from tests.fakes.gateway_play import Stage

TOPIC = st.text("abc.-_09", min_size=1, max_size=20)
RECORDS = st.none() | st.binary(max_size=50)
PLACES = st.lists(
    st.tuples(TOPIC, st.integers(0, 9), RECORDS), max_size=6, unique_by=lambda part: part[:2]
)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3)
VALUES = st.lists(st.none() | st.binary(max_size=200), min_size=1, max_size=20)


@given(st.binary(max_size=200))
def test_garbage_frames_raise_only_peer_errors(data: bytes) -> None:
    for version in (3, 9):
        frame = kafka_frames.head(0, version, 1) + data
        with suppress(PeerError):
            requests.read_produce(frame, wire.parse_head(frame))
    for version in (1, 9, 10, 12):
        frame = kafka_frames.head(3, version, 1) + data
        with suppress(PeerError):
            requests.read_metadata(frame, wire.parse_head(frame))
    for version in (0, 4):
        frame = kafka_frames.head(22, version, 1) + data
        with suppress(PeerError):
            requests.read_transactional_id(frame, wire.parse_head(frame))
    with suppress(PeerError):
        wire.parse_head(data)


@given(st.binary(max_size=300), st.integers(0, 5), st.integers(1, 4))
def test_garbage_batches_raise_only_peer_errors(data: bytes, codec: int, count: int) -> None:
    with suppress(PeerError):
        wire.records_of(wire.parse_batch(data))
    head = struct.pack(">hiqqqhii", codec, count - 1, 0, 0, -1, -1, -1, count)
    body = head + (gzip.compress(data) if codec == 1 else data)
    prefix = struct.pack(">qiib", 0, len(body) + 9, 0, 2)
    with suppress(PeerError):
        wire.records_of(wire.parse_batch(prefix + crc32c(body).to_bytes(4) + body))


@given(st.binary(max_size=200), st.integers(3, 12))
def test_garbage_answers_raise_only_peer_errors(data: bytes, version: int) -> None:
    frame = bytes(4) + data
    with suppress(PeerError):
        broker_answers.read_produce(version, frame)
    with suppress(PeerError):
        broker_answers.read_metadata(version, frame)
    with suppress(PeerError):
        broker_answers.read_api_versions(frame)


@given(PLACES, st.integers(3, 12), st.sampled_from([-1, 0, 1]), st.integers(-1, 2**31 - 1))
def test_produce_agrees_with_kio(
    parts: list[tuple[str, int, bytes | None]], version: int, acks: int, timeout_ms: int
) -> None:
    frame = kafka_frames.produce(version, 1, parts, acks=acks, timeout_ms=timeout_ms)
    head = wire.parse_head(frame)
    found = requests.read_produce(frame, head)
    assert (found.acks, found.timeout_ms) == (acks, timeout_ms)
    assert sorted(found.parts, key=repr) == sorted((requests.Part(*p) for p in parts), key=repr)
    assert requests.write_produce(head, found) == frame


@given(st.lists(TOPIC, max_size=5), st.integers(1, 12))
def test_metadata_agrees_with_kio(topics: list[str], version: int) -> None:
    frame = kafka_frames.metadata(version, 1, topics)
    found = requests.read_metadata(frame, wire.parse_head(frame))
    assert [name for name, _ in found.topics or ()] == topics


@given(VALUES, st.none() | st.binary(max_size=20), HEADERS, st.sampled_from([0, 1]))
def test_batches_agree_with_aiokafka(
    values: list[bytes | None],
    key: bytes | None,
    headers: list[tuple[str, bytes]],
    codec: int,
) -> None:
    data = batch(*values, key=key, headers=headers, codec=codec)
    theirs = DefaultRecordBatch(data)
    assert theirs.validate_crc()
    ours = wire.records_of(wire.parse_batch(data))
    assert [(r.key, r.value, [(n.decode(), v) for n, v in r.headers]) for r in ours] == [
        (r.key, r.value, list(r.headers)) for r in theirs
    ]


@given(VALUES, st.integers(0), st.integers(1, 255))
def test_no_changed_byte_under_the_crc_passes(
    values: list[bytes | None], place: int, change: int
) -> None:
    data = batch(*values)
    at = 16 + place % (len(data) - 16)
    changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    with suppress(PeerError):
        wire.parse_batch(changed)
        raise AssertionError("a changed batch was taken")


STAGE = Stage()


@settings(max_examples=200)
@given(st.binary(max_size=120), st.sampled_from([0, 3, 18, 22]), st.integers(0, 13))
def test_a_machine_takes_any_frame(data: bytes, api: int, version: int) -> None:
    stage = STAGE
    machine = type(stage.machine)(stage.machine._identity, stage.judge, stage.directory)
    frame = kafka_frames.head(api, version, 1)[:-1] + data
    machine.step(Received(frame), stage.now)
    machine.step(Received(data), stage.now)
    machine.step(Answered(1, data), stage.now)
