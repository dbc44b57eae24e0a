"""The authority's whole process: TLS, a real broker, real ACLs; the gateway is the broker itself.

The authority appends here as the gateway would, straight to the broker, because the
gateway's own checks are tested with the gateway.
"""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fabric import tls
from fabric.attest.members import Members
from fabric.attest.messages import EnrolRequest, Refusal
from fabric.attest.result import decode
from fabric.authority import admin
from fabric.authority.admin_messages import Scope
from fabric.authority.pki import Ca, encode_verifier_keys, issue_svid
from fabric.authority.run import run
from fabric.cli.attest import standing
from fabric.cli.output import Unattested
from fabric.config import AgentConfig, AuthorityConfig
from fabric.demo.process import free_port
from fabric.demo.swtpm import SoftTpm, TpmCa
from fabric.kafka.follow import follow
from fabric.kafka.log import KafkaLog
from fabric.model.errors import ConfigInvalid, DeniedError, FabricError, Reason, UnavailableError
from fabric.model.limits import ATTEST_INTERVAL_S_MIN
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.ports import Record
from fabric.tpm.device import TpmDevice
from fabric.web.authority import AuthorityClient
from fabric.web.request import request
from tests.conftest import TestBroker
from tests.fakes import policy_files
from tests.fakes.agent_page import write_config
from tests.fakes.authority_site import PCRS, READER, SENDER, Machine, until
from tests.fakes.policy_repository import Repository
from tests.fakes.verifier import TRUST_DOMAIN, HostKeys, Verifier

pytestmark = pytest.mark.integration
_READY_S = 40


@dataclass
class Site:
    """Files, addresses and clients of one authority."""

    folder: Path
    broker: TestBroker
    ca: Path
    svid_ca: Ca
    verifier: Verifier
    config: Path
    url: str
    web: str
    documents: dict[str, object]
    agency: str
    ek_ca: bytes
    version: int = policy_files.VERSION

    def publish(self) -> None:
        """Publish the policy."""
        self.version += 1
        files = {**policy_files.files(self.documents, self.agency), "trust/ek-ca.pem": self.ek_ca}
        Repository(self.folder / "policy", files, version=self.version).publish()

    def client(self, context: ssl.SSLContext | None = None) -> AuthorityClient:
        """A client without a certificate."""
        made = context or tls.client_context(None, None, self.ca)
        return AuthorityClient(self.url, lambda: made)

    def context_of(self, host: object, keys: HostKeys, svid: bytes) -> ssl.SSLContext:
        """A client's context with a host's SVID."""
        name = str(host).replace("/", "-")
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(svid)
        private = load_der_private_key(keys.tls.private_bytes(), None)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return tls.client_context(certificate, key, self.ca)


