"""KafkaLog: the platform's log behind ports.Log, appended through gateways, read from brokers.

Every await has a deadline. An append is tried once: what its caller does about
an unknown outcome is to give the same bytes again.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from aiokafka.errors import BrokerResponseError, KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from fabric.kafka.consumer import PartitionConsumer
from fabric.kafka.identity import identify
from fabric.kafka.producer import Items, ReasonOf, TopicProducer, reason_of_failure
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError, UsageError
from fabric.ports import Record, Stored


def check_extension() -> None:
    """Demand aiokafka's C extension; raises UsageError.

    The pure-Python codec is 170 times slower, so a failed build must not pass unseen.
    """
    if DefaultRecordBatchBuilder.__module__.rpartition(".")[0] != "aiokafka.record._crecords":
        raise UsageError(
            Reason.CONFIG_INVALID,
            "aiokafka runs without its C extension; reinstall it from a wheel"
            " and unset AIOKAFKA_NO_EXTENSIONS",
        )


class KafkaLog:
    """The log as a host or a platform part sees it; implements ports.Log.

    Args:
        brokers: bootstrap addresses to read from.
        gateways: bootstrap addresses to append through.
        context: gives the current TLS context, the same object until certificates
            change; another object makes every client connect anew.
        client_id: name that brokers log.
        reason_of: asks the gateway why it refused (topic, partition, SHA-256 of value).
        ended: when the certificate that is shown has ended; None: it runs, or nobody knows.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        gateways: Sequence[str],
        context: Callable[[], ssl.SSLContext],
        *,
        client_id: str,
        reason_of: ReasonOf | None = None,
        ended: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        check_extension()
        self._brokers = tuple(brokers)
        self._gateways = tuple(gateways)
        self._context = context
        self._client_id = client_id
        self._reason_of = reason_of
        self._ended = ended
        self._producers: dict[str, TopicProducer] = {}
        self._busy: dict[TopicProducer, int] = {}
        self._readers: dict[tuple[str, int], PartitionConsumer] = {}

    async def append(self, topic: str, partition: int, records: Items) -> Stored:
        """Append (key, value) records as one batch.

        A sealed value with a null key gets the `content-type` header.

        Raises:
            PeerError, DeniedError: refused for good, with the gateway's reason.
            UnavailableError: the outcome is unknown; give the same bytes again.
        """
        producer = await self._producer(topic)
        self._busy[producer] = self._busy.get(producer, 0) + 1
        try:
            return await producer.send(partition, records)
        except FabricError:
            raise
        except (KafkaError, OSError, TimeoutError) as exc:
            if not isinstance(exc, BrokerResponseError) or exc.invalid_metadata:
                self._discard(topic, producer)  # a refusal is no reason to connect anew
            raise await reason_of_failure(
                exc, topic, partition, items=records, ask=self._reason_of
            ) from exc
        finally:
            await self._leave(topic, producer)

    async def _producer(self, topic: str) -> TopicProducer:
        context = self._context()
        producer = self._producers.get(topic)
        if producer is not None and producer.context is context:
            return producer
        if producer is not None:
            self._producers.pop(topic)
            if not self._busy.get(producer):
                await producer.close()
        producer = TopicProducer(topic, self._gateways, context, client_id=self._client_id)
        await producer.start()
        other = self._producers.get(topic)
        if other is not None:  # a second partition's append was faster
            await producer.close()
            return other
        self._producers[topic] = producer
        return producer

    def _discard(self, topic: str, producer: TopicProducer) -> None:
        if self._producers.get(topic) is producer:
            del self._producers[topic]

    async def _leave(self, topic: str, producer: TopicProducer) -> None:
        """Close a producer that nobody uses and no later append will find."""
        self._busy[producer] -= 1
        if self._busy[producer]:
            return
        del self._busy[producer]
        if self._producers.get(topic) is not producer:
            await producer.close()

    async def read(
        self, topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield batches from `offset` on, for ever; an empty batch says "nothing for a while".

        Raises:
            DeniedError: HISTORY_LOST when the log does not hold `offset`;
                NOT_A_CONSUMER when the broker denies reading.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        position = offset
        while True:
            async with self._consumer(topic, partition) as consumer:
                first, end = await consumer.bounds()
                if not first <= position <= end:
                    raise DeniedError(
                        Reason.HISTORY_LOST,
                        f"log of {topic}:{partition} holds [{first}, {end}), not {position}",
                    )
                consumer.seek(position)
                self._readers[topic, partition] = consumer
                try:
                    while consumer.context is self._context():
                        records = await consumer.poll()
                        if records:
                            position = records[-1].offset + 1
                        yield records
                finally:
                    if self._readers.get((topic, partition)) is consumer:
                        del self._readers[topic, partition]

    @contextlib.asynccontextmanager
    async def _consumer(self, topic: str, partition: int) -> AsyncIterator[PartitionConsumer]:
        consumer = PartitionConsumer(
            topic,
            partition,
            brokers=self._brokers,
            context=self._context(),
            client_id=self._client_id,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.close()

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset and the offset after the last record; raises as `read`.

        Asked on the connection of whoever reads the partition, while somebody does.
        """
        reader = self._readers.get((topic, partition))
        found = None if reader is None else await reader.bounds_while_open()
        if found is not None:
            return found
        async with self._consumer(topic, partition) as consumer:
            return await consumer.bounds()

    async def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """The first offset stored at or after `when`, else the log's end; see ports.Log."""
        async with self._consumer(topic, partition) as consumer:
            return await consumer.offset_at(when)

    async def identity(self, topic: str) -> tuple[str, str]:
        """Cluster id and topic id, which an offset hint belongs to.

        Raises:
            UnavailableError: RESULT_EXPIRED too, where the certificate that we show has
                ended: a broker that takes none of it tells no more than a broken connection.
            DeniedError: as `read`.
        """
        try:
            return await identify(self._brokers, self._context(), topic, client_id=self._client_id)
        except UnavailableError as exc:
            ended = self._ended()
            if ended is None or exc.reason is not Reason.BROKER_UNAVAILABLE:
                raise
            raise UnavailableError(
                Reason.RESULT_EXPIRED,
                f"our certificate ended at {ended.isoformat()}; {exc.args[0]}",
            ) from exc

    async def close(self) -> None:
        """Give back connections; later appends raise UnavailableError from their sockets."""
        producers = [*self._producers.values()]
        self._producers.clear()
        for producer in producers:
            await producer.close()


__all__ = ["KafkaLog", "UnavailableError", "check_extension"]
