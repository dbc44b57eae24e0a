"""Answers as types: brokers' bytes to what they say, and ours to bytes, with kio.

Only brokers' answers are decoded here; what clients send goes through requests.py.
This is the one module of the gateway that touches kio's generated types.
Errors: PeerError MALFORMED for an answer that does not decode.
"""

import importlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from fabric.gateway.apis import Api, is_flexible
from fabric.model.errors import Malformed

_CORRELATION = struct.Struct(">i")
_MODULES = {
    Api.PRODUCE: ("produce", "ProduceResponse"),
    Api.METADATA: ("metadata", "MetadataResponse"),
    Api.API_VERSIONS: ("api_versions", "ApiVersionsResponse"),
    Api.INIT_PRODUCER_ID: ("init_producer_id", "InitProducerIdResponse"),
}


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


@lru_cache(maxsize=64)
def _module(api: Api, version: int) -> Any:
    return importlib.import_module(f"kio.schema.{_MODULES[api][0]}.v{version}.response")


@lru_cache(maxsize=64)
def _reader(api: Api, version: int) -> Any:
    return entity_reader(getattr(_module(api, version), _MODULES[api][1]))


@lru_cache(maxsize=64)
def _writer(api: Api, version: int) -> Any:
    return entity_writer(getattr(_module(api, version), _MODULES[api][1]))


def _decode(api: Api, version: int, frame: bytes) -> Any:
    """Decode an answer behind its correlation id and, in flexible versions, its header's tags."""
    tagged = api is not Api.API_VERSIONS and is_flexible(api, version)
    if len(frame) < 5 or (tagged and frame[4] != 0):
        raise Malformed("answer's header is too short or has tags")
    try:
        entity, size = _reader(api, version)(frame, 5 if tagged else 4)
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("answer does not decode") from exc
    if size + (5 if tagged else 4) != len(frame):
        raise Malformed("answer has bytes after its end")
    return entity


def _encode(api: Api, version: int, correlation: int, entity: Any) -> bytes:
    out = io.BytesIO()
    out.write(_CORRELATION.pack(correlation))
    if api is not Api.API_VERSIONS and is_flexible(api, version):
        out.write(b"\0")
    _writer(api, version)(out, entity)
    return out.getvalue()


def _make(cls: Any, **values: object) -> Any:
    """Build an entity from those values that its version has."""
    known = {field.name for field in fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in known})


def read_produce(version: int, frame: bytes) -> tuple[tuple[PartAnswer, ...], int]:
    """A broker's Produce answer, part by part, and its throttle time in milliseconds."""
    entity = _decode(Api.PRODUCE, version, frame)
    parts = [
        PartAnswer(
            topic=str(topic.name),
            partition=int(part.index),
            error=int(part.error_code),
            base_offset=int(part.base_offset),
            appended=part.log_append_time,
            log_start_offset=int(getattr(part, "log_start_offset", -1)),
            record_errors=tuple(
                (int(e.batch_index), e.batch_index_error_message)
                for e in getattr(part, "record_errors", ())
            ),
            message=getattr(part, "error_message", None),
        )
        for topic in entity.responses
        for part in topic.partition_responses
    ]
    return tuple(parts), round(entity.throttle_time.total_seconds() * 1000)


def write_produce(
    version: int, correlation: int, *, parts: Sequence[PartAnswer], throttle_ms: int
) -> bytes:
    """A Produce answer; it never names a node's address, so nobody can go round the gateway."""
    module = _module(Api.PRODUCE, version)
    by_topic: dict[str, list[Any]] = {}
    for part in parts:
        by_topic.setdefault(part.topic, []).append(_part(module, part))
    topics = tuple(
        module.TopicProduceResponse(name=name, partition_responses=tuple(found))
        for name, found in by_topic.items()
    )
    entity = module.ProduceResponse(
        responses=topics, throttle_time=timedelta(milliseconds=throttle_ms)
    )
    return _encode(Api.PRODUCE, version, correlation, entity)


