"""The gateway in front of a real broker, as unmodified producers meet it."""

import asyncio
import contextlib
import hashlib
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    PolicyViolationError,
)
from confluent_kafka import Consumer, Producer, TopicPartition

from fabric.authority.pki import Ca
from fabric.demo.process import free_port, stop
from fabric.model.errors import PeerError, Reason
from fabric.tls import client_context
from fabric.web.refusals import RefusalsClient
from tests.fakes.gateway import GRANTS, OPEN, SEALED
from tests.fakes.gateway_site import Gateway, Papers, Site, running

pytestmark = pytest.mark.integration
_WAIT_S = 15.0


@pytest.fixture(scope="module")
def stage(server_folder: Path, broker: Any, svid_ca: Ca) -> Iterator[tuple[Site, list[Gateway]]]:
    folder = server_folder / "gateway"
    folder.mkdir()
    with running(folder, broker, svid_ca) as found:
        site, gateways = found
        for gateway in gateways:
            until(lambda g=gateway: page(g, "readyz") == 200, "gateway to be ready")
        yield found


@pytest.fixture
def site(stage: tuple[Site, list[Gateway]]) -> Site:
    return stage[0]


@pytest.fixture
def gateway(stage: tuple[Site, list[Gateway]]) -> Gateway:
    return stage[1][0]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def page(gateway: Gateway, name: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web_port}/{name}") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def ends(site: Site, topic: str) -> list[int]:
    """End offsets of partitions 0 and 1, straight from the broker."""
    consumer = Consumer(
        {**site.platform("admin").librdkafka(site.broker.address), "group.id": "unused"}
    )
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for partition in (0, 1)
        ]
    finally:
        consumer.close()


def rdkafka(site: Site, papers: Papers, bootstrap: str, **settings: Any) -> Producer:
    return Producer({**papers.librdkafka(bootstrap), "message.timeout.ms": 10_000, **settings})


def send(producer: Producer, *items: tuple[str, int, bytes]) -> list[str]:
    """Produce and wait; `stored` or the error's name, in the order of the items."""
    outcomes: dict[int, str] = {}
    for index, (topic, partition, value) in enumerate(items):

        def delivered(error: Any, _message: Any, index: int = index) -> None:
            outcomes[index] = error.name() if error else "stored"

        producer.produce(topic, value=value, partition=partition, on_delivery=delivered)
    producer.flush(15)
    return [outcomes.get(index, "no answer") for index in range(len(items))]


def aiokafka(papers: Papers, bootstrap: str, **settings: Any) -> Any:
    context = client_context(papers.certificate, papers.key, papers.ca)
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, security_protocol="SSL", ssl_context=context, **settings
    )


@contextlib.asynccontextmanager
async def started(producer: Any) -> Any:
    await producer.start()
    try:
        yield producer
    finally:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(5):
                await producer.stop()


@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_aiokafka_writes_envelopes_and_open_records(
    site: Site, gateway: Gateway, is_idempotent: bool
) -> None:
    before, opened = ends(site, SEALED)[0], ends(site, OPEN)[0]
    settings = {"acks": "all", "enable_idempotence": is_idempotent}
    async with started(aiokafka(site.a, gateway.address, **settings)) as producer:
        stored = await producer.send_and_wait(SEALED, site.world.seal(), partition=0)
        await producer.send_and_wait(OPEN, site.world.open_record(), partition=0, key=b"k")
    assert stored.offset == before
    assert (ends(site, SEALED)[0], ends(site, OPEN)[0]) == (before + 1, opened + 1)


@pytest.mark.parametrize("is_idempotent", [False, True])
def test_librdkafka_writes_envelopes_and_open_records(
    site: Site, gateway: Gateway, is_idempotent: bool
) -> None:
    before = ends(site, SEALED)[0], ends(site, OPEN)[1]
    producer = rdkafka(site, site.a, gateway.address, **{"enable.idempotence": is_idempotent})
    outcomes = send(producer, (SEALED, 0, site.world.seal()), (OPEN, 1, site.world.open_record()))
    assert outcomes == ["stored", "stored"]
    assert (ends(site, SEALED)[0], ends(site, OPEN)[1]) == (before[0] + 1, before[1] + 1)


