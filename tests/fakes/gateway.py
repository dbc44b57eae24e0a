"""A small platform for tests of admission and gateway: policy, members, two hosts, batches."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from fabric.admit.view import Place, View
from fabric.attest.members import Members, heartbeat_record, host_record, result_record
from fabric.attest.result import Result
from fabric.gateway.cluster import Directory
from fabric.gateway.identity import Identity
from fabric.gateway.judge import Judge
from fabric.gateway.replay import Replays
from fabric.kafka.broker_answers import Cluster
from fabric.model.change import ZERO
from fabric.model.label import Label, Levels
from fabric.model.names import MEMBERS, RESULTS, HostId, Origin, Topic
from fabric.policy.types import Dataset, LevelRule, Policy, SuiteRule
from fabric.seal import envelope as form
from fabric.seal.epoch import Started
from fabric.seal.sealing import Link, Sealed
from tests.fakes.approvals import an_approval, approved
from tests.fakes.sealing import NOTES, NOW, TOPIC, Party, block
from tests.fakes.verifier import Verifier, a_beat, a_state

SEALED = str(TOPIC)
OPEN = "public.G01.wards"
GRANTS = f"fabric.grants.{TOPIC}"
PRODUCER, CONSUMER = "G01/registry/a1", "G02/health/b1"
SCHEMA_ID = 7
INTERVAL_S = 1.0
GATEWAYS = (("gw1", 9392), ("gw2", 9392))


def a_rule(name: str, **changes: object) -> LevelRule:
    """The rule of a sealed level."""
    rule = LevelRule(
        name=name,
        sealed=True,
        suites=("classic", "hybrid"),
        host_level_min=4,
        evidence=frozenset({"tpm2"}),
        result_lifetime_s=600,
        delivery_s=60,
        coding="zstd",
        padding=True,
        citation="",
    )
    return replace(rule, **changes)  # type: ignore[arg-type]  # tests name real fields


def a_dataset(topic: str, **changes: object) -> Dataset:
    """A dataset of agency G01 whose producer is `G01/registry/main`."""
    dataset = Dataset(
        topic=Topic.parse(topic),
        label=Label.parse("secret+personal-data"),
        schema=NOTES,
        suite="classic",
        partitions=2,
        salt=bytes(32),
        retention_s=86_400,
        producers=(Origin.parse("G01/registry/main"),),
        consumers=("G02/health",),
        history="retained",
        on_unappliable="quarantine",
        schema_id=SCHEMA_ID,
        tags={},
        legal_basis="",
    )
    return replace(dataset, **changes)  # type: ignore[arg-type]  # tests name real fields


def a_policy(verifier: Verifier, now: datetime, **changes: object) -> Policy:
    """Levels public and secret, one dataset each; both hosts approved."""
    policy = Policy(
        version=7,
        expires=now + timedelta(days=1),
        levels=Levels(("public", "secret")),
        rules={
            "public": a_rule("public", sealed=False, suites=(), host_level_min=1),
            "secret": a_rule("secret"),
        },
        suites={name: SuiteRule(id=name, status="approved") for name in ("classic", "hybrid")},
        agencies={"G01": "Registry", "G02": "Health"},
        approvals=approved(*map(HostId.parse, (PRODUCER, CONSUMER))),
        datasets={
            SEALED: a_dataset(SEALED),
            OPEN: a_dataset(OPEN, label=Label("public"), suite=""),
        },
        trust=verifier.trust,
    )
    return replace(policy, **changes)  # type: ignore[arg-type]  # tests name real fields


def a_party(name: str, now: datetime, *, suite: str = "classic") -> Party:
    """A host with a result that runs from a minute before `now`."""
    party = Party.make(name, suite)
    issued = (now - timedelta(seconds=60)).replace(microsecond=0)
    result = replace(
        party.result, issued=issued, expires=issued + timedelta(minutes=10), policy_version=7
    )
    return replace(party, result=result)


class World:
    """Policy and members at `now`; host `a` produces, host `b` may not.

    Attributes:
        sealed: envelopes of `a` so far, in order.
    """

    def __init__(self, now: datetime = NOW, *, suite: str = "classic") -> None:
        self.now = now
        self.verifier = Verifier()
        self.a = a_party(PRODUCER, now, suite=suite)
        self.b = a_party(CONSUMER, now, suite=suite)
        self.policy = a_policy(self.verifier, now)
        if suite != "classic":
            changed = {**self.policy.datasets, SEALED: a_dataset(SEALED, suite=suite)}
            self.policy = replace(self.policy, datasets=changed)
        self.members = Members(self.verifier.trust)
        for topic, key, value in (*self.records(), self.heartbeat()):
            self.members.feed(topic, key, value)
        self.started = self.start(self.a)
        self.sealed: list[Sealed] = []

    @property
    def view(self) -> View:
        """Policy and members as they are now."""
        return View(self.policy, self.members)

    def approving(self, *hosts: HostId, **changes: object) -> View:
        """The view once a policy has come that approves these hosts and nobody else."""
        approvals = {host: an_approval(host, **changes) for host in hosts}
        return View(replace(self.policy, approvals=approvals), self.members)

    def records(self) -> list[tuple[str, bytes, bytes]]:
        """What the authority has written of both hosts: topic, key, value."""
        return [record for party in (self.a, self.b) for record in self.records_of(party.result)]

    def records_of(self, result: Result, **changes: object) -> list[tuple[str, bytes, bytes]]:
        """A result and the state that goes with it."""
        domain, signers = self.verifier.trust.trust_domain, self.verifier.signers
        state = a_state(result, **changes)
        return [
            (RESULTS, *result_record(result, domain, signers)),
            (MEMBERS, *host_record(state, signers)),
        ]

    def heartbeat(self, number: int = 0, at: datetime | None = None) -> tuple[str, bytes, bytes]:
        """The authority's heartbeat."""
        return (MEMBERS, *heartbeat_record(a_beat(number, at or self.now), self.verifier.signers))

    def start(self, party: Party, number: int = 1, **changes: object) -> Started:
        """An epoch of a host for the sealed topic."""
        draft = party.draft(number, revocation_number=0, started=self.now, **changes)
        return party.start(draft)

    def seal(self, **stamp: object) -> bytes:
        """The next envelope of host `a`."""
        return self.seal_as(self.a, **stamp)

    def seal_as(self, party: Party, **stamp: object) -> bytes:
        """The next envelope, by any host."""
        last = self.sealed[-1] if self.sealed else None
        link = (
            Link(counter=last.counter + 1, previous=last.hash)
            if last
            else Link(counter=0, previous=form.NO_PREVIOUS)
        )
        started = self.started if party is self.a else self.start(party)
        done = party.seal(
            block(2, after=ZERO, position=100 + link.counter),
            started,
            link=link,
            stamp=party.stamp(**{"now": self.now, **stamp}),
        )
        self.sealed.append(done)
        return done.data

    def open_record(self, origin: str = "G01/registry/main", schema_id: int = SCHEMA_ID) -> bytes:
        """A record of the open topic: framing, origin, and bytes nobody here decodes."""
        return b"\0" + schema_id.to_bytes(4) + bytes([len(origin) * 2]) + origin.encode() + b"row"

    def judge(self) -> Judge:
        """A judge with this view."""
        judge = Judge(Replays(), heartbeat_interval_s=INTERVAL_S)
        judge.view = self.view
        judge.is_caught_up = lambda: True
        return judge

    def identity(self, party: Party | None = None, **changes: object) -> Identity:
        """Who holds a host's certificate."""
        host = (party or self.a).result.host
        identity = Identity(name=str(host), host=host, not_after=self.now + timedelta(hours=1))
        return replace(identity, **changes)  # type: ignore[arg-type]  # tests name real fields

    def platform(self, name: str) -> Identity:
        """A part of the platform."""
        return Identity(name=name, host=None, not_after=self.now + timedelta(hours=1))


