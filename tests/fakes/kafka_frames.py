"""Kafka's frames as a client and as a broker see them, by kio: an oracle beside our own codec."""

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

NAMES = {0: "produce", 1: "fetch", 3: "metadata", 18: "api_versions", 22: "init_producer_id"}
FLEXIBLE = {0: 9, 1: 12, 3: 9, 18: 3, 22: 2}
CLIENT = "tester"


def module(api: int, version: int, kind: str) -> Any:
    return importlib.import_module(f"kio.schema.{NAMES[api]}.v{version}.{kind}")


def entity(cls: Any, **values: Any) -> Any:
    known = {field.name for field in fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in known})


def _class(api: int, version: int, kind: str) -> Any:
    stem = "".join(part.title() for part in NAMES[api].split("_"))
    return getattr(module(api, version, kind), f"{stem}{kind.title()}")


def head(api: int, version: int, correlation: int, client_id: str | None = CLIENT) -> bytes:
    text = b"\xff\xff" if client_id is None else _short(client_id.encode())
    tags = b"\0" if version >= FLEXIBLE[api] else b""
    parts = [n.to_bytes(size, signed=True) for n, size in ((api, 2), (version, 2))]
    return b"".join((*parts, correlation.to_bytes(4, signed=True), text, tags))


def _short(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def request(api: int, version: int, correlation: int, **values: Any) -> bytes:
    """A client's frame."""
    out = io.BytesIO()
    out.write(head(api, version, correlation))
    cls = _class(api, version, "request")
    entity_writer(cls)(out, entity(cls, **values))
    return out.getvalue()


def produce(
    version: int,
    correlation: int,
    parts: Sequence[tuple[str, int, bytes | None]],
    *,
    acks: int = -1,
    timeout_ms: int = 5_000,
    transactional_id: str | None = None,
) -> bytes:
    """A Produce frame."""
    shapes = module(0, version, "request")
    by_topic: dict[str, list[Any]] = {}
    for topic, partition, records in parts:
        data = shapes.PartitionProduceData(index=partition, records=records)
        by_topic.setdefault(topic, []).append(data)
    topics = tuple(
        shapes.TopicProduceData(name=topic, partition_data=tuple(found))
        for topic, found in by_topic.items()
    )
    return request(
        0,
        version,
        correlation,
        transactional_id=transactional_id,
        acks=acks,
        timeout=timedelta(milliseconds=timeout_ms),
        topic_data=topics,
    )


def metadata(version: int, correlation: int, topics: Sequence[str] | None) -> bytes:
    """A Metadata frame."""
    shape = module(3, version, "request").MetadataRequestTopic
    wanted = None if topics is None else tuple(entity(shape, name=t, topic_id=None) for t in topics)
    return request(
        3,
        version,
        correlation,
        topics=wanted,
        allow_auto_topic_creation=True,
        include_topic_authorized_operations=False,
        include_cluster_authorized_operations=False,
    )


def api_versions(version: int, correlation: int) -> bytes:
    """An ApiVersions frame."""
    name = {"client_software_name": "tester", "client_software_version": "1"}
    return request(18, version, correlation, **name)


def init_producer_id(version: int, correlation: int, transactional_id: str | None = None) -> bytes:
    """An InitProducerId frame."""
    return request(
        22,
        version,
        correlation,
        transactional_id=transactional_id,
        transaction_timeout=timedelta(seconds=1),
        producer_id=-1,
        producer_epoch=-1,
    )


@dataclass(frozen=True)
class Asked:
    """A request as the broker reads it."""

    api: int
    version: int
    correlation: int
    body: Any


def read_request(frame: bytes) -> Asked:
    """Read a frame that the gateway sent, to its last byte."""
    api, version = int.from_bytes(frame[:2]), int.from_bytes(frame[2:4])
    size = int.from_bytes(frame[8:10], signed=True)
    at = 10 + max(size, 0) + (1 if version >= FLEXIBLE[api] else 0)
    body, used = entity_reader(_class(api, version, "request"))(frame, at)
    assert at + used == len(frame)
    return Asked(api, version, int.from_bytes(frame[4:8], signed=True), body)


def read_answer(api: int, version: int, frame: bytes) -> tuple[int, Any]:
    """Correlation id and body of an answer, read to its last byte."""
    at = 5 if api != 18 and version >= FLEXIBLE[api] else 4
    body, used = entity_reader(_class(api, version, "response"))(frame, at)
    assert at + used == len(frame)
    return int.from_bytes(frame[:4], signed=True), body


def _answer(asked: Asked, **values: Any) -> bytes:
    out = io.BytesIO()
    out.write(asked.correlation.to_bytes(4, signed=True))
    if asked.api != 18 and asked.version >= FLEXIBLE[asked.api]:
        out.write(b"\0")
    cls = _class(asked.api, asked.version, "response")
    values = {"throttle_time": timedelta(0), **values}
    entity_writer(cls)(out, entity(cls, **values))
    return out.getvalue()


class Broker:
    """A broker that answers what it is sent, and keeps what it was asked.

    Attributes:
        errors: Kafka error code by (topic, partition); others succeed.
        next_offset: the offset of the next batch, the same for all partitions.
    """

    def __init__(self, nodes: Mapping[int, tuple[str, int]] | None = None) -> None:
        self.nodes = nodes or {1: ("broker1", 9092)}
        self.leaders: dict[tuple[str, int], int] = {}
        self.errors: dict[tuple[str, int], int] = {}
        self.next_offset = 100
        self.asked: list[Asked] = []

    def answer(self, frame: bytes) -> bytes:
        """Answer one frame."""
        asked = read_request(frame)
        self.asked.append(asked)
        if asked.api == 0:
            return self._produce(asked)
        if asked.api == 3:
            return self._metadata(asked)
        if asked.api == 22:
            return _answer(asked, error_code=ErrorCode.none, producer_id=9, producer_epoch=0)
        spans = ((0, 0, 13), (1, 4, 17), (3, 0, 13), (18, 0, 4), (22, 0, 6), (24, 0, 5))
        shape = module(18, asked.version, "response").ApiVersion
        keys = tuple(shape(api_key=a, min_version=low, max_version=high) for a, low, high in spans)
        return _answer(asked, error_code=ErrorCode.none, api_keys=keys)

    def _produce(self, asked: Asked) -> bytes:
        shapes = module(0, asked.version, "response")
        topics = []
        for topic in asked.body.topic_data:
            parts = []
            for part in topic.partition_data:
                error = self.errors.get((str(topic.name), int(part.index)), 0)
                offset = -1 if error else self.next_offset
                self.next_offset += 0 if error else 1
                parts.append(
                    entity(
                        shapes.PartitionProduceResponse,
                        index=part.index,
                        error_code=ErrorCode(error),
                        base_offset=offset,
                        log_append_time=None,
                        log_start_offset=0,
                        record_errors=(),
                        error_message=None,
                    )
                )
            topics.append(
                shapes.TopicProduceResponse(name=topic.name, partition_responses=tuple(parts))
            )
        extra = {}
        if hasattr(shapes, "NodeEndpoint"):
            endpoint = shapes.NodeEndpoint(node_id=1, host="broker1", port=9092, rack=None)
            extra["node_endpoints"] = (endpoint,)
        return _answer(asked, responses=tuple(topics), **extra)

    def _metadata(self, asked: Asked) -> bytes:
        shapes = module(3, asked.version, "response")
        brokers = tuple(
            shapes.MetadataResponseBroker(node_id=node, host=host, port=port)
            for node, (host, port) in self.nodes.items()
        )
        by_topic: dict[str, list[Any]] = {}
        for (topic, partition), leader in self.leaders.items():
            by_topic.setdefault(topic, []).append(
                entity(
                    shapes.MetadataResponsePartition,
                    error_code=ErrorCode.none,
                    partition_index=partition,
                    leader_id=leader,
                    replica_nodes=(leader,),
                    isr_nodes=(leader,),
                )
            )
        topics = tuple(
            entity(
                shapes.MetadataResponseTopic,
                error_code=ErrorCode.none,
                name=topic,
                topic_id=None,
                is_internal=False,
                partitions=tuple(parts),
            )
            for topic, parts in by_topic.items()
        )
        return _answer(asked, brokers=brokers, topics=topics, controller_id=1, cluster_id="c")
