"""The peers, each with the settings it is fastest with here: aiokafka, confluent-kafka, CSFLE.

All send acks=all and idempotent, uncompressed (each one's default), and read with
the codec that their users call record by record.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.schema_registry import (
    Rule,
    RuleKind,
    RuleMode,
    RuleParams,
    RuleSet,
    Schema,
    SchemaRegistryClient,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.rules.encryption.encrypt_executor import (
    FieldEncryptionExecutor,
)
from confluent_kafka.schema_registry.rules.encryption.localkms.local_driver import LocalKmsDriver
from confluent_kafka.serialization import MessageField, SerializationContext

from loadtest.links import Route
from loadtest.meter import Measured, Meter
from loadtest.rows import Row, schema_text

TAGGED = ("full_name", "id_number", "phone", "address")
WARM_UP = 1_000
_LOOK_EVERY = 200
_WAIT_S_MAX = 30.0
_Encode = Callable[[Row], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One produce run: what to send, where, and when to stop."""

    route: Route
    topic: str
    rows: Sequence[Row]
    seconds: float
    records_max: int


def _running(load: Load, meter: Meter) -> Iterator[Row]:
    """Rows for the run: the warm-up is the caller's; stops by time and by count."""
    meter.start()
    end = meter.began + load.seconds
    for number, row in enumerate(cycle(load.rows)):
        if number >= load.records_max:
            return
        if number % _LOOK_EVERY == 0 and time.perf_counter() >= end:
            return
        yield row


# aiokafka with fastavro, schemaless


def fastavro_codec(*, logical: bool = False) -> Any:
    """The residents' schema, parsed for fastavro."""
    return fastavro.parse_schema(json.loads(schema_text(logical=logical)), named_schemas={})


def schemaless(codec: Any) -> _Encode:
    """Encode one row, as fastavro's users do."""

    def encode(row: Row) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, codec, row)
        return out.getvalue()

    return encode


async def aiokafka_produce(load: Load, encode: _Encode) -> Measured:
    """`send` without waiting, then `flush`; every acknowledgement is looked at."""
    producer = AIOKafkaProducer(
        **load.route.aiokafka(),
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=131_072,
    )
    await producer.start()
    failed: list[BaseException] = []

    def acknowledged(future: "asyncio.Future[Any]") -> None:
        if (error := future.exception()) is not None:
            failed.append(error)

    meter, sent = Meter(), 0
    try:
        for row in load.rows[:WARM_UP]:
            await producer.send(load.topic, encode(row), partition=0)
        await producer.flush()
        last: asyncio.Future[Any] | None = None
        for row in _running(load, meter):
            future = await producer.send(load.topic, encode(row), partition=0)
            sent += 1
            if sent % _LOOK_EVERY == 0:
                future.add_done_callback(acknowledged)
            last = future
        async with asyncio.timeout(_WAIT_S_MAX):
            await producer.flush()
            if last is not None:
                await last
        meter.mark(sent)
    finally:
        await producer.stop()
    if failed:
        raise failed[0]
    return meter.result()


