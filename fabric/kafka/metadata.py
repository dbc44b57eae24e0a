"""One Metadata v12 question to one broker, on a connection of its own.

aiokafka speaks v5, which knows neither topic ids nor what the one who asks may do
with a topic. Asking creates no topic and changes nothing.
"""

import asyncio
import io
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kio.schema.metadata.v12.request import MetadataRequest, MetadataRequestTopic
from kio.schema.request_header.v2.header import RequestHeader
from kio.schema.types import TopicName
from kio.serial import entity_writer
from kio.static.primitive import i16, i32

from fabric.kafka.broker_answers import Metadata, TopicSaid, read_metadata
from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.model.limits import FRAME_BYTES_MAX, REQUEST_S_MAX
from fabric.tls import why_not

_METADATA = 3
_VERSION = 12
_CORRELATION = 1
_READ, _WRITE = 1 << 3, 1 << 4
"""Bits of AclOperation.READ and WRITE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRights:
    """A topic as one broker shows it to the one who asks.

    Attributes:
        exists: False also when we may not even see it.
        leaderless: partitions that nobody leads now.
    """

    exists: bool
    leaderless: int = 0
    may_read: bool = False
    may_write: bool = False


async def rights(
    address: str, context: ssl.SSLContext, topics: Sequence[str], *, client_id: str
) -> Mapping[str, TopicRights]:
    """What the certificate of `context` may do with each of these topics.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, with why nobody answers.
        PeerError: the answer is none.
    """
    host, _, port = address.rpartition(":")
    question = request(topics, client_id, with_rights=True)
    try:
        async with asyncio.timeout(REQUEST_S_MAX):
            answer = await ask(host.strip("[]"), int(port), context, question)
    except (OSError, EOFError, TimeoutError) as exc:
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, f"{address}: {why_not(exc)}") from exc
    found = {topic.name: _rights(topic) for topic in read(answer).topics}
    return {topic: found.get(topic, TopicRights(exists=False)) for topic in topics}


def _rights(topic: TopicSaid) -> TopicRights:
    if topic.error:
        return TopicRights(exists=False)
    bits = max(0, topic.operations)
    return TopicRights(
        exists=True,
        leaderless=sum(part.error != 0 for part in topic.partitions),
        may_read=bool(bits & _READ),
        may_write=bool(bits & _WRITE),
    )


def request(topics: Sequence[str], client_id: str, *, with_rights: bool = False) -> bytes:
    """The question's frame without its length."""
    out = io.BytesIO()
    header = RequestHeader(
        request_api_key=i16(_METADATA),
        request_api_version=i16(_VERSION),
        correlation_id=i32(_CORRELATION),
        client_id=client_id,
    )
    entity_writer(RequestHeader)(out, header)
    wanted = tuple(MetadataRequestTopic(topic_id=None, name=TopicName(name)) for name in topics)
    question = MetadataRequest(
        topics=wanted,
        allow_auto_topic_creation=False,
        include_topic_authorized_operations=with_rights,
    )
    entity_writer(MetadataRequest)(out, question)
    return out.getvalue()


async def ask(host: str, port: int, context: ssl.SSLContext, question: bytes) -> bytes:
    """The answer's frame without its length; raises OSError, EOFError or PeerError."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(struct.pack(">i", len(question)) + question)
        await writer.drain()
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        if not 0 < size <= FRAME_BYTES_MAX:
            raise PeerError(Reason.MALFORMED, "broker's answer has an impossible length")
        return await reader.readexactly(size)
    finally:
        writer.close()


def read(answer: bytes) -> Metadata:
    """An answer's content; raises PeerError MALFORMED."""
    return read_metadata(_VERSION, answer)
