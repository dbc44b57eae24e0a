"""fabric.kafka.metadata: the bytes of a question and its answer, and a real broker's."""

import asyncio
import contextlib
import ssl
import uuid
from datetime import timedelta
from io import BytesIO

import pytest
from kio.schema.errors import ErrorCode
from kio.schema.metadata.v12.request import MetadataRequest
from kio.schema.metadata.v12.response import MetadataResponse, MetadataResponseTopic
from kio.schema.request_header.v2.header import RequestHeader
from kio.schema.response_header.v1.header import ResponseHeader
from kio.schema.types import TopicName
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i32, i32Timedelta

from fabric import tls
from fabric.demo.process import free_port
from fabric.kafka.admin import AdminTls, KafkaAdmin, TopicSpec
from fabric.kafka.broker_answers import TopicSaid
from fabric.kafka.metadata import TopicRights, _rights, read, request, rights
from fabric.model.errors import PeerError, Reason, UnavailableError
from tests.conftest import TestBroker

TOPIC = "secret.G01.notes"


def answer(bits: int, code: ErrorCode = ErrorCode.none) -> bytes:
    """As a broker writes it, by another codec than the one that reads it."""
    topic = MetadataResponseTopic(
        error_code=code,
        name=TopicName(TOPIC),
        topic_id=uuid.UUID(int=5),
        partitions=(),
        topic_authorized_operations=i32(bits),
    )
    zero = i32Timedelta.parse(timedelta(0))
    made = MetadataResponse(throttle_time=zero, brokers=(), cluster_id="c", topics=(topic,))
    out = BytesIO()
    entity_writer(ResponseHeader)(out, ResponseHeader(correlation_id=i32(1)))
    entity_writer(MetadataResponse)(out, made)
    return out.getvalue()


def topic(bits: int, code: ErrorCode = ErrorCode.none) -> TopicSaid:
    (found,) = read(answer(bits, code)).topics
    return found


def test_the_question_names_the_topics_and_creates_none() -> None:
    data = request([TOPIC, "other"], "a client", with_rights=True)
    header, size = entity_reader(RequestHeader)(data, 0)
    question, _ = entity_reader(MetadataRequest)(data, size)
    assert (header.client_id, int(header.request_api_version)) == ("a client", 12)
    assert [item.name for item in question.topics or ()] == [TOPIC, "other"]
    assert not question.allow_auto_topic_creation
    assert question.include_topic_authorized_operations


@pytest.mark.parametrize(
    ("bits", "may"),
    [(0, (False, False)), (8, (True, False)), (16, (False, True)), (-(2**31), (False, False))],
)
def test_rights_are_what_the_broker_says_and_nothing_when_it_says_nothing(
    bits: int, may: tuple[bool, bool]
) -> None:
    found = _rights(topic(bits))
    assert (found.exists, found.may_read, found.may_write) == (True, *may)


@pytest.mark.parametrize(
    "code", [ErrorCode.topic_authorization_failed, ErrorCode.unknown_topic_or_partition]
)
def test_a_topic_that_is_not_shown_is_not_there(code: ErrorCode) -> None:
    assert _rights(topic(24, code)) == TopicRights(exists=False)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40])
def test_an_answer_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        read(data)
    assert caught.value.reason is Reason.MALFORMED


def test_an_answer_is_read_whole() -> None:
    found = read(answer(8))
    assert (found.cluster_id, [*found.nodes]) == ("c", [])
    assert (found.topics[0].name, found.topics[0].ident) == (TOPIC, uuid.UUID(int=5).bytes)


def test_a_forged_length_ends_no_process() -> None:
    """A decoder that believed it would abort this one; agents ask brokers this, too."""
    frame = answer(8)
    for at in range(4, len(frame)):
        for forged in (b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08"):
            with contextlib.suppress(PeerError):
                read(frame[:at] + forged + frame[at + 1 :])


async def test_a_broker_that_is_away_is_named_with_why() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"{address}: nobody listens"):
        await rights(address, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), [TOPIC], client_id="test")


@pytest.mark.integration
async def test_a_real_broker_tells_each_certificate_its_own_rights(broker: TestBroker) -> None:
    certificate, key = broker.files("admin")
    admin = KafkaAdmin([broker.address], AdminTls(certificate=certificate, key=key, ca=broker.ca))
    name = f"secret.T.{uuid.uuid4().hex[:12]}"
    await admin.ensure_topics([TopicSpec(name=name, partitions=1, settings={})])
    await admin.grant_read("verifier", [name])

    async def of(part: str, asked: str) -> TopicRights:
        context = tls.client_context(*broker.files(part), broker.ca)
        return (await rights(broker.address, context, [asked], client_id="test"))[asked]

    both = TopicRights(exists=True, may_read=True, may_write=True)
    assert await of("admin", name) == both
    assert await of("admin", "no.such.topic") == TopicRights(exists=False)
    async with asyncio.timeout(10):  # rights reach the broker a little after the answer
        while await of("verifier", name) != TopicRights(exists=True, may_read=True):
            await asyncio.sleep(0.05)
