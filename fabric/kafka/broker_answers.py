"""Brokers' answers as types, cut by hand: what is a broker's own word never meets kio's decoder.

That decoder believes the length of a compact array and aborts the whole process on a large
one (see cursor.py), and a broker may be an enemy. Here every length is held against what is
left of the frame, and an answer may have so many items. Tagged fields are passed over.
Errors: Malformed for an answer that does not decode.
Spec: Kafka's ProduceResponse 3..12, MetadataResponse 0..12, ApiVersionsResponse 0.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fabric.kafka.cursor import Cursor
from fabric.model.errors import Malformed
from fabric.model.limits import ANSWER_ITEMS_MAX, RECORD_ERRORS_MAX

_CORRELATION_BYTES = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTITION = struct.Struct(">hiii")
_OLD_PARTITION = struct.Struct(">hii")
_FLEXIBLE_FROM = 9
"""First version of Produce, and of Metadata, with tagged fields and compact lengths."""
_NAME_FROM = 12
"""First version of Metadata in which a topic may have no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAnswer:
    """What became of one partition of a Produce request.

    Attributes:
        error: Kafka error code, 0 for success.
        appended: broker's append time, where the topic has it.
        record_errors: (index of the record in its batch, text); from version 8 on.
    """

    topic: str
    partition: int
    error: int = 0
    base_offset: int = -1
    appended: datetime | None = None
    log_start_offset: int = -1
    record_errors: tuple[tuple[int, str | None], ...] = ()
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a Metadata answer says: nodes' addresses and partitions' leaders (-1: none)."""

    nodes: Mapping[int, tuple[str, int]]
    leaders: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSaid:
    """One partition in a Metadata answer; what its version has not is as Kafka defaults it."""

    error: int
    index: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    offline: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSaid:
    """One topic in a Metadata answer; `ident` is 16 bytes, zero where it has none."""

    error: int
    name: str | None
    ident: bytes
    is_internal: bool
    partitions: tuple[PartitionSaid, ...]
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A whole Metadata answer, its nodes' racks left out."""

    throttle_ms: int
    nodes: Mapping[int, tuple[str, int]]
    cluster_id: str | None
    controller: int
    topics: tuple[TopicSaid, ...]
    operations: int

    @property
    def cluster(self) -> Cluster:
        """What the gateway itself goes by."""
        return Cluster(
            nodes=self.nodes,
            leaders={
                (topic.name, part.index): part.leader
                for topic in self.topics
                if topic.name is not None and topic.error == 0
                for part in topic.partitions
            },
        )


class _Answer(Cursor):
    """A cursor behind an answer's header; arrays share one number of items."""

    __slots__ = ("_flexible", "_room")

    def __init__(self, frame: bytes, *, flexible: bool) -> None:
        super().__init__(frame)
        self._flexible = flexible
        self._room = ANSWER_ITEMS_MAX
        self.take(_CORRELATION_BYTES)
        self.skip_tags()

    def skip_tags(self) -> None:
        """Pass over tagged fields, where the version has them."""
        self.tags(flexible=self._flexible)

    def items(self, item_bytes_min: int) -> range:
        """The places of an array's items."""
        count = self.count(flexible=self._flexible, item_bytes_min=item_bytes_min)
        self._room -= count
        if count < 0 or self._room < 0:
            raise Malformed("array is null or an answer has too many items")
        return range(count)

    def nullable(self) -> str | None:
        """A string that may be null."""
        return self.text(flexible=self._flexible)

    def named(self) -> str:
        """A string that may not be null."""
        found = self.nullable()
        if found is None:
            raise Malformed("string must not be null")
        return found

    def integers(self) -> tuple[int, ...]:
        """An array of 32-bit integers."""
        count = len(self.items(4))
        return struct.unpack(f">{count}i", self.take(4 * count))


def read_produce(version: int, frame: bytes) -> tuple[tuple[PartAnswer, ...], int]:
    """A broker's Produce answer, part by part, and its throttle time in milliseconds."""
    answer = _Answer(frame, flexible=version >= _FLEXIBLE_FROM)
    parts: list[PartAnswer] = []
    for _ in answer.items(2):
        topic = answer.named()
        parts += [_part(answer, version, topic) for _ in answer.items(22)]
        answer.skip_tags()
    throttle_ms = answer.integer(4)
    answer.skip_tags()
    answer.end()
    return tuple(parts), throttle_ms


