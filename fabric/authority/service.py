"""What the authority does with each request, in the order of effects. Knows no HTTP.

A good quote: ledger on disk, result published, host state published, rights on the
broker, answer. A notice: ledger on disk, published, rights taken away, answer. The
ledger decides between requests that race; whoever reads it last sees every notice.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fabric.attest.appraise import enrol
from fabric.attest.credential import make_credential
from fabric.attest.ek import check_ek
from fabric.attest.members import Notice, NoticeKind
from fabric.attest.messages import (
    ActivateRequest,
    AttestAnswer,
    AttestRequest,
    Challenge,
    ChallengeRequest,
    EnrolChallenge,
    EnrolRequest,
)
from fabric.attest.tally import VALUE_BYTES
from fabric.authority import listing
from fabric.authority.admin_messages import Scope, not_done
from fabric.authority.attest_machine import (
    SUSPENDING,
    Case,
    approved,
    check_approved_ek,
    enrolled_since,
    heads_of,
    judge,
    svid_end,
    tls_point,
)
from fabric.authority.callers import Caller, check_own
from fabric.authority.keeper import Keeper
from fabric.authority.ledger import LedgerThread
from fabric.authority.machine import Challenges, Enrolments, check_same, forbid, stands
from fabric.authority.pki import Ca, issue_svid
from fabric.authority.publisher import Publisher
from fabric.authority.refused import RefusedCount
from fabric.authority.signed import Charge
from fabric.authority.ticks import Ticks
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
)
from fabric.model.limits import ATTEST_INTERVAL_S_MIN, PUBLISH_S_MAX
from fabric.model.names import HostId
from fabric.policy.decide import approval_of
from fabric.policy.types import Policy
from fabric.ports import AuditLog, Clock

_log = logging.getLogger(__name__)
_FOLLOWED_MAX = 64
"""Hosts whose rights are taken at the same time; that their notices are kept waits for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service stands on.

    Attributes:
        policy: the policy in force.
        ca: issues SVIDs.
        lifetime_s: shortens the policy's lifetime of results, seconds.
        noticed: called with the kind of every notice given out.
    """

    policy: Callable[[], Policy]
    clock: Clock
    ledger: LedgerThread
    publisher: Publisher
    ticks: Ticks
    keeper: Keeper
    ca: Ca = field(repr=False)
    audit: AuditLog
    lifetime_s: int | None
    noticed: Callable[[str], None]


class Authority:
    """The operations. All raise FabricError; whatever is raised means refused."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._challenges = Challenges()
        self._enrolments = Enrolments()
        self._locks: dict[HostId, asyncio.Lock] = {}  # of enrolled hosts only
        self._following = asyncio.Semaphore(_FOLLOWED_MAX)
        self._issued: dict[HostId, float] = {}  # monotonic, of each host's last result
        self.refusals = RefusedCount(parts.audit)

    async def enrol(self, body: bytes, caller: Caller) -> bytes:
        """Check the TPM's certificate and ask for proof that it holds the AK."""
        request = EnrolRequest.decode(body)
        check_own(caller, request.host)
        now, policy = self._parts.clock.now(), self._parts.policy()
        known = await self._parts.ledger.do(lambda ledger: ledger.known(request.host))
        check_approved_ek(policy, request.host, request.ek_certificate, now)  # a hash; then a chain
        since = enrolled_since(known, request.ek_certificate)
        ek = check_ek(request.ek_certificate, policy.trust.ek_ca_pem, now, since=since)
        enrolment = enrol(request.host, ek, request.ak_public)
        try:
            check_same(known.enrolment, enrolment)
        except DeniedError as exc:
            self.refusals.refused("enrolment_conflict", caller.name, request.host, exc.reason)
            raise
        pending = self._enrolments.open(enrolment, caller.share, now)
        credential, secret = make_credential(ek.public, enrolment.ak_name, pending.secret)
        return EnrolChallenge(enrolment=pending.id, credential=credential, secret=secret).encode()

    async def activate(self, body: bytes, caller: Caller) -> None:
        """Keep the enrolment of a TPM that recovered the secret; raises also as Ticks.opened."""
        request = ActivateRequest.decode(body)
        now = self._parts.clock.now()
        enrolment = self._enrolments.take(request.enrolment, request.secret, now)
        check_own(caller, enrolment.host)
        await self._parts.ticks.opened()  # the ledger holds no time that nobody has confirmed
        now = self._parts.clock.now()
        await self._parts.ledger.do(lambda ledger: ledger.enrol(enrolment, now))
        self._audit(
            "enrolled",
            caller,
            host=str(enrolment.host),
            ek_sha256=enrolment.ek_sha256.hex(),
            ak_name=enrolment.ak_name.hex(),
        )

    async def challenge(self, body: bytes, caller: Caller) -> bytes:
        """A nonce for one quote over the PCRs of the host's approval."""
        request = ChallengeRequest.decode(body)
        check_own(caller, request.host)
        known = await self._parts.ledger.do(lambda ledger: ledger.known(request.host))
        now, policy = self._parts.clock.now(), self._parts.policy()
        approval = approved(policy, known, request.host, now)
        self._check_pace(request.host)  # before its tally moves on for nothing
        is_known = caller.host is not None
        challenge = self._challenges.open(request.host, caller.share, now, is_known=is_known)
        return Challenge(
            session=challenge.session,
            nonce=challenge.nonce,
            verifier=policy.trust.verifier_name,
            pcrs=approval.pcrs,
            expires_ms=int((challenge.expires - now).total_seconds() * 1000),
            tally=known.tally or b"",
            step=secrets.token_bytes(VALUE_BYTES),  # told to who asks, kept nowhere
        ).encode()

    async def attest(self, body: bytes, caller: Caller) -> bytes:
        """Judge a quote; an SVID and a result for a host that is right.

        Raises:
            UnavailableError: OVERLOADED, the host's last result is too young; GATEWAY_UNAVAILABLE.
            PeerError, DeniedError: refused.
        """
        request = AttestRequest.decode(body, partial(self._check_asked, caller))
        await self._parts.ticks.opened()  # a ledger that went back would see forks everywhere
        challenge = self._challenges.take(request.session, request.host, self._parts.clock.now())
        async with self._locks.setdefault(request.host, asyncio.Lock()):
            self._check_pace(request.host)
            known = await self._parts.ledger.do(lambda ledger: ledger.known(request.host))
            case = Case(
                request=request,
                challenge=challenge,
                known=known,
                policy=self._parts.policy(),
                now=self._parts.clock.now(),
                lifetime_s=self._parts.lifetime_s,
            )
            try:
                answer = await self._attest(case)
            except (PeerError, DeniedError) as exc:
                self.refusals.refused("attestation_refused", caller.name, request.host, exc.reason)
                if exc.reason in SUSPENDING:
                    await self._suspend_at_once(case, exc.reason)
                raise
        return answer.encode()

    async def _attest(self, case: Case) -> AttestAnswer:
        verdict = judge(case)
        result, trust_domain = verdict.result, case.policy.trust.trust_domain
        svid = issue_svid(
            self._parts.ca, result.host, trust_domain, tls_point(result), svid_end(result)
        )
        state = await self._parts.ledger.do(lambda ledger: ledger.attest(verdict, case.now))
        self._issued[result.host] = self._parts.clock.monotonic()
        data = await self._parts.publisher.attested(result, state, trust_domain)
        await self._parts.keeper.follow(result.host)
        # A notice that came meanwhile stands above the state; its host gets no certificate.
        known = await self._parts.ledger.do(lambda ledger: ledger.known(result.host))
        forbid(stands(known.notices, result.approval), result.host)
        self._parts.audit.write(
            "attested",
            {
                "host": str(result.host),
                "result": result.id.hex(),
                "approval": result.approval,
                "level": result.level,
                "expires": result.expires.isoformat(),
            },
        )
        return AttestAnswer(svid_pem=svid, result=data)

    def _check_asked(self, caller: Caller, session: bytes, host: HostId) -> None:
        """Whether `caller` may answer a challenge that this host was given."""
        check_own(caller, host)
        self._challenges.check(session, host, self._parts.clock.now())

    def _check_pace(self, host: HostId) -> None:
        """A host that attests all the time would push others' results out of every view."""
        issued = self._issued.get(host)
        if issued is not None and self._parts.clock.monotonic() - issued < ATTEST_INTERVAL_S_MIN:
            raise UnavailableError(
                Reason.OVERLOADED,
                f"last result of {host} is younger than {ATTEST_INTERVAL_S_MIN:g} s; ask later",
            )

    async def _suspend_at_once(self, case: Case, why: Reason) -> None:
        """Authentic evidence against a host does not wait for its old result to end."""
        host = case.request.host
        approval = approval_of(case.policy, host, case.now).number
        try:
            await self._give_notice(
                host,
                NoticeKind.SUSPENSION,
                approval=approval,
                why=why,
                heads=heads_of(case),
            )
        except UnavailableError as exc:
            # The notice is kept and goes out first; the refusal must be told all the same.
            _log.error("suspension of %s: %s", host, exc)

    async def decide(
        self, who: Scope, kind: NoticeKind, *, why: str, caller: Caller
    ) -> list[dict[str, str | int]]:
        """An administrator's suspension or revocation of hosts, each under its latest approval.

        Returns:
            An entry for each host: its notice's number, 0 where it stood already.

        Raises:
            DeniedError: NOT_ENROLLED, nobody knows such a host.
            UnavailableError: GATEWAY_UNAVAILABLE; all of it is kept, and goes out when a gateway
                answers. DATABASE_UNAVAILABLE; not all of it is kept.
        """
        hosts = await self._known_hosts(who)
        if not hosts:
            raise DeniedError(Reason.NOT_ENROLLED, f"no host of {who} is enrolled or approved")
        async with asyncio.TaskGroup() as group:
            deciding = [
                group.create_task(self._decide(host, kind, why=why, caller=caller))
                for host in hosts
            ]
        found = [task.result() for task in deciding]
        failures = [failure for _, failure in found if failure is not None]
        if failures:
            raise not_done(failures, kind, len(hosts))
        return [entry for entry, _ in found]

    async def _known_hosts(self, who: Scope) -> list[HostId]:
        """Hosts that are enrolled, approved, or were ever attested, by name."""
        enrolments = await self._parts.ledger.do(lambda ledger: ledger.enrolments())
        entries = await self._parts.ledger.do(lambda ledger: ledger.hosts())
        known = {entry.enrolment.host for entry in enrolments}
        known |= {entry.state.host for entry in entries} | {*self._parts.policy().approvals}
        return sorted(host for host in known if who.covers(host))

    async def _decide(
        self, host: HostId, kind: NoticeKind, *, why: str, caller: Caller
    ) -> tuple[dict[str, str | int], UnavailableError | None]:
        """One host's part of a decision; why it is not kept, or not published, is returned."""
        entry: dict[str, str | int] = {"host": str(host), "kind": kind.value}
        self._audit("decided", caller, host=str(host), kind=kind.value, why=why)
        is_final = kind is NoticeKind.REVOCATION
        reason = Reason.HOST_REVOKED if is_final else Reason.HOST_SUSPENDED
        try:
            known = await self._parts.ledger.do(lambda ledger: ledger.known(host))
            approval = self._parts.policy().approvals.get(host)
            number = max([known.approval_seen] + ([approval.number] if approval else []))
            given = await self._give_notice(host, kind, approval=number, why=reason)
            if not given:  # it stood already, perhaps unheard of: that is not done either
                last = max((notice.number for notice in known.notices), default=0)
                await self._parts.publisher.published(last)
        except UnavailableError as exc:
            return entry, exc
        return {**entry, "number": given, "approval": number}, None

    async def forget(self, host: HostId, *, why: str, caller: Caller) -> Mapping[str, str | int]:
        """Delete a host's enrolment, so that another TPM may enrol under its name."""
        self._audit("enrolment_forgotten", caller, host=str(host), why=why)
        if not await self._parts.ledger.do(lambda ledger: ledger.forget(host)):
            raise DeniedError(Reason.NOT_ENROLLED, f"host {host} is not enrolled")
        return {"host": str(host)}

    async def catch_up(self, after: int, charge: Charge) -> bytes:
        """The notices above number `after`, signed, and a tick; for whoever asks."""
        return await self._parts.ticks.catch_up(after, charge)

    async def enrolments(self) -> list[dict[str, str | int]]:
        """Every enrolment, for people."""
        entries = await self._parts.ledger.do(lambda ledger: ledger.enrolments())
        return [listing.enrolment(entry) for entry in entries]

    async def hosts(self) -> list[dict[str, str | int]]:
        """Every host, for people: a result counts once it is in the log, a notice once kept."""
        now = self._parts.clock.now()
        found = await self._parts.ledger.do(lambda ledger: ledger.shown(now))
        return [listing.host(*shown) for shown in listing.judged(found, self._parts.policy(), now)]

    async def _give_notice(
        self,
        host: HostId,
        kind: NoticeKind,
        *,
        approval: int,
        why: Reason,
        heads: Sequence[bytes] | None = None,
    ) -> int:
        """Keep a notice, publish it and take the host's rights; its number, 0 if it stood."""
        now = self._parts.clock.now()
        notice = await self._parts.ledger.do(
            lambda ledger: ledger.notice(
                host, kind, approval=approval, why=why, now=now, heads=heads
            )
        )
        if notice is None:
            return 0
        began = time.monotonic()
        self._parts.noticed(kind.value)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(host))
            published = group.create_task(self._published(notice))
        failure = published.result()
        self._parts.audit.write(
            "notice",
            {
                "host": str(host),
                "kind": kind.value,
                "notice": notice.number,
                "approval": approval,
                "why": why.value,
                "published": int(failure is None),
                "milliseconds": int((time.monotonic() - began) * 1000),
            },
        )
        if failure is not None:
            raise failure
        return notice.number

    async def _follow(self, host: HostId) -> None:
        """Take a host's rights; no longer than its notice waits, then the keeper's check does."""
        try:
            async with asyncio.timeout(PUBLISH_S_MAX), self._following:
                await self._parts.keeper.follow(host)
        except TimeoutError:
            self._parts.keeper.check_soon()

    async def _published(self, notice: Notice) -> FabricError | None:
        """Wait for publication; a failure is returned, so that it cancels nothing else."""
        try:
            await self._parts.publisher.published(notice.number)
        except UnavailableError as exc:
            return exc
        return None

    def _audit(self, event: str, caller: Caller, **fields: str) -> None:
        self._parts.audit.write(event, {"caller": caller.name, **fields})
