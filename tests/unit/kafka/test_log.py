"""KafkaLog on a real broker: headers, limits, rights, and certificates that change."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import NotLeaderForPartitionError, PolicyViolationError
from aiokafka.record import default_records
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fabric.authority.pki import Ca, issue_svid
from fabric.kafka.consumer import PartitionConsumer
from fabric.kafka.log import KafkaLog, check_extension
from fabric.kafka.producer import TopicProducer
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.limits import ENVELOPE_BYTES_MAX
from fabric.model.names import HostId
from fabric.ports import Record
from fabric.tls import client_context
from tests.fakes.broker_log import Broker, BrokerBench

HOST = HostId.parse("T1/tests/log-host")


@pytest.fixture
def bench(broker: Broker) -> BrokerBench:
    return BrokerBench(broker)


@pytest.fixture
async def log(bench: BrokerBench) -> AsyncIterator[KafkaLog]:
    made = bench.log()
    yield made
    await made.close()


def svid_context(issuer: Ca, folder: Path, ca: Path) -> ssl.SSLContext:
    """A TLS context with an SVID for HOST."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    until = datetime.now(UTC) + timedelta(minutes=10)
    svid, private = folder / "svid.pem", folder / "svid.key"
    svid.write_bytes(issue_svid(issuer, HOST, "fabric.example", point, until))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private.write_bytes(pem)
    return client_context(svid, private, ca)


async def first(batches: AsyncIterator[Sequence[Record]]) -> Sequence[Record]:
    async with asyncio.timeout(20):
        async for records in batches:
            if records:
                return records
    raise AssertionError("the log ended")


def test_the_slow_codec_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extension()
    slow = default_records._DefaultRecordBatchBuilderPy
    monkeypatch.setattr("fabric.kafka.log.DefaultRecordBatchBuilder", slow)
    with pytest.raises(UsageError, match="C extension"):
        check_extension()


@pytest.mark.integration
async def test_a_sealed_value_carries_its_content_type_and_a_control_record_none(
    bench: BrokerBench, log: KafkaLog
) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"\xd8\x62 an envelope"), (b"key", b"\xd8\x62 control")])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bench.broker.address,
        security_protocol="SSL",
        ssl_context=bench.context(),
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        one, two = [await consumer.getone(), await consumer.getone()]
    finally:
        await consumer.stop()
    assert one.headers == (("content-type", b"application/fabric-envelope"),)
    assert (one.key, two.headers) == (None, ())


@pytest.mark.integration
async def test_the_largest_envelope_fits_and_more_is_too_large(
    bench: BrokerBench, log: KafkaLog
) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, bytes(ENVELOPE_BYTES_MAX))])
    for items in ([(None, bytes(1_100_000))], [(None, bytes(400_000))] * 3):
        with pytest.raises(DeniedError) as caught:
            await log.append(topic, 0, items)
        assert caught.value.reason is Reason.TOO_LARGE
    assert (await log.append(topic, 0, [(None, b"goes on")])).offset == 1


@pytest.mark.integration
async def test_a_missing_partition_is_drift_and_a_missing_topic_is_waited_for(
    bench: BrokerBench, log: KafkaLog
) -> None:
    topic = await bench.topic()
    with pytest.raises(DeniedError) as caught:
        await log.append(topic, 7, [(None, b"x")])
    assert caught.value.reason is Reason.TOPIC_DRIFT
    with pytest.raises(DeniedError, match="topic has 1 partition, and no 7") as caught:
        await log.bounds(topic, 7)
    assert caught.value.reason is Reason.TOPIC_DRIFT
    with pytest.raises(UnavailableError):
        await log.identity("secret.T1.never-made")


@pytest.mark.integration
async def test_a_refusal_keeps_the_connection_and_a_leader_that_moved_ends_it(
    bench: BrokerBench, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"one")])
    kept, honest = log._producers[topic], TopicProducer.send
    for error, stays in ((PolicyViolationError(), True), (NotLeaderForPartitionError(), False)):

        async def refused(*_: object, told: Exception = error) -> None:
            raise told

        monkeypatch.setattr(TopicProducer, "send", refused)
        with pytest.raises(UnavailableError):
            await log.append(topic, 0, [(None, b"two")])
        assert (log._producers.get(topic) is kept) is stays
    monkeypatch.setattr(TopicProducer, "send", honest)
    assert (await log.append(topic, 0, [(None, b"two")])).offset == 1


@pytest.mark.integration
async def test_a_topic_made_anew_has_another_identity(bench: BrokerBench, log: KafkaLog) -> None:
    one, two = await bench.topic(), await bench.topic()
    cluster, first_id = await log.identity(one)
    assert cluster
    assert await log.identity(one) == (cluster, first_id)
    assert (await log.identity(two))[1] != first_id


