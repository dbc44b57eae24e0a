"""Administration, on a real broker: what was asked for stands, and asking again changes nothing."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from fabric import tls
from fabric.kafka import admin as module
from fabric.kafka.admin import AdminTls, KafkaAdmin, TopicSpec
from fabric.kafka.log import KafkaLog
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError
from tests.conftest import TestBroker

SETTINGS = {"cleanup.policy": "delete", "retention.ms": "86400000"}


def tls_of(broker: TestBroker, name: str) -> AdminTls:
    certificate, key = broker.files(name)
    return AdminTls(certificate=certificate, key=key, ca=broker.ca)


def log_of(broker: TestBroker, name: str) -> KafkaLog:
    certificate, key = broker.files(name)
    context: ssl.SSLContext = tls.client_context(certificate, key, broker.ca)
    address = [broker.address]
    return KafkaLog(address, address, lambda: context, client_id="test")


@pytest.fixture
def admin(broker: TestBroker) -> KafkaAdmin:
    return KafkaAdmin([broker.address], tls_of(broker, "admin"), replication_factor=1)


@pytest.fixture
def spec() -> TopicSpec:
    return TopicSpec(name=f"secret.T.{os.urandom(6).hex()}", partitions=1, settings=SETTINGS)


@pytest.fixture
async def verifier(broker: TestBroker) -> AsyncIterator[KafkaLog]:
    log = log_of(broker, "verifier")
    yield log
    await log.close()


async def soon(call: Callable[[], Awaitable[object]], denied: type[Exception] | None) -> None:
    """Rights reach every broker a little after the answer: ask until it is so."""
    async with asyncio.timeout(10):
        while True:
            try:
                await call()
                outcome = None
            except (DeniedError, UnavailableError) as exc:
                outcome = type(exc)
            if outcome is denied:
                return
            await asyncio.sleep(0.02)


async def comes(ask: Callable[[], Awaitable[Any]], wanted: object) -> None:
    """What is asked comes to be what is wanted: brokers show a change a little after the answer."""
    found = await ask()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while found != wanted:
                await asyncio.sleep(0.02)
                found = await ask()
    assert found == wanted


async def topics_of(admin: KafkaAdmin, principal: str) -> frozenset[str] | None:
    return (await admin.readers()).get(principal)


async def may_read(admin: KafkaAdmin, principal: str, topic: str) -> bool:
    return topic in (await topics_of(admin, principal) or ())


async def written_by(admin: KafkaAdmin, principal: str) -> set[str]:
    acls = await asyncio.to_thread(admin._acls)
    return {acl.name for acl in acls if acl.principal == f"User:{principal}"}


@pytest.mark.integration
async def test_topics_are_made_once_and_put_right(admin: KafkaAdmin, spec: TopicSpec) -> None:
    assert await admin.drift([spec]) == [f"{spec.name}: does not exist"]
    await admin.ensure_topics([spec])
    await admin.ensure_topics([spec])
    await comes(lambda: admin.drift([spec]), [])
    await admin.ensure_topics([spec])
    assert await admin.drift([spec]) == []
    changed = replace(spec, partitions=3, settings={**SETTINGS, "retention.ms": "1000"})
    assert await admin.drift([changed]) == [
        f"{spec.name}: partitions is 1, must be 3",
        f"{spec.name}: retention.ms is 86400000, must be 1000",
    ]
    await admin.ensure_topics([changed])
    await comes(lambda: admin.drift([changed]), [])
    assert await admin.drift([replace(changed, partitions=1)]) == []


@pytest.mark.integration
async def test_reading_is_granted_and_taken_away(
    admin: KafkaAdmin, spec: TopicSpec, verifier: KafkaLog
) -> None:
    await admin.ensure_topics([spec])
    with pytest.raises(DeniedError) as error:
        await verifier.bounds(spec.name, 0)
    assert error.value.reason is Reason.NOT_A_CONSUMER
    await admin.grant_read("verifier", [spec.name])
    await comes(lambda: may_read(admin, "verifier", spec.name), True)
    await soon(lambda: verifier.bounds(spec.name, 0), None)
    await admin.revoke_read("verifier", [spec.name])
    await comes(lambda: may_read(admin, "verifier", spec.name), False)
    await soon(lambda: verifier.bounds(spec.name, 0), DeniedError)


@pytest.mark.integration
async def test_every_right_to_read_can_be_taken_at_once(admin: KafkaAdmin, spec: TopicSpec) -> None:
    host = f"T:system:{os.urandom(4).hex()}"
    await admin.grant_read(host, [spec.name, "another"])
    await comes(lambda: topics_of(admin, host), {spec.name, "another"})
    await admin.revoke_read(host)
    await comes(lambda: topics_of(admin, host), None)
    await admin.revoke_read(host)


@pytest.mark.integration
async def test_only_the_gateway_writes(
    admin: KafkaAdmin, spec: TopicSpec, broker: TestBroker, verifier: KafkaLog
) -> None:
    await admin.ensure_topics([spec])
    await admin.allow_platform("gateway", {"verifier": [spec.name]})
    gateway = log_of(broker, "gateway")
    await soon(lambda: gateway.append(spec.name, 0, [(b"key", b"value")]), None)
    await gateway.close()
    await soon(lambda: verifier.bounds(spec.name, 0), None)
    with pytest.raises((DeniedError, UnavailableError)):
        await verifier.append(spec.name, 0, [(b"key", b"value")])


@pytest.mark.integration
async def test_a_foreign_writer_of_one_topic_is_removed_and_a_wider_one_is_named(
    admin: KafkaAdmin, spec: TopicSpec
) -> None:
    wide = module._filter("User:mirror", AclOperation.ANY, None)
    for name in (spec.name, "*"):
        await asyncio.to_thread(
            admin._create_acls, [module._allow("mirror", AclOperation.WRITE, name)]
        )
    try:
        await comes(lambda: written_by(admin, "mirror"), {spec.name, "*"})
        left = await admin.remove_writers([spec.name], but="gateway")
        assert left == ["User:mirror on *"]
        await comes(lambda: written_by(admin, "mirror"), {"*"})
    finally:
        await asyncio.to_thread(admin._delete_acls, [wide])
    await comes(lambda: admin.remove_writers([spec.name], but="gateway"), [])


@pytest.mark.integration
async def test_an_identity_that_may_not_administer_is_a_configuration_error(
    broker: TestBroker, spec: TopicSpec
) -> None:
    other = KafkaAdmin([broker.address], tls_of(broker, "verifier"))
    with pytest.raises(ConfigInvalid, match="admin.certificate"):
        await other.ensure_topics([spec])
    for call in (
        other.allow_platform("verifier", {}),
        other.grant_read("verifier", [spec.name]),
        other.revoke_read("verifier", [spec.name]),
    ):
        with pytest.raises(ConfigInvalid):
            await call


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    missing = AdminTls(certificate=tmp_path / "c", key=tmp_path / "k", ca=tmp_path / "ca")
    with pytest.raises(ConfigInvalid, match=r"admin\.certificate"):
        KafkaAdmin(["127.0.0.1:1"], missing)


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), UnavailableError),
        (KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED)), ConfigInvalid),
        (KafkaException(KafkaError(KafkaError.SECURITY_DISABLED)), ConfigInvalid),
        (KafkaException(), UnavailableError),
        (TimeoutError(), UnavailableError),
    ],
)
async def test_the_librarys_errors_become_ours(error: Exception, family: type[Exception]) -> None:
    def call() -> None:
        raise error

    with pytest.raises(family):
        await module._in_thread(call)


async def test_a_broker_that_does_not_answer_is_unavailable_in_time(
    monkeypatch: pytest.MonkeyPatch, broker: TestBroker
) -> None:
    monkeypatch.setattr(module, "REQUEST_S_MAX", 0.3)
    away = KafkaAdmin(["127.0.0.1:1"], tls_of(broker, "admin"))
    with pytest.raises(UnavailableError) as error:
        await away.readers()
    assert error.value.reason is Reason.BROKER_UNAVAILABLE