async def aiokafka_consume(route: Route, topic: str, span: tuple[int, int], codec: Any) -> Measured:
    """Read [first, end) of partition 0 and decode every value."""
    consumer = AIOKafkaConsumer(
        **route.aiokafka(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    await consumer.start()
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek(place, span[0])
    meter, position = Meter(), span[0]
    try:
        async with asyncio.timeout(_WAIT_S_MAX * 4):
            while position < span[1]:
                found = await consumer.getmany(place, timeout_ms=500, max_records=1_000)
                records = found.get(place, ())
                for record in records:
                    fastavro.schemaless_reader(BytesIO(record.value or b""), codec, None)
                if records:
                    position = records[-1].offset + 1
                    meter.first_then_mark(len(records))
    finally:
        await consumer.stop()
    return meter.result()


# confluent-kafka, with and without client-side field level encryption


class Confluent:
    """Serializer, deserializer and the registry that both ask, in this process."""

    def __init__(self, topic: str, *, encrypted: bool, logical: bool = False) -> None:
        # One in-process registry per topic: after the first record both sides use their caches,
        # as they would with a registry on the network.
        self._encrypted = encrypted
        self._client = SchemaRegistryClient.new_client({"url": f"mock://{topic}"})
        self._context = SerializationContext(topic, MessageField.VALUE)
        text = schema_text(logical=logical, tags=TAGGED if encrypted else ())
        settings: dict[str, Any] = {}
        secret = {"secret": "of the load test alone"} if encrypted else None
        if encrypted:
            FieldEncryptionExecutor.register()
            LocalKmsDriver.register()
            schema = Schema(text, "AVRO", [], None, RuleSet([], [_rule()]))
            self._client.register_schema(f"{topic}-value", schema)
            settings = {"auto.register.schemas": False, "use.latest.version": True}
        self._write = AvroSerializer(
            self._client, None if encrypted else text, conf=settings or None, rule_conf=secret
        )
        self._read = AvroDeserializer(self._client, rule_conf=secret)

    def encode(self, row: Row) -> bytes:
        """Serialize one row as the library's users do."""
        # The encrypting serializer writes ciphertext into the very dict it was given.
        given = row.copy() if self._encrypted else row
        value: bytes = self._write(given, self._context)
        return value

    def decode(self, value: bytes | None) -> Any:
        """Undo `encode`."""
        return self._read(value, self._context)


def _rule() -> Rule:
    params = {
        "encrypt.kek.name": "loadtest",
        "encrypt.kms.type": "local-kms",
        "encrypt.kms.key.id": "loadtest",
    }
    return Rule(
        "encrypt", "", RuleKind.TRANSFORM, RuleMode.WRITEREAD, "ENCRYPT", ["PII"],
        RuleParams(params), None, None, "ERROR,ERROR", False,
    )  # fmt: skip


def confluent_produce(load: Load, peer: Confluent) -> Measured:
    """`produce` and `poll`, then `flush`; every delivery report is looked at."""
    producer = Producer(
        {**load.route.librdkafka(), "acks": "all", "enable.idempotence": True, "linger.ms": 5}
    )
    failed: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(str(error))

    def send(row: Row) -> None:
        value = peer.encode(row)
        while True:
            try:
                producer.produce(load.topic, value=value, partition=0, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.01)

    for row in load.rows[:WARM_UP]:
        send(row)
    producer.flush(_WAIT_S_MAX)
    meter, sent = Meter(), 0
    for row in _running(load, meter):
        send(row)
        sent += 1
        if sent % _LOOK_EVERY == 0:
            producer.poll(0)
    left = producer.flush(_WAIT_S_MAX)
    meter.mark(sent)
    if failed or left:
        raise RuntimeError(failed[0] if failed else f"{left} records were not acknowledged")
    return meter.result()


def confluent_consume(route: Route, topic: str, span: tuple[int, int], peer: Confluent) -> Measured:
    """Read [first, end) of partition 0 and deserialize every value."""
    consumer = Consumer(
        {
            **route.librdkafka(),
            "group.id": "loadtest",
            "enable.auto.commit": "false",
            "max.partition.fetch.bytes": 4 * 1024 * 1024,
        }
    )
    consumer.assign([Place(topic, 0, span[0])])
    meter, position = Meter(), span[0]
    end = time.perf_counter() + _WAIT_S_MAX * 4
    try:
        while position < span[1] and time.perf_counter() < end:
            messages = consumer.consume(1_000, timeout=0.5)
            for message in messages:
                if message.error() is not None:
                    raise RuntimeError(str(message.error()))
                peer.decode(message.value())
            if messages:
                last = messages[-1].offset()
                assert last is not None
                position = last + 1
                meter.first_then_mark(len(messages))
    finally:
        consumer.close()
    return meter.result()
