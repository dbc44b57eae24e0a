"""Requests as types: clients' bytes to what they ask, and back to bytes for a broker.

Decoding is by hand (see wire.py for why) and encoding too, as both are a few
fields. Unknown tagged fields are dropped. Errors: Malformed.
Spec: Kafka's ProduceRequest 3..12, MetadataRequest 0..12, InitProducerIdRequest 0..5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fabric.gateway.apis import Api, is_flexible
from fabric.gateway.wire import Head
from fabric.kafka.cursor import Cursor
from fabric.kafka.fields import write_count, write_text
from fabric.model.errors import Malformed
from fabric.model.limits import PARTITIONS_PER_REQUEST_MAX

_TOPIC_CHARS_MAX = 249
_METADATA_TOPICS_MAX = 1_000


class Part(NamedTuple):
    """What a Produce request wants to append to one partition."""

    topic: str
    partition: int
    records: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Produce:
    """A Produce request; its parts name every partition at most once."""

    transactional_id: str | None
    acks: int
    timeout_ms: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A Metadata request: topics by name and id, None for all."""

    topics: tuple[tuple[str | None, bytes], ...] | None
    with_operations: tuple[bool, ...]


def body(frame: bytes, head: Head, api: Api) -> Cursor:
    """A cursor at the request's body, behind the tags of a flexible header."""
    cursor = Cursor(frame, head.body_at)
    cursor.tags(flexible=is_flexible(api, head.version))
    return cursor


def read_produce(frame: bytes, head: Head) -> Produce:
    """Read a Produce request."""
    flexible = is_flexible(Api.PRODUCE, head.version)
    cursor = body(frame, head, Api.PRODUCE)
    transactional_id = cursor.text(flexible=flexible)
    acks, timeout_ms = cursor.integer(2), cursor.integer(4)
    parts: dict[tuple[str, int], Part] = {}
    for _ in range(_items(cursor, flexible)):
        topic = _topic(cursor, flexible)
        for _ in range(_items(cursor, flexible)):
            part = Part(topic, cursor.integer(4), cursor.octets(flexible=flexible))
            cursor.tags(flexible=flexible)
            if (topic, part.partition) in parts or len(parts) >= PARTITIONS_PER_REQUEST_MAX:
                raise Malformed("request names a partition twice or too many of them")
            parts[topic, part.partition] = part
        cursor.tags(flexible=flexible)
    cursor.tags(flexible=flexible)
    cursor.end()
    return Produce(
        transactional_id=transactional_id,
        acks=acks,
        timeout_ms=timeout_ms,
        parts=tuple(parts.values()),
    )


def write_produce(head: Head, request: Produce) -> bytes:
    """Write a Produce request in the version and with the client id of `head`."""
    flexible = is_flexible(Api.PRODUCE, head.version)
    out = [_head(head, flexible), write_text(request.transactional_id, flexible)]
    out += [_int(request.acks, 2), _int(request.timeout_ms, 4)]
    by_topic: dict[str, list[Part]] = {}
    for part in request.parts:
        by_topic.setdefault(part.topic, []).append(part)
    out.append(write_count(len(by_topic), flexible))
    for topic, parts in by_topic.items():
        out += [write_text(topic, flexible), write_count(len(parts), flexible)]
        for part in parts:
            out += [_int(part.partition, 4), *_octets(part.records, flexible), _tags(flexible)]
        out.append(_tags(flexible))
    out.append(_tags(flexible))
    return b"".join(out)


def read_metadata(frame: bytes, head: Head) -> Metadata:
    """Read a Metadata request; whether topics may be created is not the client's to say."""
    version, flexible = head.version, is_flexible(Api.METADATA, head.version)
    cursor = body(frame, head, Api.METADATA)
    count = cursor.count(flexible=flexible, item_bytes_min=2)
    if count > _METADATA_TOPICS_MAX:
        raise Malformed("request names too many topics")
    topics: list[tuple[str | None, bytes]] = []
    for _ in range(count):
        ident = cursor.take(16) if version >= 10 else bytes(16)
        topics.append((cursor.text(flexible=flexible), ident))
        cursor.tags(flexible=flexible)
    if version >= 4:
        cursor.boolean()
    operations = tuple(cursor.boolean() for _ in range(_operations(version)))
    cursor.tags(flexible=flexible)
    # librdkafka leaves three bytes behind when it asks for all topics; nothing of what
    # is not read is forwarded, so they do no harm.
    # Version 0 has no null: there an empty array means all topics.
    every = count < 0 or (version == 0 and count == 0)
    return Metadata(topics=None if every else tuple(topics), with_operations=operations)


def write_metadata(head: Head, request: Metadata) -> bytes:
    """Write a Metadata request that creates no topics."""
    version, flexible = head.version, is_flexible(Api.METADATA, head.version)
    count = -1 if request.topics is None else len(request.topics)
    count = 0 if version == 0 and count < 0 else count
    out = [_head(head, flexible), write_count(count, flexible)]
    for name, ident in request.topics or ():
        out += [ident if version >= 10 else b"", write_text(name, flexible), _tags(flexible)]
    if version >= 4:
        out.append(b"\0")
    out += [bytes(request.with_operations), _tags(flexible)]
    return b"".join(out)


OWN_METADATA_VERSION = 12
"""Version of the gateway's own Metadata requests."""


def ask_metadata(topics: Sequence[str]) -> bytes:
    """The gateway's own Metadata request (version 12) for topics by name."""
    head = Head(Api.METADATA, OWN_METADATA_VERSION, 0, "fabric-gateway", 0)
    named = tuple((topic, bytes(16)) for topic in topics)
    return write_metadata(head, Metadata(topics=named, with_operations=(False,)))


def ask_api_versions() -> bytes:
    """The gateway's own ApiVersions request (version 0)."""
    return _head(Head(Api.API_VERSIONS, 0, 0, "fabric-gateway", 0), False)


def read_transactional_id(frame: bytes, head: Head) -> str | None:
    """The transactional id of an InitProducerId request."""
    flexible = is_flexible(Api.INIT_PRODUCER_ID, head.version)
    cursor = body(frame, head, Api.INIT_PRODUCER_ID)
    transactional_id = cursor.text(flexible=flexible)
    cursor.integer(4)
    if head.version >= 3:
        cursor.take(8 + 2)
    cursor.tags(flexible=flexible)
    cursor.end()
    return transactional_id


def _operations(version: int) -> int:
    """Number of `include … authorized operations` flags in a Metadata request."""
    if version < 8:
        return 0
    return 2 if version <= 10 else 1


def _items(cursor: Cursor, flexible: bool) -> int:
    count = cursor.count(flexible=flexible, item_bytes_min=2)
    if count < 0:
        raise Malformed("array must not be null")
    return count


def _topic(cursor: Cursor, flexible: bool) -> str:
    name = cursor.text(flexible=flexible)
    if not name or len(name) > _TOPIC_CHARS_MAX:
        raise Malformed("topic name is missing or too long")
    return name


def _head(head: Head, flexible: bool) -> bytes:
    parts = (_int(head.api, 2), _int(head.version, 2), _int(head.correlation, 4))
    return b"".join((*parts, write_text(head.client_id, False), _tags(flexible)))


def _int(value: int, size: int) -> bytes:
    return value.to_bytes(size, signed=True)


def _octets(value: bytes | None, flexible: bool) -> tuple[bytes, bytes]:
    if value is None:
        return write_count(-1, flexible), b""
    return write_count(len(value), flexible), value


def _tags(flexible: bool) -> bytes:
    return b"\0" if flexible else b""