def _part(module: Any, part: PartAnswer) -> Any:
    errors: tuple[Any, ...] = ()
    if part.record_errors and hasattr(module, "BatchIndexAndErrorMessage"):
        errors = tuple(
            module.BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=text)
            for index, text in part.record_errors
        )
    return _make(
        module.PartitionProduceResponse,
        index=part.partition,
        error_code=_error(part.error),
        base_offset=part.base_offset,
        log_append_time=part.appended,
        log_start_offset=part.log_start_offset,
        record_errors=errors,
        error_message=part.message,
    )


def _error(code: int) -> ErrorCode:
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.unknown_server_error


def read_metadata(version: int, frame: bytes) -> Cluster:
    """A broker's Metadata answer."""
    entity = _decode(Api.METADATA, version, frame)
    return Cluster(
        nodes={int(b.node_id): (str(b.host), int(b.port)) for b in entity.brokers},
        leaders={
            (str(topic.name), int(part.partition_index)): int(part.leader_id)
            for topic in entity.topics
            if topic.name is not None and int(topic.error_code) == 0
            for part in topic.partitions
        },
    )


def rewrite_metadata(
    version: int, correlation: int, *, frame: bytes, nodes: Mapping[int, tuple[str, int]]
) -> bytes:
    """The broker's Metadata answer with the nodes that the client shall see."""
    module = _module(Api.METADATA, version)
    entity = replace(_decode(Api.METADATA, version, frame), brokers=_brokers(module, nodes))
    return _encode(Api.METADATA, version, correlation, entity)


def write_metadata(
    version: int,
    correlation: int,
    *,
    nodes: Mapping[int, tuple[str, int]],
    topics: Sequence[str],
    error: int,
) -> bytes:
    """A Metadata answer of ours: the nodes, and every topic with the same retriable error."""
    module = _module(Api.METADATA, version)
    found = tuple(
        _make(
            module.MetadataResponseTopic,
            error_code=_error(error),
            name=name,
            topic_id=None,
            is_internal=False,
            partitions=(),
        )
        for name in topics
    )
    entity = _make(
        module.MetadataResponse,
        throttle_time=timedelta(0),
        brokers=_brokers(module, nodes),
        controller_id=-1,
        topics=found,
        cluster_id=None,
    )
    return _encode(Api.METADATA, version, correlation, entity)


def _brokers(module: Any, nodes: Mapping[int, tuple[str, int]]) -> tuple[Any, ...]:
    return tuple(
        module.MetadataResponseBroker(node_id=node, host=host, port=port)
        for node, (host, port) in sorted(nodes.items())
    )


def write_init_producer_id(version: int, correlation: int, *, error: int) -> bytes:
    """An InitProducerId answer that gives no id."""
    module = _module(Api.INIT_PRODUCER_ID, version)
    entity = _make(
        module.InitProducerIdResponse,
        throttle_time=timedelta(0),
        error_code=_error(error),
        producer_id=-1,
        producer_epoch=-1,
    )
    return _encode(Api.INIT_PRODUCER_ID, version, correlation, entity)


def write_api_versions(
    version: int, correlation: int, *, spans: Mapping[Api, tuple[int, int]], error: int = 0
) -> bytes:
    """An ApiVersions answer: the spans and no feature, so that no client counts on one."""
    module = _module(Api.API_VERSIONS, version)
    keys = tuple(
        module.ApiVersion(api_key=int(api), min_version=low, max_version=high)
        for api, (low, high) in spans.items()
    )
    entity = _make(
        module.ApiVersionsResponse,
        error_code=_error(error),
        api_keys=keys,
        throttle_time=timedelta(0),
    )
    return _encode(Api.API_VERSIONS, version, correlation, entity)


def read_api_versions(frame: bytes) -> dict[int, tuple[int, int]]:
    """What a broker offers, from its ApiVersions answer in version 0."""
    entity = _decode(Api.API_VERSIONS, 0, frame)
    return {int(k.api_key): (int(k.min_version), int(k.max_version)) for k in entity.api_keys}
