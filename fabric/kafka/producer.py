"""Append to one topic through the gateways, with aiokafka, and say how it went.

A producer here sends whole batches that its caller built, with acks=all and without
idempotence, on aiokafka's client and not through its producer: that one gathers, waits
and tries again by itself, is poisoned by the first refusal, and its queues cost a small
block more than its seal. Here only the leader is looked for; all else is the caller's.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeAlias

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerResponseError,
    InvalidTopicError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NoError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from fabric.kafka.closing import close_within
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.model.limits import REQUEST_S_MAX
from fabric.ports import Stored

Items: TypeAlias = Sequence[tuple[bytes | None, bytes]]
ReasonOf: TypeAlias = Callable[[str, int, bytes], Awaitable[Reason | None]]

CONTENT_TYPE = ("content-type", b"application/fabric-envelope")
_SEALED_TAG = b"\xd8\x62"  # CBOR tag 98: the value is a COSE_Sign
_Client: Any = AIOKafkaClient  # the library has no types
_ACKS_ALL = -1
_NO_LEADER = (
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
    UnknownTopicOrPartitionError,
)
_NOBODY = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH_BYTES_MAX = 1_040_000  # below Kafka's message.max.bytes of 1,048,588
_ATTEMPT_S_MAX = 8.0
_CLOSE_S_MAX = 2.0
_LOOK_AGAIN_S = 0.1
_REASONS_ASKED_MAX = 8


def refusal(reason: Reason, message: str) -> FabricError:
    """The error of a refusal's class: wait may pass later, never is the peer's fault."""
    match class_of(reason):
        case ReasonClass.WAIT:
            return UnavailableError(reason, message)
        case ReasonClass.NEVER:
            return PeerError(reason, message)
        case _:
            return DeniedError(reason, message)


class TopicProducer:
    """One topic's connections to the gateways, with the TLS context they were made with."""

    def __init__(
        self, topic: str, gateways: Sequence[str], context: ssl.SSLContext, *, client_id: str
    ) -> None:
        self.context = context
        self._topic = topic
        self._client = _Client(
            bootstrap_servers=list(gateways),
            client_id=client_id,
            request_timeout_ms=int(_ATTEMPT_S_MAX * 1000),
            metadata_max_age_ms=30_000,
            security_protocol="SSL",
            ssl_context=context,
        )

    async def start(self) -> None:
        """Connect; raises UnavailableError GATEWAY_UNAVAILABLE."""
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                await self._client.bootstrap()
        except (KafkaError, OSError, TimeoutError) as exc:
            await self.close()
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE, f"no gateway answers ({type(exc).__name__})"
            ) from exc
        except BaseException:  # cancelled: sockets must not stay behind
            await self.close()
            raise

    async def send(self, partition: int, items: Items) -> Stored:
        """Send one batch and wait for its acknowledgement.

        It goes out once, and again only where the answer says that it met no leader, as it
        is for a moment when a topic is new or its leader moves. Readers know a copy.

        Raises:
            KafkaError, TimeoutError: see `reason_of_failure`.
            DeniedError: TOO_LARGE, or TOPIC_DRIFT when the partition does not exist.
        """
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ACKS_ALL,
            timeout=int(_ATTEMPT_S_MAX * 1000),
            topics=[(self._topic, [(partition, _batch(items))])],
        )
        clock = asyncio.get_running_loop().time
        until = clock() + _ATTEMPT_S_MAX
        async with asyncio.timeout(REQUEST_S_MAX):
            leader = self._known_leader(partition)
            while True:
                if leader is None:
                    leader = await self._leader(partition, until)
                response = await self._ask(leader, request)
                try:
                    return _stored(response, self._topic, partition)
                except _NO_LEADER:
                    if clock() > until:
                        raise
                await asyncio.sleep(_LOOK_AGAIN_S)
                leader = None

    async def _ask(self, leader: int, request: ProduceRequest) -> Any:
        try:
            return await self._client.send(leader, request)
        except RequestTimedOutError as exc:  # nobody answered; the same code is an answer, too
            raise TimeoutError from exc

    def _known_leader(self, partition: int) -> int | None:
        leader = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        return None if leader is None or leader == _NOBODY else int(leader)

    async def _leader(self, partition: int, until: float) -> int:
        """Ask until the topic's partition has a leader, or the loop's clock shows `until`."""
        cluster = self._client.cluster
        self._client.add_topic(self._topic)
        while True:
            await self._client.force_metadata_update()
            if (leader := self._known_leader(partition)) is not None:
                return leader
            if self._topic in cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(self._topic)
            partitions = cluster.partitions_for_topic(self._topic)
            if partitions is not None and partition not in partitions:
                raise DeniedError(
                    Reason.TOPIC_DRIFT, f"topic {self._topic} lacks partition {partition}"
                )
            if asyncio.get_running_loop().time() > until:
                unknown = partitions is None
                raise UnknownTopicOrPartitionError if unknown else LeaderNotAvailableError
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def close(self) -> None:
        """Disconnect; what waits for an acknowledgement fails, its outcome unknown."""
        await close_within(_CLOSE_S_MAX, self._client.close, client=self._client)


