"""Append to one topic through the gateways, with aiokafka, and say how it went.

A producer here sends whole batches that its caller built, with acks=all and
without idempotence: aiokafka's idempotent producer is poisoned by the first
refusal. A failed producer is thrown away, never mended; the caller sends the
same bytes again through a new one. Nothing here decides when to try again.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

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

Items: TypeAlias = Sequence[tuple[bytes | None, bytes]]
ReasonOf: TypeAlias = Callable[[str, int, bytes], Awaitable[Reason | None]]

CONTENT_TYPE = ("content-type", b"application/fabric-envelope")
_SEALED_TAG = b"\xd8\x62"  # CBOR tag 98: the value is a COSE_Sign
_Producer: Any = AIOKafkaProducer  # the library has no types
_BATCH_BYTES_MAX = 1_040_000  # below Kafka's message.max.bytes of 1,048,588
_ATTEMPT_S_MAX = 8.0
_CLOSE_S_MAX = 2.0
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
    """One aiokafka producer for one topic, with the TLS context it was made with."""

    def __init__(
        self, topic: str, gateways: Sequence[str], context: ssl.SSLContext, *, client_id: str
    ) -> None:
        self.context = context
        self._topic = topic
        self._producer = _Producer(
            bootstrap_servers=list(gateways),
            client_id=client_id,
            acks="all",
            enable_idempotence=False,
            compression_type=None,
            linger_ms=0,
            max_batch_size=_BATCH_BYTES_MAX,
            max_request_size=_BATCH_BYTES_MAX,
            request_timeout_ms=int(_ATTEMPT_S_MAX * 1000),
            metadata_max_age_ms=30_000,
            security_protocol="SSL",
            ssl_context=context,
        )

    async def start(self) -> None:
        """Connect; raises UnavailableError GATEWAY_UNAVAILABLE."""
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                await self._producer.start()
        except (KafkaError, OSError, TimeoutError) as exc:
            await self.abandon()
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE, f"no gateway answers ({type(exc).__name__})"
            ) from exc
        except BaseException:  # cancelled: sockets must not stay behind
            await self.abandon()
            raise

    def is_alive(self) -> bool:
        """Whether the library's sending task still runs."""
        task = self._producer._sender.sender_task
        return task is not None and not task.done()

    async def send(self, partition: int, items: Items) -> int:
        """Send one batch and wait for its acknowledgement; offset of its first record.

        Raises:
            KafkaError, TimeoutError: see `reason_of_failure`.
            DeniedError: TOO_LARGE, or TOPIC_DRIFT when the partition does not exist.
        """
        batch = self._batch(items)
        async with asyncio.timeout(REQUEST_S_MAX):
            if partition not in await self._producer.partitions_for(self._topic):
                raise DeniedError(
                    Reason.TOPIC_DRIFT, f"topic {self._topic} lacks partition {partition}"
                )
            future = await self._producer.send_batch(batch, self._topic, partition=partition)
        # Not awaited directly: cancelling aiokafka's own future kills its sending task.
        future.add_done_callback(_retrieve)
        await asyncio.wait([future], timeout=REQUEST_S_MAX)
        if not future.done():
            raise TimeoutError
        return int(future.result().offset)

    def _batch(self, items: Items) -> Any:
        batch = self._producer.create_batch()
        for key, value in items:
            headers = [CONTENT_TYPE] if key is None and value.startswith(_SEALED_TAG) else []
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                raise DeniedError(Reason.TOO_LARGE, "records do not fit one Kafka batch")
        if batch.size() > _BATCH_BYTES_MAX:
            raise DeniedError(Reason.TOO_LARGE, "record does not fit one Kafka batch")
        batch.close()
        return batch

    async def close(self) -> None:
        """Wait shortly for what is in flight, then disconnect."""
        if not await close_within(_CLOSE_S_MAX, self._producer.stop):
            await self.abandon()

    async def abandon(self) -> None:
        """Disconnect without waiting for acknowledgements: their outcome is unknown."""
        self._producer._closed = True
        # Connections first: the sending task ends by itself only once they are gone.
        producer = self._producer
        await close_within(_CLOSE_S_MAX, producer.client.close, producer._sender.close)


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Mark a failure as seen, so that an abandoned batch does not clutter the log."""
    if not future.cancelled():
        future.exception()


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