@pytest.fixture
def site(
    tmp_path: Path,
    broker: TestBroker,
    platform_ca: Ca,
    svid_ca: Ca,
    soft_tpm: Callable[[str], SoftTpm],
    tpm_ca: TpmCa,
) -> Site:
    soft_tpm("maker")  # the maker's certificates exist from the first TPM on
    verifier = Verifier()
    for name, data in (
        ("verifier.keys", encode_verifier_keys(verifier.signers)),
        ("svid-ca.key", svid_ca.key_pem),
        ("svid-ca.pem", svid_ca.cert_pem),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    port, web = free_port(), free_port()
    config = tmp_path / "authority.toml"
    admin_certificate, admin_key = broker.files("admin")
    own_certificate, own_key = broker.files("gateway")
    config.write_text(
        f"""
[authority]
listen = "127.0.0.1:{port}"
folder = "state"
verifier_key = "verifier.keys"
issuing_certificate = "svid-ca.pem"
issuing_key = "svid-ca.key"
heartbeat_interval_s = 0.2
replication_factor = 1
[tls]
certificate = "{own_certificate}"
key = "{own_key}"
ca = "{broker.ca}"
[admin]
certificate = "{admin_certificate}"
key = "{admin_key}"
[gateway]
bootstrap = ["{broker.address}"]
[broker]
bootstrap = ["{broker.address}"]
[policy]
root = "policy/metadata/1.root.json"
repository = "policy"
state = "state/policy"
refresh_s = 0.2
[web]
listen = "127.0.0.1:{web}"
"""
    )
    documents = policy_files.documents()
    documents["policy.yaml"]["trust"]["verifier"]["keys"] = [
        {"alg": int(alg), "public": public.hex()} for alg, public in verifier.trust.verifier_keys
    ]
    # Every test has its own topics: the broker is shared and keeps what others left.
    agency = f"T{os.urandom(4).hex().upper()}"
    documents[f"agencies/{agency}.yaml"] = {"name": "Test"}
    schema = f"schemas/{agency}/residents.avsc"
    floors = documents["floors.yaml"]["floors"]
    for name in ("residents", "wards"):
        floors[f"{agency}/{name}"] = floors.pop(f"G01/{name}")
        moved = documents.pop(f"datasets/G01/{name}.yaml")
        documents[f"datasets/{agency}/{name}.yaml"] = moved | {"schema": schema}
    return Site(
        folder=tmp_path,
        broker=broker,
        ca=broker.ca,
        svid_ca=svid_ca,
        verifier=verifier,
        config=config,
        url=f"https://127.0.0.1:{port}",
        web=f"http://127.0.0.1:{web}",
        documents=documents,
        agency=agency,
        ek_ca=tpm_ca.pem,
    )


@contextlib.asynccontextmanager
async def running(site: Site) -> AsyncIterator[None]:
    """The process, ready."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(AuthorityConfig.load(site.config), stop=stop))
        try:
            async with asyncio.timeout(_READY_S):
                while not await _is_ready(site):
                    await asyncio.sleep(0.1)
            yield
        finally:
            stop.set()


async def _is_ready(site: Site) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{site.web}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _enrol(site: Site, machine: Machine) -> None:
    client = site.client()
    challenge = await client.enrol(EnrolRequest.decode(machine.enrol_request()))
    secret = await asyncio.to_thread(machine.tpm.activate, challenge.credential, challenge.secret)
    await client.activate(challenge.enrolment, secret)


async def _attest(site: Site, machine: Machine) -> tuple[bytes, bytes]:
    client = site.client()
    challenge = await client.challenge(machine.host)
    body = await asyncio.to_thread(machine.attest_request, challenge.encode())
    answer = await client.attest(body)
    return answer.svid_pem, answer.result


async def test_a_host_enrols_attests_reads_changes_and_is_suspended(
    site: Site, soft_tpm: Callable[[str], SoftTpm]
) -> None:
    device = TpmDevice(soft_tpm("host-a").tcti)
    machine = Machine(SENDER, device)
    site.documents[f"approvals/{SENDER}.yaml"] = machine.approval(ak_name=None)
    site.publish()
    async with running(site):
        await _enrol(site, machine)
        (entry,) = await admin.list_enrolments(AuthorityConfig.load(site.config))
        with pytest.raises(DeniedError, match=str(entry["ak_name"])) as error:
            await site.client().challenge(SENDER)
        assert error.value.reason is Reason.NOT_APPROVED
        site.documents[f"approvals/{SENDER}.yaml"] = machine.approval(ak_name=entry["ak_name"])
        site.publish()
        svid, data = await _until_attested(site, machine)
        trust = site.verifier.trust
        result = decode(data, trust)
        assert result.host == SENDER

        log = _log_of(site, site.context_of(SENDER, machine.keys, svid))
        members = Members(trust)
        async with _following(log, members):
            await until(lambda: SENDER in members.hosts and members.heartbeat is not None)
            await until(lambda: _is_current(members, result.expires))
            topic = f"secret.{site.agency}.residents"
            assert await log.bounds(topic, 0) == (0, 0)

            loop = asyncio.get_running_loop()
            await asyncio.to_thread(device.unsafe_extend, PCRS[0], bytes(range(32)))
            await asyncio.sleep(ATTEST_INTERVAL_S_MIN)
            began = loop.time()
            with pytest.raises(DeniedError) as error:
                await _attest(site, machine)
            assert error.value.reason is Reason.STATE_REFUSED
            print(f"suspension answered after {loop.time() - began:.3f} s")
            # The host's own rights are gone: it cannot even read that it is suspended.
            with pytest.raises((DeniedError, UnavailableError)):
                await log.bounds(topic, 0)
            await _learns_why_without_an_agent(site)
        await log.close()
        (host,) = await admin.list_hosts(AuthorityConfig.load(site.config))
        assert (host["state"], host["number"]) == ("suspended", 1)
        seen = await _members_seen_by_admin(site)
        assert seen.revocation_number == 1
        with pytest.raises(DeniedError) as error:
            seen.current(SENDER, result.issued)
        assert error.value.reason is Reason.HOST_SUSPENDED
    # A second life knows the notice and goes on counting.
    async with running(site):
        who = Scope.parse(str(SENDER))
        (entry,) = await admin.revoke(AuthorityConfig.load(site.config), who, "stolen")
        assert entry["number"] == 2
        assert (await _members_seen_by_admin(site)).revocation_number == 2


async def _learns_why_without_an_agent(site: Site) -> None:
    (site.folder / "host").mkdir()
    path = write_config(site.folder / "host", host=str(SENDER))
    text = path.read_text().replace('"https://127.0.0.1:9"', f'"{site.url}"')
    text = text.replace('ca = "ca.pem"', f'ca = "{site.ca}"').replace('"policy', '"../policy')
    path.write_text(text)
    with pytest.raises(Unattested, match="the authority suspended this host at") as error:
        await standing(AgentConfig.load(path), path)
    assert error.value.reason is Reason.HOST_SUSPENDED


async def _until_attested(site: Site, machine: Machine) -> tuple[bytes, bytes]:
    """The new approval takes effect at the authority's next look at the folder."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await _attest(site, machine)
            except DeniedError as exc:
                if exc.reason is not Reason.NOT_APPROVED:
                    raise
                await asyncio.sleep(0.1)


def _is_current(members: Members, now: object) -> bool:
    try:
        members.current(SENDER, now - timedelta(seconds=60))
    except DeniedError:
        return False
    return True


def _log_of(site: Site, context: ssl.SSLContext) -> KafkaLog:
    address = [site.broker.address]
    return KafkaLog(address, address, lambda: context, client_id="test")


@contextlib.asynccontextmanager
async def _following(log: KafkaLog, members: Members) -> AsyncIterator[None]:
    def feed(record: Record) -> None:
        with contextlib.suppress(FabricError):
            members.feed(record.topic, record.key or b"", record.value or b"")

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(follow(log, topic, feed, asyncio.Event()))
            for topic in (RESULTS, MEMBERS)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _members_seen_by_admin(site: Site) -> Members:
    certificate, key = site.broker.files("admin")
    log = _log_of(site, tls.client_context(certificate, key, site.ca))
    members = Members(site.verifier.trust)
    for topic in (RESULTS, MEMBERS):
        offset, end = await log.bounds(topic, 0)
        if offset == end:
            continue
        async for batch in log.read(topic, 0, offset):
            for record in batch:
                offset = record.offset + 1
                with contextlib.suppress(FabricError):
                    members.feed(topic, record.key or b"", record.value or b"")
            if offset >= end:
                break
    await log.close()
    return members


async def test_every_route_is_open_to_exactly_those_who_may_call_it(site: Site) -> None:
    machine = Machine(SENDER)
    site.documents[f"approvals/{SENDER}.yaml"] = machine.approval()
    site.publish()
    contexts = _contexts(site)
    denied = {Reason.API_REFUSED}
    routes = [
        ("GET", "/admin/enrolments", {"admin"}),
        ("GET", "/admin/hosts", {"admin"}),
        ("POST", "/admin/suspend", {"admin"}),
        ("POST", "/admin/revoke", {"admin"}),
        ("POST", "/admin/forget", {"admin"}),
        ("GET", "/subjects", {"admin", "host", "other", "gateway", "false-admin"}),
        ("POST", "/enrol", set(contexts)),
        ("POST", "/enrol/activate", set(contexts)),
        ("POST", "/challenge", set(contexts)),
        ("POST", "/attest", set(contexts)),
        ("GET", "/nothing", set()),
        ("POST", "/admin/reinstate", set()),
    ]
    async with running(site):
        for method, path, allowed in routes:
            for who, context in contexts.items():
                status, reason = await _call(site, method, path, context)
                is_denied = reason in denied
                assert is_denied is (who not in allowed), (method, path, who, status, reason)


def _contexts(site: Site) -> dict[str, ssl.SSLContext]:
    """No certificate, a host's, another agency's, platform parts', one that claims to be admin."""
    found = {"nobody": tls.client_context(None, None, site.ca)}
    for name in ("admin", "gateway"):
        certificate, key = site.broker.files(name)
        found[name] = tls.client_context(certificate, key, site.ca)
    end = datetime.now(UTC) + timedelta(hours=1)
    for who, host in (
        ("host", SENDER),
        ("other", READER),
        ("false-admin", HostId.parse("FABRIC.PLATFORM/admin/admin")),
    ):
        keys = HostKeys()
        svid = issue_svid(site.svid_ca, host, TRUST_DOMAIN, keys.tls.public.data, end)
        found[who] = site.context_of(host, keys, svid)
    return found


async def _call(
    site: Site, method: str, path: str, context: ssl.SSLContext
) -> tuple[int, Reason | None]:
    body = b"\xa0" if method == "POST" else None
    status, kind, data = await request(
        method, site.url + path, context=context, body=body, answer_bytes_max=1_000_000
    )
    return status, Refusal.decode(data).reason if kind == "application/cbor" else None


async def test_garbage_half_open_and_slow_connections_harm_nobody_else(site: Site) -> None:
    machine = Machine(SENDER)
    site.documents[f"approvals/{SENDER}.yaml"] = machine.approval()
    site.publish()
    host, port = site.url.removeprefix("https://").split(":")
    context = tls.client_context(None, None, site.ca)
    async with running(site), contextlib.AsyncExitStack() as stack:
        for number in range(20):
            half_open = socket.create_connection((host, int(port)))
            stack.callback(half_open.close)
            if number % 2:
                half_open.sendall(os.urandom(200))
        for _ in range(10):
            _, slow = await asyncio.open_connection(host, int(port), ssl=context)
            stack.callback(slow.close)
            slow.write(b"POST /enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n")
            await slow.drain()
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(b"POST /enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n")
        writer.write(b"Content-Type: application/cbor\r\n\r\n" + bytes(1000))
        assert b"413" in await reader.readline()
        writer.close()
        async with asyncio.timeout(5):
            with pytest.raises(DeniedError) as error:
                await site.client().challenge(SENDER)
            assert error.value.reason is Reason.NOT_ENROLLED


async def test_the_schema_registry_is_served_on_the_same_port(site: Site) -> None:
    site.publish()
    context = _contexts(site)["admin"]

    async def get(path: str) -> object:
        status, kind, data = await request(
            "GET", site.url + path, context=context, answer_bytes_max=1_000_000
        )
        assert (status, kind) == (200, "application/vnd.schemaregistry.v1+json")
        return json.loads(data)

    async with running(site):
        (subject,) = await get("/subjects")
        assert subject == f"public.{site.agency}.wards-value"
        assert await get(f"/subjects/{subject}/versions") == [1]
        latest = await get(f"/subjects/{subject}/versions/latest")
        schema = await get(f"/schemas/ids/{latest['id']}")
    assert schema == {"schema": latest["schema"]}
    assert json.loads(schema["schema"])["name"] == "fabric.Change"


async def test_keys_that_the_policy_does_not_name_stop_the_process(site: Site) -> None:
    site.documents["policy.yaml"]["trust"]["verifier"]["keys"][0]["public"] = "07" * 32
    site.publish()
    with pytest.raises(ConfigInvalid, match="authority.verifier_key"):
        await run(AuthorityConfig.load(site.config))


async def test_a_key_file_that_others_can_read_stops_the_process(site: Site) -> None:
    site.publish()
    (site.folder / "svid-ca.key").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="authority.issuing_key"):
        await run(AuthorityConfig.load(site.config))
