"""Read one partition with aiokafka: by hand, without a group, from a given offset.

Records come as they are: nothing is deserialised here, so that no record can
poison the reader. A reader that stands still while the log grows is reported,
because aiokafka's fetcher can stop without an error.
"""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from fabric.kafka.closing import close_within
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.ports import Record

_Consumer: Any = AIOKafkaConsumer  # the library has no types
_POLL_S = 0.5
_FETCH_BYTES_MAX = 4 * 1024 * 1024
_RECORDS_MAX = 1_000
_WATCH_S = 5.0
_WATCH_ANSWER_S_MAX = 5.0  # a broker that is away must be named soon
_CLOSE_S_MAX = 5.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX = 253_402_300_799_999  # the last millisecond of year 9999, where datetime ends


class PartitionConsumer:
    """One aiokafka consumer of one partition, with the TLS context it was made with."""

    def __init__(
        self, topic: str, partition: int, *, brokers: Sequence[str], context: ssl.SSLContext,
        client_id: str,
    ) -> None:  # fmt: skip
        self.context = context
        self._place = TopicPartition(topic, partition)
        self._consumer = _Consumer(
            bootstrap_servers=list(brokers),
            client_id=client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            check_crcs=True,
            key_deserializer=None,
            value_deserializer=None,
            fetch_max_wait_ms=int(_POLL_S * 1000),
            max_partition_fetch_bytes=_FETCH_BYTES_MAX,
            metadata_max_age_ms=30_000,
            request_timeout_ms=int(REQUEST_S_MAX * 1000),
            security_protocol="SSL",
            ssl_context=context,
        )
        self._moved_at = 0.0
        self._end_seen = 0
        self._is_closing = False
        self._asked: set[asyncio.Timeout] = set()

    async def start(self) -> None:
        """Connect and take the partition; raises as ports.Log.read."""
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                await self._consumer.start()
                await self._check_topic()
                self._consumer.assign([self._place])
        except (FabricError, KafkaError, OSError, TimeoutError) as exc:
            await self.close()
            raise self._mapped(exc) from exc
        except BaseException:  # cancelled: sockets must not stay behind
            await self.close()
            raise
        self._moved_at = asyncio.get_running_loop().time()

    async def _check_topic(self) -> None:
        client = self._consumer._client
        partitions = await client._wait_on_metadata(self._place.topic)
        if self._place.partition not in partitions:
            has = f"{len(partitions)} partition{'s' if len(partitions) != 1 else ''}"
            raise DeniedError(
                Reason.TOPIC_DRIFT, f"topic has {has}, and no {self._place.partition}"
            )

    def seek(self, offset: int) -> None:
        """Go on reading at `offset`."""
        self._consumer.seek(self._place, offset)

    async def bounds(self, *, wait_s: float = REQUEST_S_MAX) -> tuple[int, int]:
        """First offset and the offset after the last record."""
        try:
            async with asyncio.timeout(wait_s):
                first = await self._consumer.beginning_offsets([self._place])
                end = await self._consumer.end_offsets([self._place])
        except (KafkaError, OSError, TimeoutError, ConsumerStoppedError) as exc:
            raise self._mapped(exc) from exc
        return int(first[self._place]), int(end[self._place])

    async def offset_at(self, when: datetime) -> int:
        """The first offset stored at or after `when`, else the offset after the last record."""
        # Records have whole milliseconds: the next one, lest a record before `when` is found.
        wanted_ms = max(0, -((_EPOCH - when) // timedelta(milliseconds=1)))
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                # In this order: what is stored between the two questions is not passed over.
                end = await self._consumer.end_offsets([self._place])
                found = await self._consumer.offsets_for_times({self._place: wanted_ms})
        except (KafkaError, OSError, TimeoutError, ConsumerStoppedError) as exc:
            raise self._mapped(exc) from exc
        first_since = found[self._place]
        return int(end[self._place] if first_since is None else first_since.offset)

    async def bounds_while_open(self) -> tuple[int, int] | None:
        """As `bounds`; None when the consumer is closed before it has an answer."""
        limit = asyncio.timeout(None)
        self._asked.add(limit)
        try:
            async with limit:
                return await self.bounds()
        except (TimeoutError, FabricError):
            if self._is_closing:
                return None
            raise
        finally:
            self._asked.discard(limit)

    async def poll(self) -> Sequence[Record]:
        """The next records, or none after half a second."""
        try:
            found = await self._consumer.getmany(
                self._place, timeout_ms=int(_POLL_S * 1000), max_records=_RECORDS_MAX
            )
        except (FabricError, AssertionError):
            raise
        except Exception as exc:  # batch decoders raise what they like (kafka notes P19)
            raise self._mapped(exc) from exc
        records = [_record(item) for item in found.get(self._place, ())]
        await self._watch(bool(records))
        return records

    async def _watch(self, moved: bool) -> None:
        """Notice a fetcher that died in silence: the log has grown and nothing came."""
        now = asyncio.get_running_loop().time()
        if moved:
            self._moved_at = now
        if now - self._moved_at < _WATCH_S:
            return
        self._moved_at = now
        position = await self._consumer.position(self._place)
        first, end = await self.bounds(wait_s=_WATCH_ANSWER_S_MAX)
        if position < first:
            raise DeniedError(Reason.HISTORY_LOST, "log starts after the wanted offset")
        # What came between the poll and this look is no sign; what was there the last time is.
        if position < self._end_seen:
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, "reading stands still")
        self._end_seen = end

    def _mapped(self, exc: Exception) -> FabricError:
        topic = self._place.topic
        if isinstance(exc, FabricError):
            return exc
        if isinstance(exc, TopicAuthorizationFailedError):
            return DeniedError(Reason.NOT_A_CONSUMER, f"reading topic {topic} is not allowed")
        if isinstance(exc, OffsetOutOfRangeError):
            return DeniedError(Reason.HISTORY_LOST, f"log of {topic} lacks the wanted offset")
        if isinstance(exc, KafkaError | OSError | TimeoutError | ConsumerStoppedError):
            name = type(exc).__name__
            return UnavailableError(Reason.BROKER_UNAVAILABLE, f"reading {topic} failed ({name})")
        return UnavailableError(
            Reason.BROKER_UNAVAILABLE, f"batch of {topic} does not decode ({type(exc).__name__})"
        )

    async def close(self) -> None:
        """Disconnect within a few seconds, whatever state the library is in."""
        self._is_closing = True
        for limit in self._asked:
            limit.reschedule(asyncio.get_running_loop().time())
        # When the library's own closing fails half-way, its connections are still open.
        client = self._consumer._client
        await close_within(_CLOSE_S_MAX, self._consumer.stop, client.close, client=client)


def _record(item: Any) -> Record:
    return Record(
        topic=item.topic,
        partition=item.partition,
        offset=item.offset,
        timestamp=_time(item.timestamp),
        key=item.key,
        value=item.value,
    )


def _time(milliseconds: int) -> datetime:
    """The log's word on when; a broker may say anything, so it is brought into our calendar."""
    return _EPOCH + timedelta(milliseconds=max(0, min(milliseconds, _MS_MAX)))
