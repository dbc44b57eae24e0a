"""Real gateways in front of the real test broker, with an authority that is only a pen.

The policy is a signed repository in a folder, the members are published through the
gateway under the verifier's certificate, and hosts hold SVIDs of the test CA: everything a producer
meets is real but the TPMs.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.pki import Ca, issue_svid
from fabric.demo.process import await_that, free_port, is_listening, spawn, stop
from fabric.kafka.admin import AdminTls, KafkaAdmin, TopicSpec
from fabric.kafka.log import KafkaLog
from fabric.model.errors import UnavailableError
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.tls import client_context
from tests.fakes.approvals import document
from tests.fakes.gateway import GRANTS, OPEN, SCHEMA_ID, SEALED, World
from tests.fakes.policy_repository import Repository
from tests.fakes.sealing import NOTES

_SCHEMAS = Path(__file__).parents[2] / "schemas"
_INTERVAL_S = 60


@dataclass(frozen=True, kw_only=True)
class Papers:
    """PEM files of one client."""

    certificate: Path
    key: Path
    ca: Path

    def librdkafka(self, bootstrap: str) -> dict[str, Any]:
        """Settings for confluent-kafka and kcat."""
        return {
            "bootstrap.servers": bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.certificate),
            "ssl.key.location": str(self.key),
            "log_level": 0,
        }


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """One running gateway process."""

    port: int
    side_port: int
    web_port: int
    config: Path
    child: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """For bootstrap lists."""
        return f"localhost:{self.port}"

    @property
    def refusals(self) -> str:
        """URL of its refusal log."""
        return f"https://localhost:{self.side_port}"


class Site:
    """Everything around the gateways; use `running`."""

    def __init__(self, folder: Path, broker: Any, svid_ca: Ca) -> None:
        self.folder = folder
        self.broker = broker
        self._svid_ca = svid_ca
        now = datetime.now(UTC)
        self.world = World(now)
        self.a = self.papers(self.world.a.host, "a")
        self.b = self.papers(self.world.b.host, "b")

    def papers(self, host: HostId, name: str, lifetime_s: float = 3600) -> Papers:
        """An SVID of a host."""
        key = SigningKey.generate(Alg.ESP256, Use.TLS)
        end = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        domain = self.world.verifier.trust.trust_domain
        certificate = issue_svid(self._svid_ca, host, domain, key.public.data, end)
        private = load_der_private_key(key.private_bytes(), None)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = Papers(
            certificate=self.folder / f"{name}.pem",
            key=self.folder / f"{name}.key",
            ca=self.broker.ca,
        )
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(pem)
        return files

    def platform(self, name: str) -> Papers:
        """A platform part's certificate."""
        certificate, key = self.broker.files(name)
        return Papers(certificate=certificate, key=key, ca=self.broker.ca)

    def prepare(self) -> None:
        """Write the policy and make the topics."""
        self._write_policy()
        asyncio.run(self._make_topics())

    def _write_policy(self) -> None:
        ca = self.broker.ca.read_bytes()
        dataset = {
            "schema": "schemas/G01/notes.avsc",
            "key": list(NOTES.key),
            "partitions": 2,
            "retention_s": 86_400,
            "producers": ["G01/registry/main"],
            "consumers": ["G02/health"],
            "history": "retained",
            "on_unappliable": "quarantine",
            "tags": {},
            "legal_basis": "test",
        }
        level = {
            "evidence": ["tpm2"],
            "result_lifetime_s": 600,
            "delivery_s": 60,
            "citation": "test",
        }
        documents: dict[str, Any] = {
            "policy.yaml": {
                "trust": {
                    "trust_domain": self.world.verifier.trust.trust_domain,
                    "verifier": {
                        "name": "verifier",
                        "keys": [
                            {"alg": int(alg), "public": public.hex()}
                            for alg, public in self.world.verifier.trust.verifier_keys
                        ],
                    },
                    "ca": "trust/ca.pem",
                    "ek_ca": "trust/ek-ca.pem",
                },
            },
            "levels.yaml": [
                {
                    "name": "public",
                    "sealed": False,
                    "suites": [],
                    "host_level_min": 1,
                    "coding": "none",
                    "padding": False,
                    **level,
                },
                {
                    "name": "secret",
                    "sealed": True,
                    "suites": ["classic", "hybrid"],
                    "host_level_min": 4,
                    "coding": "zstd",
                    "padding": True,
                    **level,
                },
            ],
            "suites.yaml": [{"id": n, "status": "approved"} for n in ("classic", "hybrid")],
            "floors.yaml": {"floors": {"G01/notes": "secret+personal-data", "G01/wards": "public"}},
            "agencies/G01.yaml": {"name": "Registry"},
            "agencies/G02.yaml": {"name": "Health"},
            "datasets/G01/notes.yaml": {
                **dataset,
                "level": "secret",
                "label": "secret+personal-data",
                "suite": "classic",
                "schema_id": SCHEMA_ID + 1,
                "salt": "11" * 32,
            },
            "datasets/G01/wards.yaml": {
                **dataset,
                "level": "public",
                "label": "public",
                "suite": "",
                "schema_id": SCHEMA_ID,
                "salt": "22" * 32,
            },
        }
        for host, approval in self.world.policy.approvals.items():
            documents[f"approvals/{host}.yaml"] = document(approval)
        texts = {name: json.dumps(content).encode() for name, content in documents.items()}
        texts["schemas/G01/notes.avsc"] = (_SCHEMAS / "notes.avsc").read_bytes()
        texts["trust/ca.pem"] = texts["trust/ek-ca.pem"] = ca
        Repository(self.folder / "policy", texts).publish()

    async def _make_topics(self) -> None:
        papers = self.platform("admin")
        tls = AdminTls(certificate=papers.certificate, key=papers.key, ca=papers.ca)
        admin = KafkaAdmin([self.broker.address], tls)
        stamped = {"message.timestamp.type": "LogAppendTime"}
        data = [TopicSpec(name=t, partitions=2, settings=stamped) for t in (SEALED, OPEN)]
        control = [
            TopicSpec(name=name, partitions=1, settings={}) for name in (MEMBERS, RESULTS, GRANTS)
        ]
        await admin.ensure_topics([*data, *control])
        await admin.allow_platform("gateway", {})

    def log(self, papers: Papers, gateways: Sequence[str]) -> KafkaLog:
        """A client of ours."""
        context = client_context(papers.certificate, papers.key, papers.ca)
        return KafkaLog([self.broker.address], gateways, lambda: context, client_id="test")

    def publish(self, gateway: Gateway, records: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Append control records as the authority."""

        async def append() -> None:
            log = self.log(self.platform("verifier"), [gateway.address])
            try:
                for topic, key, value in records:
                    await log.append(topic, 0, [(key, value)])
            finally:
                await log.close()

        asyncio.run(append())

    def start(self, name: str, port: int, advertised: Sequence[int]) -> Gateway:
        """Start one gateway process."""
        side_port, web_port = free_port(), free_port()
        certificate, key = self.broker.files("gateway")
        config = self.folder / f"{name}.toml"
        config.write_text(
            f"""
[gateway]
listen = "127.0.0.1:{port}"
advertised = {[f"localhost:{p}" for p in advertised]}
side_listen = "127.0.0.1:{side_port}"
heartbeat_interval_s = {_INTERVAL_S}
folder = "{name}.state"
[audit]
head_interval_s = 0.5
[tls]
certificate = "{certificate}"
key = "{key}"
ca = "{self.broker.ca}"
[broker]
bootstrap = ["{self.broker.address}"]
[policy]
root = "policy/metadata/1.root.json"
repository = "policy"
state = "{name}-policy"
refresh_s = 1
[web]
listen = "127.0.0.1:{web_port}"
"""
        )
        command = [sys.executable, "-m", "fabric.cli", "gateway", "run", config]
        child = spawn(command, self.folder / f"{name}.log", cwd=Path(__file__).parents[2])
        try:
            await_that(lambda: is_listening(port), name, wait_s=30, child=child)
        except UnavailableError as exc:
            raise AssertionError((self.folder / f"{name}.log").read_text()) from exc
        return Gateway(
            port=port, side_port=side_port, web_port=web_port, config=config, child=child
        )


@contextmanager
def running(folder: Path, broker: Any, svid_ca: Ca) -> Iterator[tuple[Site, list[Gateway]]]:
    """A site with two gateways side by side, both ready to judge."""
    site = Site(folder, broker, svid_ca)
    site.prepare()
    ports = [free_port(), free_port()]
    gateways: list[Gateway] = []
    try:
        for number, port in enumerate(ports):
            gateways.append(site.start(f"gateway-{number}", port, ports))
        site.publish(gateways[0], [*site.world.records(), site.world.heartbeat()])
        yield site, gateways
    finally:
        for gateway in gateways:
            stop(gateway.child)
