"""An authority without network: real service, ledger, publisher and keeper on fakes around it.

`Machine` is a host with a software TPM that enrols and attests as an agent would.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from fabric.attest import evidence
from fabric.attest.binding import qualifying
from fabric.attest.keys import Alg
from fabric.attest.members import Members
from fabric.attest.messages import (
    ActivateRequest,
    AttestAnswer,
    AttestRequest,
    Challenge,
    ChallengeRequest,
    EnrolChallenge,
    EnrolRequest,
)
from fabric.attest.resident import ResidentReport
from fabric.attest.tally import TallyReport, is_heard
from fabric.authority.callers import Caller
from fabric.authority.keeper import Keeper
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.pki import make_ca
from fabric.authority.publisher import Publisher
from fabric.authority.service import Authority, Parts
from fabric.authority.ticks import Ticks
from fabric.demo.swtpm import TpmCa
from fabric.model.errors import PeerError
from fabric.model.limits import ATTEST_INTERVAL_S_MIN
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.policy.load import load
from fabric.policy.types import Policy
from fabric.ports import Quote, Tpm
from fabric.store.clock import SigningClock
from fabric.store.tpm_keys import TpmKeys
from tests.fakes import policy_files
from tests.fakes.admin import MemoryAdmin
from tests.fakes.clock import ManualClock
from tests.fakes.log import MemoryLog
from tests.fakes.tpm import FakeTpm, FakeTpmCa
from tests.fakes.verifier import TRUST_DOMAIN, HostKeys, Verifier

SENDER = HostId.parse(policy_files.SENDER)
READER = HostId.parse(policy_files.READER)
PCRS = (0, 1, 7)
CALLER = Caller(name="127.0.0.1")
ADMIN = Caller(name="CN=admin,O=fabric-platform", is_admin=True, has_certificate=True)


class Machine:
    """A host that talks to the authority through callables taking and giving bytes."""

    def __init__(self, host: HostId, tpm: Tpm | None = None) -> None:
        self.host = host
        self.tpm: Any = tpm or FakeTpm()
        self.keys = HostKeys()
        self.event_log = b""
        self._step = b""
        self._reference = b""

    def sign_in_tpm(self) -> None:
        """Let a key of the TPM sign in the place of Ed25519, as suite hybrid-tpm wants it."""
        signer, self._reference = TpmKeys(self.tpm).make(Alg.ESP256)
        self.keys.sign = (signer, self.keys.sign[1])

    def resident_report(self, challenge: Challenge) -> ResidentReport | None:
        """Proof of that key, if there is one."""
        if not self._reference:
            return None
        return TpmKeys(self.tpm).certify(self._reference, self.extra(challenge))

    @property
    def ak_name(self) -> bytes:
        """TPM name of the attestation key."""
        return evidence.parse_ak(self.tpm.ak_public()).name

    def approval(self, **changes: object) -> dict[str, Any]:
        """The approval document that fits this machine now."""
        now = datetime.now(UTC)
        return {
            "number": 1,
            "ek_sha256": sha256(self.tpm.ek_certificate()).hexdigest(),
            "ak_name": self.ak_name.hex(),
            "security_level": 4,
            "clearance": "secret+personal-data",
            "pcrs": list(PCRS),
            "digests": [self.tpm.pcr_digest(PCRS).hex()],
            "not_before": (now - timedelta(hours=1)).isoformat(),
            "not_after": (now + timedelta(days=1)).isoformat(),
            **changes,
        }

    def enrol_request(self) -> bytes:
        """Body of /enrol."""
        return EnrolRequest(
            host=self.host,
            ek_certificate=self.tpm.ek_certificate(),
            ak_public=self.tpm.ak_public(),
        ).encode()

    def activate_request(self, answer: bytes) -> bytes:
        """Body of /enrol/activate."""
        challenge = EnrolChallenge.decode(answer)
        secret = self.tpm.activate(challenge.credential, challenge.secret)
        return ActivateRequest(enrolment=challenge.enrolment, secret=secret).encode()

    def challenge_request(self) -> bytes:
        """Body of /challenge."""
        return ChallengeRequest(host=self.host).encode()

    def extra(self, challenge: Challenge) -> bytes:
        """What the quote must be over."""
        return qualifying(
            challenge.nonce,
            challenge.session,
            verifier=challenge.verifier,
            spiffe=self.host.spiffe(TRUST_DOMAIN),
            keys=self.keys.public,
        )

    def tally_report(self, challenge: Challenge) -> TallyReport:
        """The tally, extended by the challenge's step if need be, and certified."""
        if is_heard(challenge.tally, self.tpm.tally()):
            self._step = challenge.step
            self.tpm.extend_tally(self._step)
        quote = self.tpm.certify_tally(self.extra(challenge))
        step = self._step or challenge.step
        return TallyReport(attest=quote.attest, signature=quote.signature, step=step)

    def attest_request(
        self, answer: bytes, quote: Quote | None = None, tally: TallyReport | None = None
    ) -> bytes:
        """Body of /attest."""
        challenge = Challenge.decode(answer)
        tally = tally or self.tally_report(challenge)
        quote = quote or self.tpm.quote(challenge.pcrs, self.extra(challenge))
        return AttestRequest(
            session=challenge.session,
            host=self.host,
            quote_attest=quote.attest,
            quote_signature=quote.signature,
            keys=self.keys.public,
            heads=(),
            tally=tally,
            resident=self.resident_report(challenge),
            event_log=self.event_log,
        ).encode(self.keys.signers)