def test_librdkafka_idempotent_goes_on_after_a_refusal(site: Site, gateway: Gateway) -> None:
    producer = rdkafka(site, site.a, gateway.address, **{"enable.idempotence": True})
    good = site.world.open_record()
    assert send(producer, (OPEN, 0, good)) == ["stored"]
    assert send(producer, (OPEN, 0, b"not framed at all")) == ["INVALID_RECORD"]
    assert send(producer, (OPEN, 0, good)) == ["stored"]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_open_topics_take_compressed_batches(site: Site, gateway: Gateway, codec: str) -> None:
    producer = rdkafka(
        site, site.a, gateway.address, **{"compression.type": codec, "linger.ms": 50}
    )
    items = [(OPEN, 0, site.world.open_record() + bytes(2_000))] * 20
    assert send(producer, *items) == ["stored"] * 20


def kcat(
    papers: Papers, bootstrap: str, *arguments: str, text: bytes
) -> "subprocess.CompletedProcess[bytes]":
    settings = [f"-X{k}={v}" for k, v in papers.librdkafka(bootstrap).items() if "." in k]
    command = ["kcat", *settings, "-X", "message.timeout.ms=10000", *arguments]
    return subprocess.run(command, input=text, capture_output=True, timeout=30, check=False)


def test_kcat_writes_and_is_refused(site: Site, gateway: Gateway, tmp_path: Path) -> None:
    before = ends(site, OPEN)[0]
    record = tmp_path / "record"
    record.write_bytes(site.world.open_record())
    arguments = ("-P", "-t", OPEN, "-p", "0")
    done = kcat(site.a, gateway.address, *arguments, str(record), text=b"")
    assert done.returncode == 0, done.stderr
    assert ends(site, OPEN)[0] == before + 1
    refused = kcat(site.a, gateway.address, *arguments, text=b"plain text")
    assert b"Policy violation" in refused.stderr  # kcat's librdkafka speaks Produce 7
    assert ends(site, OPEN)[0] == before + 1


async def test_one_bad_partition_does_not_hold_back_the_others(
    site: Site, gateway: Gateway
) -> None:
    """aiokafka puts all partitions of a node into one request."""
    before = [*ends(site, OPEN), *ends(site, SEALED)]
    good = site.world.open_record()
    async with started(aiokafka(site.a, gateway.address, linger_ms=200, acks="all")) as producer:
        futures = [
            await producer.send(OPEN, good, partition=0),
            await producer.send(OPEN, b"bad", partition=1),
            await producer.send(SEALED, site.world.seal(), partition=0),
            await producer.send(SEALED, b"plain", partition=1),
        ]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(o) is PolicyViolationError for o in outcomes] == [False, True, False, True]
    after = [*ends(site, OPEN), *ends(site, SEALED)]
    assert [y - x for x, y in zip(before, after, strict=True)] == [1, 0, 1, 0]


def test_bad_records_refuse_their_batch_and_are_named(site: Site, gateway: Gateway) -> None:
    before = ends(site, OPEN)[1]
    producer = rdkafka(site, site.a, gateway.address, **{"linger.ms": 200})
    good = site.world.open_record()
    items = [(OPEN, 1, value) for value in (good, b"bad", good, b"bad too")]
    other = "_INVALID_DIFFERENT_RECORD"
    assert send(producer, *items) == [other, "INVALID_RECORD", other, "INVALID_RECORD"]
    assert ends(site, OPEN)[1] == before


def reason(gateway: Gateway, papers: Papers, topic: str, value: bytes) -> str:
    digest = hashlib.sha256(value).hexdigest()
    context = ssl.create_default_context(cafile=str(papers.ca))
    context.load_cert_chain(papers.certificate, papers.key)
    try:
        url = f"{gateway.refusals}/refusals/{topic}/0/{digest}"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            return str(json.load(answer)["reason"])
    except urllib.error.HTTPError as error:
        return str(error.code)


def test_the_refusal_log_tells_the_reason_to_whoever_was_refused_alone(
    site: Site, gateway: Gateway
) -> None:
    value = b"not sealed " + time.time_ns().to_bytes(8)
    producer = rdkafka(site, site.a, gateway.address)
    assert send(producer, (SEALED, 0, value)) == ["INVALID_RECORD"]
    gateways = [gateway]
    assert {reason(g, site.a, SEALED, value) for g in gateways} <= {"not_sealed", "404"}
    assert reason(gateway, site.b, SEALED, value) == "404"


