"""The gateway's answers as bytes, written with kio.

This is the one module of the gateway that touches kio, and it only writes: what clients
send goes through requests.py, what brokers answer through broker_answers.py.
"""

import importlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from kio.schema.errors import ErrorCode
from kio.serial import entity_writer

from fabric.gateway.apis import Api, is_flexible
from fabric.kafka.broker_answers import Metadata, PartAnswer, PartitionSaid, TopicSaid
from fabric.kafka.fields import write_count, write_text

_INT = _CORRELATION = struct.Struct(">i")
_ERROR = struct.Struct(">h")
_PARTITION = struct.Struct(">hiii")
_OLD_PARTITION = struct.Struct(">hii")
_MODULES = {
    Api.PRODUCE: ("produce", "ProduceResponse"),
    Api.METADATA: ("metadata", "MetadataResponse"),
    Api.API_VERSIONS: ("api_versions", "ApiVersionsResponse"),
    Api.INIT_PRODUCER_ID: ("init_producer_id", "InitProducerIdResponse"),
}


@lru_cache(maxsize=64)
def _module(api: Api, version: int) -> Any:
    return importlib.import_module(f"kio.schema.{_MODULES[api][0]}.v{version}.response")


@lru_cache(maxsize=64)
def _writer(api: Api, version: int) -> Any:
    return entity_writer(getattr(_module(api, version), _MODULES[api][1]))


def _encode(api: Api, version: int, correlation: int, entity: Any) -> bytes:
    out = io.BytesIO()
    out.write(_CORRELATION.pack(correlation))
    if api is not Api.API_VERSIONS and is_flexible(api, version):
        out.write(b"\0")
    _writer(api, version)(out, entity)
    return out.getvalue()


@lru_cache(maxsize=256)
def _known(cls: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(cls))


def _make(cls: Any, **values: object) -> Any:
    """Build an entity from those values that its version has."""
    known = _known(cls)
    return cls(**{name: value for name, value in values.items() if name in known})


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


def rewrite_metadata(
    version: int, correlation: int, *, said: Metadata, nodes: Mapping[int, tuple[str, int]]
) -> bytes:
    """The broker's Metadata answer with the nodes that the client shall see.

    Written by hand: kio takes ten times as long, and an answer may name every topic.
    """
    flexible = is_flexible(Api.METADATA, version)
    tags = b"\0" if flexible else b""
    out = [_CORRELATION.pack(correlation), tags]
    if version >= 3:
        out.append(_INT.pack(said.throttle_ms))
    out.append(write_count(len(nodes), flexible))
    for node, (host, port) in sorted(nodes.items()):
        rack = write_text(None, flexible) if version >= 1 else b""
        out += [_INT.pack(node), write_text(host, flexible), _INT.pack(port), rack, tags]
    if version >= 2:
        out.append(write_text(said.cluster_id, flexible))
    if version >= 1:
        out.append(_INT.pack(said.controller))
    out.append(write_count(len(said.topics), flexible))
    lists: dict[tuple[int, ...], bytes] = {}
    for topic in said.topics:
        out += [_topic(version, topic, flexible), write_count(len(topic.partitions), flexible)]
        for part in topic.partitions:
            out.append(_partition(version, part))
            found = (part.replicas, part.in_sync, part.offline)
            for nodes_of in found if version >= 5 else found[:2]:
                data = lists.get(nodes_of)  # most partitions lie on the same few nodes
                if data is None:
                    data = lists[nodes_of] = _integers(nodes_of, flexible)
                out.append(data)
            out.append(tags)
        if version >= 8:
            out.append(_INT.pack(topic.operations))
        out.append(tags)
    if 8 <= version <= 10:
        out.append(_INT.pack(said.operations))
    out.append(tags)
    return b"".join(out)


def _topic(version: int, topic: TopicSaid, flexible: bool) -> bytes:
    data = _ERROR.pack(_known_error(topic.error)) + write_text(topic.name, flexible)
    if version >= 10:
        data += topic.ident
    return data + bytes([topic.is_internal]) if version >= 1 else data


def _partition(version: int, part: PartitionSaid) -> bytes:
    error = _known_error(part.error) if part.error else 0
    if version >= 7:
        return _PARTITION.pack(error, part.index, part.leader, part.leader_epoch)
    return _OLD_PARTITION.pack(error, part.index, part.leader)


def _known_error(code: int) -> int:
    return int(_error(code).value)


def _integers(values: Sequence[int], flexible: bool) -> bytes:
    return write_count(len(values), flexible) + struct.pack(f">{len(values)}i", *values)


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