def a_directory(
    leaders: Mapping[tuple[str, int], int] | None = None, nodes: tuple[int, ...] = (1,)
) -> Directory:
    """Nodes `broker<n>:9092` that lead every partition of the world's topics."""
    directory = Directory(GATEWAYS)
    found = {
        (topic, partition): nodes[partition % len(nodes)]
        for topic in (SEALED, OPEN, GRANTS, MEMBERS, RESULTS)
        for partition in range(2)
    }
    directory.learn(
        Cluster(
            nodes={node: (f"broker{node}", 9092) for node in nodes},
            leaders=found if leaders is None else leaders,
        )
    )
    return directory


def batch(
    *values: bytes | None,
    key: bytes | None = None,
    codec: int = 0,
    headers: list[tuple[str, bytes]] | None = None,
    is_transactional: bool = False,
    producer_id: int = -1,
) -> bytes:
    """A record batch as aiokafka builds it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=is_transactional,
        producer_id=producer_id,
        producer_epoch=min(producer_id, 0),
        base_sequence=min(producer_id, 0),
        batch_size=16 * 1024 * 1024,
    )
    for index, value in enumerate(values):
        made = builder.append(index, timestamp=None, key=key, value=value, headers=headers or [])
        assert made is not None
    return bytes(builder.build())


__all__ = ["GRANTS", "OPEN", "SEALED", "HostId", "Place", "World", "a_directory", "batch"]