class AuthoritySite:
    """The authority with everything around it.

    Attributes:
        documents: of the policy; call `publish` after a change.
        machines: by host.
        brokers_behind: how far the brokers' clock is behind the authority's.
        signing: the clock of what is signed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.verifier = Verifier()
        self.clock = ManualClock(datetime.now(UTC))
        self.log = MemoryLog()
        self.log.now = lambda: self.clock.now() - self.brokers_behind
        self.brokers_behind = timedelta(0)
        self.signing = SigningClock(wall=self.clock.now, monotonic=self.clock.monotonic)
        self.admin = MemoryAdmin()
        self.maker: FakeTpmCa | TpmCa = FakeTpmCa()
        self.ca = make_ca("fabric test verifier")
        self.audit = MemoryAudit()
        self.noticed: list[str] = []
        self.machines = {
            host: Machine(host, FakeTpm(self.maker, elliptic=True)) for host in (SENDER, READER)
        }
        self.documents = policy_files.documents()
        self.version = policy_files.VERSION
        self.documents["policy.yaml"]["trust"]["verifier"]["keys"] = [
            {"alg": int(alg), "public": public.hex()}
            for alg, public in self.verifier.trust.verifier_keys
        ]
        for machine in self.machines.values():
            self.approve(machine)
        self.policy: Policy = self.publish()
        self.ledger = LedgerThread(Ledger(folder / "ledger.db"))
        self.fault = None
        self.publisher = self._publisher()
        self.keeper = Keeper(
            self.admin,
            self.ledger,
            lambda: self.policy,
            now=self.clock.now,
            replication_factor=1,
        )
        self.service = Authority(
            Parts(
                policy=lambda: self.policy,
                clock=self.clock,
                ledger=self.ledger,
                publisher=self.publisher,
                ticks=self.ticks,
                keeper=self.keeper,
                ca=self.ca,
                audit=self.audit,
                lifetime_s=None,
                noticed=self.noticed.append,
            )
        )

    def _publisher(self) -> Publisher:
        signers = self.verifier.signers
        self.ticks = Ticks(self.ledger, signers, now=self.signing.now, interval_s=0.05)
        return Publisher(
            self.log, self.ledger, signers, ticks=self.ticks, clock=self.signing, interval_s=0.05
        )

    def adopt(self, machine: Machine, maker: FakeTpmCa | TpmCa) -> None:
        """Take a machine with a TPM of another manufacturer, and trust that one alone."""
        self.maker = maker
        self.machines[machine.host] = machine
        self.approve(machine)
        self.publish()

    def approve(self, machine: Machine, **changes: object) -> None:
        """Write a machine's approval; call `publish`."""
        self.documents[f"approvals/{machine.host}.yaml"] = machine.approval(**changes)

    def publish(self) -> Policy:
        """Put the documents in force under the next version."""
        self.version += 1
        files = policy_files.files(self.documents)
        files["trust/ek-ca.pem"] = self.maker.pem
        self.policy = load(files, version=self.version, expires=policy_files.EXPIRES)
        return self.policy

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["AuthoritySite"]:
        """Publisher and keeper at work."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.keeper.run()),
                group.create_task(self.publisher.run(self.policy.trust)),
            ]
            await self.keeper.is_made.wait()
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def enrol(self, machine: Machine) -> None:
        """Enrol a machine."""
        answer = await self.service.enrol(machine.enrol_request(), CALLER)
        await self.service.activate(machine.activate_request(answer), CALLER)

    async def challenge(self, machine: Machine) -> bytes:
        """A challenge for a machine, as soon after its last result as it may have one."""
        self.clock.advance(ATTEST_INTERVAL_S_MIN)
        return await self.service.challenge(machine.challenge_request(), CALLER)

    async def attest(self, machine: Machine) -> AttestAnswer:
        """One whole attestation."""
        body = machine.attest_request(await self.challenge(machine))
        return AttestAnswer.decode(await self.service.attest(body, CALLER))

    def members(self) -> Members:
        """What a reader of the log sees now."""
        members = Members(self.policy.trust)
        for topic in (RESULTS, MEMBERS):
            for record in self.log.records.get((topic, 0), []):
                with contextlib.suppress(PeerError):
                    members.feed(topic, record.key or b"", record.value or b"")
        return members

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()


class MemoryAudit:
    """ports.AuditLog as a list."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, str | int]]] = []

    def write(self, event: str, fields: Any) -> None:
        """Remember one event; FileAudit writes these fields itself."""
        assert not {"at", "event", "number", "previous"} & set(fields)
        self.events.append((event, dict(fields)))

    def names(self) -> list[str]:
        """Events, in order."""
        return [event for event, _ in self.events]


async def until(condition: Callable[[], bool], *, wait_s: float = 60.0) -> None:
    """Wait until a condition holds, however busy the machine is; raises TimeoutError."""
    async with asyncio.timeout(wait_s):
        while not condition():
            await asyncio.sleep(0.01)


def free(_count: int) -> None:
    """Charges whoever asks for notices nothing."""