def _batch(items: Items) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=_BATCH_BYTES_MAX,
    )
    for number, (key, value) in enumerate(items):
        is_sealed = key is None and value.startswith(_SEALED_TAG)
        headers: list[tuple[str, bytes | None]] = [CONTENT_TYPE] if is_sealed else []
        if builder.append(number, None, key=key, value=value, headers=headers) is None:
            raise DeniedError(Reason.TOO_LARGE, "records do not fit one Kafka batch")
    batch = bytes(builder.build())
    if len(batch) > _BATCH_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "record does not fit one Kafka batch")
    return batch


def _stored(response: Any, topic: str, partition: int) -> Stored:
    """What the answer says of one partition; raises the error that it names."""
    for name, parts in response.topics:
        for number, code, offset, appended, *_ in parts:
            if (name, number) == (topic, partition):
                error = for_code(code)
                if error is NoError:
                    return Stored(offset=int(offset), at=_time(int(appended)))
                raise error(topic) if error is TopicAuthorizationFailedError else error()
    raise KafkaError("answer is for another partition")


def _time(milliseconds: int) -> datetime | None:
    """A time since 1970; None for -1, and for what no calendar has."""
    with contextlib.suppress(OverflowError):
        return None if milliseconds < 0 else _EPOCH + timedelta(milliseconds=milliseconds)
    return None


async def reason_of_failure(
    exc: Exception, topic: str, partition: int, *, items: Items, ask: ReasonOf | None
) -> FabricError:
    """Turn what aiokafka raised into one of our errors, asking the gateway for its reason."""
    if isinstance(exc, MessageSizeTooLargeError | RecordListTooLargeError):
        return DeniedError(Reason.TOO_LARGE, f"record is too large for topic {topic}")
    if not isinstance(exc, BrokerResponseError):
        return UnavailableError(
            Reason.GATEWAY_UNAVAILABLE, f"append to {topic} failed ({type(exc).__name__})"
        )
    reason = await _ask(topic, partition, items, ask)
    if reason is not None:
        return refusal(reason, f"gateway refused a record of {topic}:{partition}")
    if isinstance(exc, TopicAuthorizationFailedError):
        return DeniedError(Reason.NOT_A_PRODUCER, f"writing to topic {topic} is not allowed")
    if isinstance(exc, UnknownTopicOrPartitionError | InvalidTopicError):
        return UnavailableError(Reason.NOT_READY, f"topic {topic} does not exist yet")
    # Why is unknown (a restarted gateway forgets refusals): the same bytes will tell again.
    return UnavailableError(
        Reason.GATEWAY_UNAVAILABLE, f"append to {topic} failed ({type(exc).__name__})"
    )


async def _ask(topic: str, partition: int, items: Items, ask: ReasonOf | None) -> Reason | None:
    if ask is None:
        return None
    for _, value in items[:_REASONS_ASKED_MAX]:
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                reason = await ask(topic, partition, sha256(value).digest())
        except (FabricError, OSError, TimeoutError):
            return None
        if reason is not None:
            return reason
    return None
