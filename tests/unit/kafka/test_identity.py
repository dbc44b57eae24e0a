"""Which log is it: the bytes of one Metadata question and its answer."""

import uuid
from io import BytesIO

import pytest
from kio.schema.errors import ErrorCode
from kio.schema.metadata.v12.response import MetadataResponse, MetadataResponseTopic
from kio.schema.response_header.v1.header import ResponseHeader
from kio.schema.types import TopicName
from kio.serial import entity_writer
from kio.static.primitive import i32, i32Timedelta

from fabric.kafka import identity
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError

TOPIC = "secret.G01.notes"
ID = uuid.UUID(int=5)


def answer(*topics: MetadataResponseTopic) -> bytes:
    from datetime import timedelta

    out = BytesIO()
    entity_writer(ResponseHeader)(out, ResponseHeader(correlation_id=i32(1)))
    response = MetadataResponse(
        throttle_time=i32Timedelta.parse(timedelta(0)),
        brokers=(),
        cluster_id="cluster",
        topics=topics,
    )
    entity_writer(MetadataResponse)(out, response)
    return out.getvalue()


def topic(code: ErrorCode = ErrorCode.none, name: str = TOPIC) -> MetadataResponseTopic:
    return MetadataResponseTopic(error_code=code, name=TopicName(name), topic_id=ID, partitions=())


def test_the_answer_gives_cluster_and_topic_id() -> None:
    assert identity._identity(answer(topic()), TOPIC) == ("cluster", str(ID))


@pytest.mark.parametrize(
    ("data", "family", "reason"),
    [
        (
            answer(topic(ErrorCode.topic_authorization_failed)),
            DeniedError,
            Reason.NOT_A_CONSUMER,
        ),
        (answer(topic(ErrorCode.unknown_topic_or_partition)), UnavailableError, Reason.NOT_READY),
        (answer(topic(name="another")), UnavailableError, Reason.NOT_READY),
        (answer(), UnavailableError, Reason.NOT_READY),
        (b"", PeerError, Reason.MALFORMED),
        (b"\xff" * 40, PeerError, Reason.MALFORMED),
    ],
)
def test_other_answers_say_why(data: bytes, family: type[FabricError], reason: Reason) -> None:
    with pytest.raises(family) as caught:
        identity._identity(data, TOPIC)
    assert caught.value.reason is reason


async def test_no_broker_means_unavailable(unused_tcp_port: int) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(UnavailableError) as caught:
        await identity.identify(
            [f"127.0.0.1:{unused_tcp_port}"], context, TOPIC, client_id="a test"
        )
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE
