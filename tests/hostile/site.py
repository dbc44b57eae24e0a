"""A small platform under one served policy: sender A, reader B and a gateway between them.

Each has its own copy of the policy, its own looks at what is served and its own audit file.
What is not played: TLS, the TPM and the broker. The policy's files are in the hand of whoever
serves them; so is the log.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from fabric.agent.parts import apply_partition
from fabric.agent.policing import Policing
from fabric.agent.sinks import SinkHolder
from fabric.agent.supervisor import supervise
from fabric.database.sqlite import SqliteSink
from fabric.gateway.identity import Identity
from fabric.gateway.judge import Judge, Refused
from fabric.gateway.replay import Replays
from fabric.gateway.requests import Part
from fabric.gateway.view import Keeper
from fabric.kafka.producer import refusal
from fabric.metrics import GatewayMetrics
from fabric.model.change import Row
from fabric.model.errors import FabricError
from fabric.model.names import HostId
from fabric.policy.types import Policy
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.store.audit import FileAudit
from tests.fakes import policy_files
from tests.fakes.approvals import approved, document
from tests.fakes.gateway import batch
from tests.fakes.platform import LABEL, SECRET, A, B, C, DrawerTpm, Platform, TestHost, dataset
from tests.fakes.policy_repository import Repository
from tests.fakes.running import Running, running, table, until
from tests.fakes.source import MemoryDatabase
from tests.support.hostile_log import HostileLog

DATASET = "datasets/G01/notes.yaml"
LEVELS = "levels.yaml"
MACHINES = ("sender", "reader", "gateway")
_SCHEMA = Path(__file__).parents[2] / "schemas/notes.avsc"
_LOOK_S = 0.05


def content(platform: Platform) -> dict[str, bytes]:
    """The files of the policy that the platform is under: the dataset of notes alone."""
    documents = policy_files.documents()
    trust, wanted = documents["policy.yaml"]["trust"], dataset(SECRET)
    trust["trust_domain"] = platform.verifier.trust.trust_domain
    trust["verifier"]["keys"] = [
        {"alg": int(alg), "public": public.hex()}
        for alg, public in platform.verifier.trust.verifier_keys
    ]
    for level in documents[LEVELS]:
        if level["name"] == "secret":
            level.update(suites=["classic", "hybrid"], delivery_s=300)
    for host, approval in approved(A, B, C).items():
        documents[f"approvals/{host}.yaml"] = document(approval)
    documents["floors.yaml"] = {"floors": {"G01/notes": str(LABEL)}}
    residents = documents.pop("datasets/G01/residents.yaml")
    documents.pop("datasets/G01/wards.yaml")
    documents[DATASET] = residents | {
        "label": str(LABEL),
        "schema": "schemas/G01/notes.avsc",
        "suite": wanted.suite,
        "salt": wanted.salt.hex(),
        "producers": [str(origin) for origin in wanted.producers],
        "consumers": [*wanted.consumers],
        "schema_id": wanted.schema_id,
        "tags": {},
        "legal_basis": wanted.legal_basis,
    }
    files = policy_files.files(documents)
    files["schemas/G01/notes.avsc"] = _SCHEMA.read_bytes()
    return files


class Site:
    """Everything around the three machines; `running` starts them.

    Attributes:
        written: the policy's files as they will be served next, signed with whatever keys
            somebody has.
        served: the folder that all machines look at.
        database: A's rows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = Platform(dataset(SECRET))
        self.written = Repository(folder / "written", content(self.platform), version=7).publish()
        self._anchor = folder / "root.json"
        self._anchor.write_bytes(self.written.anchor.read_bytes())
        self.served = folder / "served"
        self._times_served = 0
        self.serve()
        self.log = HostileLog()
        self.log.now = self.platform.clock.now
        self.platform.log = self.log
        self.policies = {name: self._repository(name) for name in MACHINES}
        self.platform.policy = self.policies["gateway"].load()
        assert self.platform.policy.datasets == {str(SECRET): dataset(SECRET)}
        self.audits = {name: self._audit(name) for name in MACHINES}
        self.tpms = {name: DrawerTpm() for name in ("sender", "reader")}
        self.a, self.b = self._host(A, "sender"), self._host(B, "reader")
        self.c = TestHost(self.platform, C, folder / "c").open()
        for host in (self.a, self.b, self.c):
            host.attest()
        self.judge = Judge(Replays(), heartbeat_interval_s=60)
        self.log.judge = self._judged
        self.database = MemoryDatabase([table()])
        self.database.upsert(table(), notes(0, 30))

    def _repository(self, name: str) -> PolicyRepository:
        state = self.folder / f"{name}-policy"
        return PolicyRepository(self._anchor, FolderFetcher(self.served), state)

    def _audit(self, name: str) -> FileAudit:
        path = self.folder / f"{name}.jsonl"
        return FileAudit(path, self.platform.clock, failed=lambda: None)

    def _host(self, ident: HostId, name: str) -> TestHost:
        self.policies[name].load()
        host = TestHost(self.platform, ident, self.folder / name)
        host.tpm = self.tpms[name]
        host.audit = self.audits[name]  # type: ignore[assignment]  # the real one
        return host.open()

    def _judged(
        self, topic: str, partition: int, key: bytes | None, value: bytes
    ) -> FabricError | None:
        """What the gateway says of one record of A's."""
        part = Part(topic, partition, batch(value, key=key))
        now = self.platform.clock.now()
        who = Identity(name=str(A), host=A, not_after=now + timedelta(hours=1))
        verdict = self.judge.judge(part, who, now)
        return refusal(verdict.reason, verdict.message) if isinstance(verdict, Refused) else None

    # Running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run all three; on return B has what A's database held at the start."""
        clock = self.platform.clock
        keeper = Keeper(
            self.judge,
            self.policies["gateway"],
            self.log,
            metrics=GatewayMetrics(()),
            audit=PolicyAudit(self.audits["gateway"], clock),
            refresh_s=_LOOK_S,
            latest=clock.latest,
        )
        async with running() as parts:
            parts.spawn(keeper.run())
            for name, host in (("sender", self.a), ("reader", self.b)):
                told = host.host.telemetry
                policing = Policing(self.policies[name], host.host.view, told, clock)
                parts.spawn(policing.run(_LOOK_S))
            await parts.view(self.a)
            await parts.view(self.b, SECRET)
            parts.capture(self.a, self.database)
            self._apply(parts)
            await self.until_applied()
            yield parts
        for host in (self.a, self.b):
            host.host.identity.close()
        for audit in self.audits.values():
            audit.close()

    def again(self) -> None:
        """A, B and the gateway live once more."""
        self.audits = {name: self._audit(name) for name in MACHINES}
        self.a, self.b = self._host(A, "sender"), self._host(B, "reader")

    def _apply(self, parts: Running) -> None:
        sink = SinkHolder(
            {SECRET: "notes"}, lambda: SqliteSink(self.folder / "target.db"), self.b.host.view
        )
        part = f"apply {SECRET}:0"
        parts.spawn(
            supervise(
                part, lambda: apply_partition(self.b.host, part, sink, SECRET, 0), self.b.board
            )
        )

    async def until_applied(self) -> None:
        """B has exactly A's rows."""
        await until(lambda: self.rows() == self.wanted())

    async def until_said(self, event: str, reason: str, *names: str) -> None:
        """Each of these machines has a line of that event and reason in its audit log."""
        for name in names or MACHINES:
            await until(lambda name=name: (event, reason) in self.said(name))  # type: ignore[misc]  # bound now

    async def until_taken(self, version: int) -> None:
        """All three are under this version."""
        await until(lambda: all(p.version == version for p in self.in_force().values()))

    # What is to be seen

    def in_force(self) -> Mapping[str, Policy]:
        """The policy that each machine judges by."""
        assert self.judge.view is not None
        return {
            "sender": self.a.host.view.policy,
            "reader": self.b.host.view.policy,
            "gateway": self.judge.view.policy,
        }

    def said(self, name: str) -> list[tuple[str, str]]:
        """Event and reason (or version) of each line of a machine's audit log."""
        lines = map(json.loads, (self.folder / f"{name}.jsonl").read_text().splitlines())
        return [
            (line["event"], str(line["fields"].get("reason", line["fields"].get("version", ""))))
            for line in lines
        ]

    def rows(self) -> dict[Any, Row]:
        """The target's rows."""
        with closing(sqlite3.connect(self.folder / "target.db")) as connection:
            try:
                found = connection.execute("SELECT id, text FROM notes").fetchall()
            except sqlite3.OperationalError:
                return {}
        return {ident: {"id": ident, "text": text} for ident, text in found}

    def stored(self) -> int:
        """How many records of the dataset the log holds."""
        return len(self.log.records[str(SECRET), 0])

    def wanted(self) -> dict[Any, Row]:
        """The source's rows."""
        return {row["id"]: row for row in self.database.held(table()).values()}

    # What whoever serves the policy does

    def serve(self) -> None:
        """Serve what is written, all at once."""
        self._times_served += 1
        shown = self.folder / f"served {self._times_served}"
        shutil.copytree(self.written.folder, shown)
        link = self.folder / "next"
        link.symlink_to(shown)
        link.replace(self.served)

    def withhold(self) -> None:
        """Serve nothing."""
        self.served.unlink()

    def change(self, path: str = LEVELS, **fields: object) -> None:
        """Change one document of what will be published next."""
        document = yaml.safe_load(self.written.content[path])
        (document[0] if isinstance(document, list) else document).update(fields)
        self.written.content[path] = yaml.safe_dump(document).encode()

    def file(self, name: str) -> bytes:
        """One file as it is written now."""
        return (self.written.folder / name).read_bytes()


def notes(first: int, count: int) -> list[Row]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]
