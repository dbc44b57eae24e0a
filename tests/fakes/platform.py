"""A whole platform in memory for tests of agents: verifier, log, policy, and hosts on it.

Nothing is attested here: results are written by the verifier's pen. What seals,
opens, keeps state and judges is the real thing.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fabric.admit.door import admit_control, admit_open, admit_sealed, is_control, is_sealed
from fabric.admit.view import Place, View
from fabric.agent.host import Host
from fabric.agent.identity import Identity
from fabric.agent.keyring import KeySet, plan_for
from fabric.agent.supervisor import Board
from fabric.agent.telemetry import Telemetry
from fabric.agent.view import WorldView
from fabric.attest import fields
from fabric.attest.keys import PublicKey
from fabric.attest.members import (
    Members,
    heartbeat_record,
    host_record,
    notice_record,
    result_record,
)
from fabric.attest.notices import HostState, MemberState, Notice, NoticeKind
from fabric.attest.result import Result
from fabric.attest.tally import START, extended
from fabric.metrics import AgentMetrics
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.label import Label, Levels
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import AUTHORITY, MEMBERS, RESULTS, HostId, Origin, Topic
from fabric.model.schema import RowSchema
from fabric.policy.types import Approval, Dataset, LevelRule, Policy, SuiteRule
from fabric.ports import KeyStore, Quote, ResidentKey
from fabric.repository.audited import PolicyAudit
from fabric.seal import envelope
from fabric.store.file_keys import FileKeys
from tests.fakes.approvals import an_approval
from tests.fakes.log import MemoryLog
from tests.fakes.tpm import FakeTpm, FakeTpmCa
from tests.fakes.verifier import Verifier, a_beat

NOTES = RowSchema.parse((Path(__file__).parents[2] / "schemas/notes.avsc").read_text(), ("id",))
SECRET = Topic.parse("secret.G01.notes")
OPEN = Topic.parse("public.G01.notes")
A = HostId.parse("G01/registry/a1")
B = HostId.parse("G02/health/b1")
C = HostId.parse("G03/statistics/c1")
ORIGIN = Origin.parse("G01/registry/main")
LABEL = Label.parse("secret+personal-data")


_MAKER = FakeTpmCa()


class ManualClock:
    """Wall time that tests may move; monotonic time is real enough."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self.now().timestamp()

    def latest(self) -> datetime:
        return self.now() + timedelta(seconds=CLOCK_SKEW_S_MAX)

    def observe(self, signed: datetime) -> None:
        """Signed times are the tests' own."""


class QuietAudit:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, str | int]]] = []

    def write(self, event: str, fields: Mapping[str, str | int]) -> None:
        self.events.append((event, fields))


class DrawerTpm:
    """A TPM that seals by keeping a copy; `state` is what PCRs would measure."""

    def __init__(self) -> None:
        self.state = b"approved"
        self.tally_value = START
        self._sealed: dict[bytes, tuple[bytes, bytes]] = {}
        self._keys = FakeTpm(_MAKER, elliptic=True)

    def seal(self, data: bytes, pcrs: Sequence[int], digest: bytes | None = None) -> bytes:
        handle = secrets.token_bytes(16)
        self._sealed[handle] = (data, digest or self.pcr_digest(pcrs))
        return handle

    def unseal(self, blob: bytes) -> bytes:
        from fabric.model.errors import DeniedError

        data, state = self._sealed.get(blob, (b"", b""))
        if state != self.pcr_digest(()):
            raise DeniedError(Reason.SEALED_STATE_LOST, "another state")
        return data

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        return self.state.ljust(32, b"\0")

    def ek_certificate(self) -> bytes:
        return b"certificate"

    def ak_public(self) -> bytes:
        return b"key"

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        return credential + secret

    def quote(self, pcrs: Sequence[int], qualifying: bytes) -> Quote:
        return Quote(attest=qualifying, signature=b"signed")

    def tally(self) -> bytes:
        return self.tally_value

    def extend_tally(self, step: bytes) -> None:
        self.tally_value = extended(self.tally_value, step)

    def certify_tally(self, qualifying: bytes) -> Quote:
        return Quote(attest=self.tally_value, signature=b"signed")

    def make_key(self) -> ResidentKey:
        return self._keys.make_key()

    def sign_with(self, key: ResidentKey, digest: bytes) -> bytes:
        return self._keys.sign_with(key, digest)

    def certify_key(self, key: ResidentKey, qualifying: bytes) -> Quote:
        return Quote(attest=qualifying, signature=b"signed")


