"""Targets of fabric.gateway: frames of the Kafka protocol, record batches, a whole connection."""

import gzip
import struct
from collections.abc import Iterator

import zstandard
from crc32c import crc32c

from fabric.database import postgresql_wire
from fabric.gateway import answers, requests, wire
from fabric.gateway.machine import Received
from fabric.kafka import broker_answers
from fabric.model.errors import DeniedError, PeerError
from tests.fakes import kafka_frames
from tests.fakes.gateway import batch
from tests.fakes.gateway_play import Stage
from tests.fakes.kafka_frames import Broker
from tests.fuzz.target import Target

_BODY = struct.Struct(">hiqqqhii")
_STAGE = Stage()


def _produce(data: bytes) -> None:
    head = wire.parse_head(data)
    found = requests.read_produce(data, head)
    again = requests.write_produce(head, found)
    assert requests.read_produce(again, wire.parse_head(again)).parts == found.parts


def _metadata(data: bytes) -> None:
    requests.read_metadata(data, wire.parse_head(data))


def _init_producer(data: bytes) -> None:
    requests.read_transactional_id(data, wire.parse_head(data))


def produces() -> Iterator[bytes]:
    """Produce requests of old, middle and flexible versions."""
    parts = [("a.B.c", 0, batch(b"v", key=b"k")), ("a.B.c", 1, None), ("d", 2, b"")]
    for version in (3, 7, 9, 12):
        yield kafka_frames.produce(version, 1, parts, acks=-1, timeout_ms=100)


def _batch(data: bytes) -> None:
    wire.records_of(wire.parse_batch(data))


def _records(data: bytes) -> None:
    """The inside of a batch whose head and CRC are right; codec and count come first."""
    codec, count = (data[0] & 7, 1 + data[1]) if len(data) > 1 else (0, 1)
    body = _BODY.pack(codec, count - 1, 0, 0, -1, -1, -1, count) + data[2:]
    prefix = struct.pack(">qiib", 0, len(body) + 9, 0, 2)
    _batch(prefix + crc32c(body).to_bytes(4) + body)


def records() -> Iterator[bytes]:
    """Records as they are, compressed well, and as bombs."""
    inside = wire.parse_batch(batch(b"value", b"other", headers=[("h", b"x")])).records
    bomb = bytes(4 * 1024 * 1024)
    for codec, data in (
        (0, inside),
        (1, gzip.compress(inside)),
        (4, zstandard.compress(inside)),
        (1, gzip.compress(bomb)),
        (4, zstandard.compress(bomb)),
        (2, inside),
    ):
        yield bytes([codec, 1]) + data


def _connection(data: bytes) -> None:
    """One frame after another on one connection; each begins with two bytes of length."""
    machine = type(_STAGE.machine)(_STAGE.machine._identity, _STAGE.judge, _STAGE.directory)
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2])
        machine.step(Received(data[at + 2 : at + 2 + size]), _STAGE.now)
        at += 2 + size


def _produce_answer(data: bytes) -> None:
    """The first byte says which version; what was read can be handed on to a client."""
    version = 3 + (data[0] if data else 0) % 10
    parts, throttle_ms = broker_answers.read_produce(version, data[1:])
    answers.write_produce(version, 1, parts=parts, throttle_ms=throttle_ms)


def _metadata_answer(data: bytes) -> None:
    version = (data[0] if data else 0) % 13
    said = broker_answers.read_metadata(version, data[1:])
    again = answers.rewrite_metadata(version, 1, said=said, nodes=said.nodes)
    assert broker_answers.read_metadata(version, again).nodes == said.nodes


def produce_answers() -> Iterator[bytes]:
    """Answers of old, middle and flexible versions."""
    parts = [("a.B.c", 0, batch(b"v")), ("d", 2, None)]
    for version in (3, 7, 9, 12):
        request = kafka_frames.produce(version, 1, parts)
        yield bytes([version - 3]) + Broker().answer(request)


def metadata_answers() -> Iterator[bytes]:
    """Answers with two nodes, a topic with a leader and one with none."""
    broker = Broker({1: ("broker1", 9092), 2: ("broker2", 9092)})
    broker.leaders = {("a", 0): 2, ("a", 1): -1, ("b", 0): 1}
    for version in (0, 1, 5, 8, 9, 12):
        request = kafka_frames.metadata(version, 1, ["a", "b"])
        yield bytes([version]) + broker.answer(request)


def connections() -> Iterator[bytes]:
    """What a client says first, and then."""
    frames = [
        kafka_frames.api_versions(3, 1),
        kafka_frames.metadata(12, 2, None),
        kafka_frames.init_producer_id(4, 3),
        *produces(),
    ]
    yield b"".join(len(frame).to_bytes(2) + frame for frame in frames)


TARGETS = [
    Target(name="kafka-head", parse=wire.parse_head, seeds=produces),
    Target(name="kafka-produce", parse=_produce, seeds=produces),
    Target(
        name="kafka-metadata",
        parse=_metadata,
        seeds=lambda: [kafka_frames.metadata(version, 1, ["a", "b"]) for version in (1, 9, 12)],
    ),
    Target(
        name="kafka-init-producer",
        parse=_init_producer,
        seeds=lambda: [kafka_frames.init_producer_id(version, 1, "t") for version in (0, 4)],
    ),
    Target(
        name="kafka-batch",
        parse=_batch,
        seeds=lambda: [batch(b"value", None, key=b"k"), batch(b"v", codec=1)],
    ),
    Target(name="kafka-produce-answer", parse=_produce_answer, seeds=produce_answers),
    Target(name="kafka-metadata-answer", parse=_metadata_answer, seeds=metadata_answers),
    Target(
        name="kafka-api-versions-answer",
        parse=broker_answers.read_api_versions,
        seeds=lambda: [Broker().answer(kafka_frames.api_versions(0, 1))],
    ),
    Target(name="kafka-records", parse=_records, seeds=records, bytes_max=32_768),
    Target(
        name="kafka-connection",
        parse=_connection,
        seeds=connections,
        families=(PeerError, DeniedError),
    ),
    Target(
        name="postgresql-frame",
        parse=postgresql_wire.parse_frame,
        seeds=lambda: [b"k" + bytes(17), b"w" + bytes(24) + b"B" + bytes(20)],
    ),
]