def _part(answer: _Answer, version: int, topic: str) -> PartAnswer:
    partition, error, base_offset = answer.integer(4), answer.integer(2), answer.integer(8)
    appended = _time(answer.integer(8))
    log_start_offset = answer.integer(8) if version >= 5 else -1
    errors: tuple[tuple[int, str | None], ...] = ()
    message = None
    if version >= 8:
        places = answer.items(6)
        if len(places) > RECORD_ERRORS_MAX:
            raise Malformed("answer has more record errors than a batch has records")
        errors = tuple(_record_error(answer) for _ in places)
        message = answer.nullable()
    answer.skip_tags()
    return PartAnswer(
        topic=topic,
        partition=partition,
        error=error,
        base_offset=base_offset,
        appended=appended,
        log_start_offset=log_start_offset,
        record_errors=errors,
        message=message,
    )


def _record_error(answer: _Answer) -> tuple[int, str | None]:
    found = answer.integer(4), answer.nullable()
    answer.skip_tags()
    return found


def _time(milliseconds: int) -> datetime | None:
    """A time since 1970; None for -1, and for what no calendar has."""
    if milliseconds < 0:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as exc:
        raise Malformed("time is beyond the calendar") from exc


def read_metadata(version: int, frame: bytes) -> Metadata:
    """A broker's Metadata answer."""
    answer = _Answer(frame, flexible=version >= _FLEXIBLE_FROM)
    throttle_ms = answer.integer(4) if version >= 3 else 0
    nodes = dict(_node(answer, version) for _ in answer.items(10))
    cluster_id = answer.nullable() if version >= 2 else None
    controller = answer.integer(4) if version >= 1 else -1
    topics = tuple(_topic(answer, version) for _ in answer.items(8))
    operations = answer.integer(4) if 8 <= version <= 10 else _NO_OPERATIONS
    answer.skip_tags()
    answer.end()
    return Metadata(
        throttle_ms=throttle_ms,
        nodes=nodes,
        cluster_id=cluster_id,
        controller=controller,
        topics=topics,
        operations=operations,
    )


_NO_OPERATIONS = -(2**31)
"""What Kafka says where nobody asked which operations are allowed."""


def _node(answer: _Answer, version: int) -> tuple[int, tuple[str, int]]:
    node, host, port = answer.integer(4), answer.named(), answer.integer(4)
    if version >= 1:
        answer.nullable()  # its rack
    answer.skip_tags()
    return node, (host, port)


def _topic(answer: _Answer, version: int) -> TopicSaid:
    error = answer.integer(2)
    name = answer.nullable() if version >= _NAME_FROM else answer.named()
    ident = answer.take(16) if version >= 10 else bytes(16)
    is_internal = answer.boolean() if version >= 1 else False
    partitions = tuple(_partition(answer, version) for _ in answer.items(18))
    operations = answer.integer(4) if version >= 8 else _NO_OPERATIONS
    answer.skip_tags()
    return TopicSaid(
        error=error,
        name=name,
        ident=ident,
        is_internal=is_internal,
        partitions=partitions,
        operations=operations,
    )


def _partition(answer: _Answer, version: int) -> PartitionSaid:
    if version >= 7:
        error, index, leader, leader_epoch = answer.fields(_PARTITION)
    else:
        error, index, leader = answer.fields(_OLD_PARTITION)
        leader_epoch = -1
    replicas, in_sync = answer.integers(), answer.integers()
    offline = answer.integers() if version >= 5 else ()
    answer.skip_tags()
    return PartitionSaid(
        error=error,
        index=index,
        leader=leader,
        leader_epoch=leader_epoch,
        replicas=replicas,
        in_sync=in_sync,
        offline=offline,
    )


def read_api_versions(frame: bytes) -> dict[int, tuple[int, int]]:
    """What a broker offers, from its ApiVersions answer in version 0; by API key."""
    answer = _Answer(frame, flexible=False)
    answer.integer(2)  # its error: an answer that names versions has been of use
    found = {answer.integer(2): (answer.integer(2), answer.integer(2)) for _ in answer.items(6)}
    answer.end()
    return found