class IdentifiedLog(MemoryLog):
    """A log with a cluster and topic ids that tests may change."""

    cluster = "cluster"

    async def identity(self, topic: str) -> tuple[str, str]:
        return self.cluster, f"id of {topic}"


def _rule(name: str, *, sealed: bool) -> LevelRule:
    return LevelRule(
        name=name,
        sealed=sealed,
        suites=("classic", "hybrid") if sealed else (),
        host_level_min=4 if sealed else 1,
        evidence=frozenset({"tpm2"}),
        result_lifetime_s=600,
        delivery_s=300,
        coding="zstd",
        padding=sealed,
        citation="a test",
    )


def dataset(topic: Topic, **changes: object) -> Dataset:
    """A dataset of notes that A sends and B may have."""
    sealed = topic.level == "secret"
    found = Dataset(
        topic=topic,
        label=LABEL if sealed else Label.parse("public"),
        schema=NOTES,
        suite="classic" if sealed else "",
        partitions=1,
        salt=b"s" * 32,
        retention_s=7 * 24 * 3600,
        producers=(ORIGIN,),
        consumers=("G02/health",),
        history="retained",
        on_unappliable="quarantine",
        schema_id=5,
        tags={},
        legal_basis="a test",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


class Platform:
    """Verifier, policy and log; `judge` admits appends as a gateway would."""

    def __init__(self, *datasets: Dataset) -> None:
        self.verifier = Verifier()
        self.clock = ManualClock()
        self.log = IdentifiedLog()
        self.log.now = self.clock.now
        self.members = Members(self.verifier.trust)
        self.notices = 0
        self.given: list[Notice] = []
        self.is_ticking = True
        self._approvals: dict[HostId, Approval] = {}
        self.policy = Policy(
            version=7,
            expires=datetime.now(UTC) + timedelta(days=30),
            levels=Levels(("public", "internal", "confidential", "secret", "top-secret")),
            rules={"public": _rule("public", sealed=False), "secret": _rule("secret", sealed=True)},
            suites={name: SuiteRule(id=name, status="approved") for name in ("classic", "hybrid")},
            agencies={"G01": "Registry", "G02": "Health", "G03": "Statistics"},
            approvals=self._approvals,
            datasets={str(d.topic): d for d in (datasets or (dataset(SECRET), dataset(OPEN)))},
            trust=self.verifier.trust,
        )

    def admit(self, identity: HostId) -> None:
        """Judge every append from now on, as if `identity` had sent it."""

        def judge(
            topic: str, partition: int, key: bytes | None, value: bytes
        ) -> FabricError | None:
            view, now = View(self.policy, self.members), self.clock.now()
            place = Place(topic, partition)
            try:
                if is_control(topic):
                    admit_control(key, value, topic, view, identity=str(identity), now=now)
                elif is_sealed(self.policy, topic):
                    admit_sealed(value, place, view, identity=identity, now=now)
                else:
                    admit_open(value, place, view, identity=identity, now=now)
            except FabricError as exc:
                from fabric.kafka.producer import refusal

                return refusal(exc.reason, str(exc.args[0]))
            return None

        self.log.judge = judge

    def admit_single_changes(self) -> None:
        """Refuse blocks of several changes as if they were too large for a record."""
        admits = self.log.judge
        assert admits is not None

        def judge(
            topic: str, partition: int, key: bytes | None, value: bytes
        ) -> FabricError | None:
            if topic == str(SECRET) and envelope.parse(value).header.count > 1:
                return DeniedError(Reason.TOO_LARGE, "record is too large")
            return admits(topic, partition, key, value)

        self.log.judge = judge

    def _say(self, topic: str, record: tuple[bytes, bytes]) -> None:
        self.members.feed(topic, *record)
        self.log.put(topic, 0, *record)

    def approve(self, host: HostId) -> None:
        """Approve a host in every policy that keeps this platform's own approvals."""
        self._approvals.setdefault(host, an_approval(host))

    def attest(
        self,
        host: HostId,
        keys: KeySet,
        *,
        life_s: float = 600,
        approval: int = 1,
        clearance: Label = LABEL,
        heads: Sequence[bytes] = (),
        bound: Sequence[PublicKey] = (),
    ) -> Result:
        """Publish a new result of a host; `bound` replaces the keys that it names.

        The policy approves whoever is attested, unless a test has given it other approvals.
        """
        self.approve(host)
        issued = self.clock.now().replace(microsecond=0)
        result = Result(
            id=secrets.token_bytes(16),
            host=host,
            approval=approval,
            level=4,
            clearance=clearance,
            evidence="tpm2",
            keys=tuple(bound) or keys.bound,
            policy_version=self.policy.version,
            revocation_number=self.notices,
            heads=tuple(heads),
            quote_digest=bytes(32),
            nonce=bytes(32),
            issued=issued,
            expires=issued + timedelta(seconds=life_s),
        )
        domain, signers = self.verifier.trust.trust_domain, self.verifier.signers
        self._say(RESULTS, result_record(result, domain, signers))
        state = HostState(
            host=host,
            state=MemberState.ATTESTED,
            result_id=result.id,
            approval=approval,
            number=self.notices,
            since=self.clock.now(),
            expires=result.expires,
        )
        self._say(MEMBERS, host_record(state, signers))
        return result

    def tick(self) -> None:
        """Publish a heartbeat of now."""
        beat = a_beat(self.notices, self.clock.now(), self.given)
        self._say(MEMBERS, heartbeat_record(beat, self.verifier.signers))

    def suspend(self, host: HostId, *, approval: int = 1, heads: Sequence[bytes] = ()) -> None:
        """Publish a suspension."""
        self.notices += 1
        notice = Notice(
            number=self.notices,
            host=host,
            kind=NoticeKind.SUSPENSION,
            approval=approval,
            why=Reason.STATE_REFUSED,
            at=fields.instant(fields.milliseconds(self.clock.now()), "time"),
            heads=tuple(heads),
        )
        self.given.append(notice)
        self._say(MEMBERS, notice_record(notice, self.verifier.signers))


class TestHost:
    """A host of the platform, with its state file in a folder; `open` it."""

    __test__ = False

    def __init__(self, platform: Platform, ident: HostId, folder: Path) -> None:
        self.platform = platform
        self.id = ident
        self.folder = folder
        self.tpm = DrawerTpm()
        self.audit = QuietAudit()
        self.board = Board()
        self.plan = plan_for(("classic", "hybrid"))
        self.stores: tuple[KeyStore, ...] = (FileKeys(),)

    def open(self) -> "TestHost":
        """Open (or make) the state file and the view; again after a crash, too."""
        identity = Identity(self.folder, self.tpm, ca=self.folder / "ca.pem", stores=self.stores)
        if not identity.open_existing():
            identity.create((0, 7))
        self.keys = identity.keys(self.platform.clock.now(), self.plan)
        self.metrics = AgentMetrics([*self.platform.policy.rules.values()])
        told = PolicyAudit(self.audit, self.platform.clock)
        telemetry = Telemetry(self.board, self.metrics, self.audit, policy=told)
        view = WorldView(
            self.id,
            self.platform.policy,
            rejected=telemetry.control_rejected,
            latest=self.platform.clock.latest,
        )
        self.host = Host(
            identity=identity,
            view=view,
            log=self.platform.log,
            clock=self.platform.clock,
            telemetry=telemetry,
        )
        return self

    def attest(self, **changes: object) -> Result:
        """Publish a result for this host's keys."""
        return self.platform.attest(self.id, self.keys, **changes)  # type: ignore[arg-type]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of this host's samples of `name` that carry these labels."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def shows(self, name: str) -> bool:
        """Whether this host has any sample of `name`."""
        return any(
            sample.name == name
            for family in self.metrics.registry.collect()
            for sample in family.samples
        )


__all__ = ["AUTHORITY", "Platform", "TestHost"]