@pytest.mark.integration
async def test_what_is_not_allowed_is_denied_until_it_is_and_again_after(
    bench: BrokerBench, log: KafkaLog, svid_ca: Ca, tmp_path: Path
) -> None:
    context = svid_context(svid_ca, tmp_path, bench.broker.ca)
    brokers = [bench.broker.address]
    host = KafkaLog(brokers, brokers, lambda: context, client_id="a host")
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"one")])
    for attempt in (host.bounds(topic, 0), host.identity(topic)):
        with pytest.raises(DeniedError) as caught:
            await attempt
        assert caught.value.reason is Reason.NOT_A_CONSUMER
    with pytest.raises(DeniedError) as caught:
        await host.append(topic, 0, [(None, b"two")])
    assert caught.value.reason is Reason.NOT_A_PRODUCER
    await bench.admin.grant_read(HOST.principal, [topic])
    async with asyncio.timeout(10), contextlib.aclosing(host.read(topic, 0, 0)) as batches:
        assert (await first(batches))[0].value == b"one"
        await bench.admin.revoke_read(HOST.principal, [topic])
        with pytest.raises(DeniedError) as caught:
            async for _ in batches:
                pass
        assert caught.value.reason is Reason.NOT_A_CONSUMER
    await host.close()


@pytest.mark.integration
async def test_clients_follow_a_context_that_changes(bench: BrokerBench) -> None:
    topic = await bench.topic()
    contexts = [bench.context()]
    brokers = [bench.broker.address]
    log = KafkaLog(brokers, brokers, lambda: contexts[-1], client_id="a test")
    await log.append(topic, 0, [(None, b"one")])
    async with contextlib.aclosing(log.read(topic, 0, 0)) as batches:
        assert (await first(batches))[0].value == b"one"
        contexts.append(bench.context())
        await log.append(topic, 0, [(None, b"two")])
        found = await first(batches)
        assert (found[0].value, found[0].offset) == (b"two", 1)
    await log.close()


@pytest.mark.integration
async def test_bounds_of_a_partition_that_is_read_cost_no_connection(
    bench: BrokerBench, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"one")])
    started: list[PartitionConsumer] = []
    start = PartitionConsumer.start

    async def counted(consumer: PartitionConsumer) -> None:
        started.append(consumer)
        await start(consumer)

    monkeypatch.setattr(PartitionConsumer, "start", counted)
    async with contextlib.aclosing(log.read(topic, 0, 0)) as batches:
        await first(batches)
        await log.append(topic, 0, [(None, b"two")])
        assert await log.bounds(topic, 0) == (0, 2)
        assert len(started) == 1
    assert await log.bounds(topic, 0) == (0, 2)
    assert len(started) == 2


@pytest.mark.integration
async def test_bounds_are_asked_anew_when_the_reader_ends_meanwhile(
    bench: BrokerBench, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"one")])
    batches = log.read(topic, 0, 0)
    await first(batches)
    (reader,) = log._readers.values()
    begun = asyncio.Event()

    async def never(**_: object) -> tuple[int, int]:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(reader, "bounds", never)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(log.bounds(topic, 0))
        await begun.wait()
        await batches.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert asked.result() == (0, 1)


@pytest.mark.integration
async def test_a_history_that_was_deleted_is_lost(bench: BrokerBench, log: KafkaLog) -> None:
    topic = await bench.topic()
    await log.append(topic, 0, [(None, b"%d" % n) for n in range(5)])
    from confluent_kafka import TopicPartition as Place

    client = bench.admin._client
    (future,) = client.delete_records([Place(topic, 0, 3)]).values()
    await asyncio.to_thread(future.result)
    assert await log.bounds(topic, 0) == (3, 5)
    with pytest.raises(DeniedError) as caught:
        await first(log.read(topic, 0, 1))
    assert caught.value.reason is Reason.HISTORY_LOST
    assert [r.offset for r in await first(log.read(topic, 0, 3))] == [3, 4]


async def test_a_broker_that_takes_no_certificate_of_ours_says_little_and_ours_has_ended(
    unused_tcp_port: int,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody = [f"localhost:{unused_tcp_port}"]
    end: list[datetime | None] = [None]
    log = KafkaLog(nobody, nobody, lambda: context, client_id="a test", ended=lambda: end[0])
    with pytest.raises(UnavailableError) as caught:
        await log.identity("t")
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE
    end[0] = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    with pytest.raises(
        UnavailableError, match="certificate ended at 2026-11-24T08:00:00"
    ) as caught:
        await log.identity("t")
    assert caught.value.reason is Reason.RESULT_EXPIRED


async def test_nobody_there_is_unavailable(unused_tcp_port: int, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody = [f"localhost:{unused_tcp_port}"]
    log = KafkaLog(nobody, nobody, lambda: context, client_id="a test")
    with pytest.raises(UnavailableError) as caught:
        await log.append("t", 0, [(None, b"x")])
    assert caught.value.reason is Reason.GATEWAY_UNAVAILABLE
    for attempt in (log.bounds("t", 0), log.identity("t"), first(log.read("t", 0, 0))):
        with pytest.raises(UnavailableError) as caught:
            await attempt
        assert caught.value.reason is Reason.BROKER_UNAVAILABLE
    await log.close()
