"""Ask a broker which cluster it belongs to and which id a topic has.

aiokafka speaks Metadata v5, which knows no topic ids, so one Metadata v12
request is written with kio on a connection of its own. A deleted and remade
topic has another id, and then an offset hint means nothing.
"""

import asyncio
import io
import ssl
import struct
from collections.abc import Sequence

from kio.schema.errors import ErrorCode
from kio.schema.metadata.v12.request import MetadataRequest, MetadataRequestTopic
from kio.schema.metadata.v12.response import MetadataResponse
from kio.schema.request_header.v2.header import RequestHeader
from kio.schema.response_header.v1.header import ResponseHeader
from kio.schema.types import TopicName
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i16, i32

from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import FRAME_BYTES_MAX, REQUEST_S_MAX

_METADATA = 3
_VERSION = 12
_CORRELATION = 1


async def identify(
    brokers: Sequence[str], context: ssl.SSLContext, topic: str, *, client_id: str
) -> tuple[str, str]:
    """Cluster id and topic id, from the first broker that answers.

    Raises:
        DeniedError: NOT_A_CONSUMER, the topic must not be seen by us.
        UnavailableError: BROKER_UNAVAILABLE or NOT_READY.
    """
    failure: Exception | None = None
    for address in brokers:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                answer = await _ask(host, int(port), context, _request(topic, client_id))
            return _identity(answer, topic)
        except (OSError, EOFError, TimeoutError, PeerError) as exc:
            failure = exc
    raise UnavailableError(
        Reason.BROKER_UNAVAILABLE, f"no broker tells its cluster id ({type(failure).__name__})"
    ) from failure


def _request(topic: str, client_id: str) -> bytes:
    out = io.BytesIO()
    header = RequestHeader(
        request_api_key=i16(_METADATA),
        request_api_version=i16(_VERSION),
        correlation_id=i32(_CORRELATION),
        client_id=client_id,
    )
    entity_writer(RequestHeader)(out, header)
    wanted = MetadataRequestTopic(topic_id=None, name=TopicName(topic))
    request = MetadataRequest(
        topics=(wanted,),
        allow_auto_topic_creation=False,
        include_topic_authorized_operations=False,
    )
    entity_writer(MetadataRequest)(out, request)
    return out.getvalue()


async def _ask(host: str, port: int, context: ssl.SSLContext, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(struct.pack(">i", len(request)) + request)
        await writer.drain()
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        if not 0 < size <= FRAME_BYTES_MAX:
            raise PeerError(Reason.MALFORMED, "broker's answer has an impossible length")
        return await reader.readexactly(size)
    finally:
        writer.close()


def _identity(answer: bytes, topic: str) -> tuple[str, str]:
    try:
        _, size = entity_reader(ResponseHeader)(answer, 0)
        response, _ = entity_reader(MetadataResponse)(answer, size)
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise PeerError(Reason.MALFORMED, "broker's answer does not decode") from exc
    for item in response.topics:
        if item.error_code is ErrorCode.topic_authorization_failed:
            raise DeniedError(Reason.NOT_A_CONSUMER, f"reading topic {topic} is not allowed")
        if item.error_code is ErrorCode.none and item.name == topic and item.topic_id is not None:
            return response.cluster_id or "", str(item.topic_id)
    raise UnavailableError(Reason.NOT_READY, f"topic {topic} does not exist yet")