async def test_our_own_log_gets_the_reason(site: Site, stage: tuple[Site, list[Gateway]]) -> None:
    papers = site.a
    context = client_context(papers.certificate, papers.key, papers.ca)
    refusals = RefusalsClient([g.refusals for g in stage[1]], lambda: context)
    log = site.log(papers, [g.address for g in stage[1]])
    log._reason_of = refusals.reason_of
    try:
        envelope = site.world.seal()
        stored = await log.append(SEALED, 0, [(None, envelope)])
        assert stored.offset >= 0
        assert stored.at is not None  # the brokers' time, handed on
        assert abs(datetime.now(UTC) - stored.at) < timedelta(seconds=30)
        replayed = site.world.sealed[-2].data
        with pytest.raises(PeerError) as refused:
            await log.append(SEALED, 0, [(None, replayed)])
        assert refused.value.reason is Reason.REPLAYED
    finally:
        await log.close()


def test_the_same_bytes_again_get_the_first_offset_and_are_stored_once(
    site: Site, gateway: Gateway
) -> None:
    before = ends(site, SEALED)[0]
    value = site.world.seal()
    for _ in range(2):
        assert send(rdkafka(site, site.a, gateway.address), (SEALED, 0, value)) == ["stored"]
    assert ends(site, SEALED)[0] == before + 1


def test_a_host_that_may_not_publish_is_refused(site: Site, gateway: Gateway) -> None:
    outcomes = send(
        rdkafka(site, site.b, gateway.address),
        (OPEN, 0, site.world.open_record("G02/health/main")),
        (SEALED, 0, site.world.seal_as(site.world.a)),
    )
    site.world.sealed.pop()
    assert outcomes == ["INVALID_RECORD", "INVALID_RECORD"]


def test_a_host_writes_its_epoch_start_and_nobody_elses(site: Site, gateway: Gateway) -> None:
    def produce(papers: Papers, key: str) -> str:
        outcome: list[str] = []
        producer = rdkafka(site, papers, gateway.address)
        producer.produce(
            GRANTS,
            key=key.encode(),
            value=site.world.started.value,
            partition=0,
            on_delivery=lambda e, _m: outcome.append(e.name() if e else "stored"),
        )
        producer.flush(15)
        return outcome[0]

    mine = f"{site.world.a.host}/start/1"
    assert produce(site.a, mine) == "stored"
    assert produce(site.b, mine) == "INVALID_RECORD"
    assert produce(site.b, f"{site.world.b.host}/start/1") == "INVALID_RECORD"


def test_no_client_learns_a_brokers_address(site: Site, stage: tuple[Site, list[Gateway]]) -> None:
    metadata = rdkafka(site, site.a, stage[1][0].address).list_topics(timeout=10)
    ports = {broker.port for broker in metadata.brokers.values()}
    assert ports == {gateway.port for gateway in stage[1]}
    assert 1 in metadata.brokers


def test_acks_0_ends_the_connection_and_stores_nothing(site: Site, gateway: Gateway) -> None:
    before = ends(site, SEALED)[0]
    producer = rdkafka(site, site.a, gateway.address, acks=0)
    producer.produce(SEALED, value=site.world.seal(), partition=0)
    producer.flush(2)
    site.world.sealed.pop()
    assert ends(site, SEALED)[0] == before


def test_a_transactional_producer_is_refused(site: Site, gateway: Gateway) -> None:
    producer = rdkafka(site, site.a, gateway.address, **{"transactional.id": "t1"})
    with pytest.raises(Exception, match="."):
        producer.init_transactions(3)


async def send_at_last(producer: AIOKafkaProducer, value: bytes) -> None:
    """Send as an application does: a client that just lost its node says so once or twice."""
    async with asyncio.timeout(30):
        while True:
            try:
                await producer.send_and_wait(OPEN, value, partition=0)
            except (NodeNotReadyError, KafkaConnectionError):
                await asyncio.sleep(0.2)
            else:
                return


async def test_a_dead_gateway_leaves_the_other_serving(site: Site) -> None:
    """aiokafka forgets its bootstrap list: it must have learned of the other gateway."""
    ports = [free_port(), free_port()]
    pair = [site.start(f"pair-{number}", port, ports) for number, port in enumerate(ports)]
    try:
        for gateway in pair:
            until(lambda g=gateway: page(g, "readyz") == 200, "gateway to be ready")
        bootstrap = [gateway.address for gateway in pair]
        settings = {"acks": "all", "metadata_max_age_ms": 1_000, "request_timeout_ms": 20_000}
        async with started(aiokafka(site.a, bootstrap, **settings)) as producer:
            await producer.send_and_wait(OPEN, site.world.open_record(), partition=0)
            node = producer.client.cluster.broker_metadata(1)
            stop(pair[ports.index(node.port)].child, kill=True)
            await send_at_last(producer, site.world.open_record())
            assert producer.client.cluster.broker_metadata(1).port != node.port
    finally:
        for gateway in pair:
            stop(gateway.child)
