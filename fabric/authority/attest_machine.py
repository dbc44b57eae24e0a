"""Judge one attestation request: from everything that is known to a result, or an error. Pure.

All checks must pass; whatever is raised means refused, and the reasons in SUSPENDING
mean that the host must be suspended at once. What follows from a verdict, and in which
order, is for the service.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.attest.appraise import EVIDENCE, Appraisal, Counters, Enrolment, Question, appraise
from fabric.attest.binding import qualifying
from fabric.attest.ek import check_ek, has_ended
from fabric.attest.keys import Use
from fabric.attest.members import HostState, MemberState, Notice, NoticeKind
from fabric.attest.messages import AttestRequest
from fabric.attest.resident import check_resident
from fabric.attest.result import Result
from fabric.attest.tally import check_tally
from fabric.authority.machine import ID_BYTES, OpenChallenge, forbid, stands
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX, HEADS_SPARE, RESULT_LIFETIME_S_DEFAULT
from fabric.model.names import HostId
from fabric.policy.decide import approval_of, streams_of
from fabric.policy.types import Approval, Policy
from fabric.seal.hpke import check_recipient

_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)
SUSPENDING = frozenset({Reason.STATE_REFUSED, Reason.COUNTERS_WENT_BACK, Reason.FORK})
"""Only authentic evidence of this host's own TPM is refused with these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger holds of one host.

    Attributes:
        enrolment: None before it is enrolled.
        enrolled: when it was.
        counters: of the last quote accepted from this attestation key.
        tally: value of the last tally accepted from it; None before the first.
        approval_seen: highest approval number it was ever judged under, 0 for none.
        notices: every notice about it.
        last_number: number of the last notice about anyone, 0 for none.
    """

    enrolment: Enrolment | None
    counters: Counters | None
    tally: bytes | None
    approval_seen: int
    notices: Sequence[Notice]
    last_number: int
    enrolled: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request with everything it is judged by.

    Attributes:
        challenge: the one the request names, used up.
        lifetime_s: shortens the policy's lifetime of results, seconds.
    """

    request: AttestRequest
    challenge: OpenChallenge
    known: Known
    policy: Policy
    now: datetime
    lifetime_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A host that proved itself: its result, and what to remember of its evidence.

    Attributes:
        enrolment: by which it was judged.
    """

    enrolment: Enrolment
    result: Result
    counters: Counters
    tally: bytes


def enrolled(known: Known, host: HostId) -> Enrolment:
    """The host's enrolment; raises DeniedError NOT_ENROLLED."""
    if known.enrolment is None:
        raise DeniedError(Reason.NOT_ENROLLED, f"host {host} is not enrolled")
    return known.enrolment


def enrolled_since(known: Known, ek_certificate: bytes) -> datetime | None:
    """When the TPM with this certificate was enrolled as this host; None when it was not."""
    sha256 = hashlib.sha256(ek_certificate).digest()
    is_known = known.enrolment is not None and known.enrolment.ek_sha256 == sha256
    return known.enrolled if is_known else None


def check_approved_ek(policy: Policy, host: HostId, ek_certificate: bytes, now: datetime) -> None:
    """Only the TPM that the host's approval names may enrol; raises DeniedError.

    Args:
        ek_certificate: DER that nobody has checked: whether it is a TPM's comes after.
    """
    sha256 = hashlib.sha256(ek_certificate).digest()
    if approval_of(policy, host, now).ek_sha256 != sha256:
        raise DeniedError(
            Reason.NOT_APPROVED,
            f"approval names another TPM; its ek_sha256 must be {sha256.hex()}",
        )


def approved(policy: Policy, known: Known, host: HostId, now: datetime) -> Approval:
    """The approval under which an enrolled host may attest now.

    Raises:
        DeniedError: NOT_ENROLLED, NOT_APPROVED (with the remedy), APPROVAL_EXPIRED,
            POLICY_EXPIRED, EVIDENCE_REFUSED.
    """
    enrolment = enrolled(known, host)
    approval = approval_of(policy, host, now)
    _check_maker(policy, enrolment, now, since=known.enrolled)
    if approval.ek_sha256 != enrolment.ek_sha256:
        raise DeniedError(Reason.NOT_APPROVED, "approval names another TPM than the enrolled one")
    if approval.ak_name is None:
        raise DeniedError(
            Reason.NOT_APPROVED,
            f"approval lacks the attestation key; add ak_name {enrolment.ak_name.hex()}"
            f" to approvals/{host}.yaml",
        )
    if approval.ak_name != enrolment.ak_name:
        raise DeniedError(
            Reason.NOT_APPROVED,
            f"approval names another attestation key than the enrolled {enrolment.ak_name.hex()}",
        )
    if approval.number < known.approval_seen:
        # An old approval put back would undo a later decision about this host.
        raise DeniedError(
            Reason.NOT_APPROVED,
            f"approval number {approval.number} is below {known.approval_seen}, used before",
        )
    return approval


def _check_maker(
    policy: Policy, enrolment: Enrolment, now: datetime, *, since: datetime | None
) -> None:
    """The TPM's maker must be one that the policy trusts now, not only when it enrolled.

    Args:
        since: when the host was enrolled; None when that is not known.
    """
    if not enrolment.ek_certificate:
        # The agent answers by enrolling again: same keys, and counters and tally stay.
        raise DeniedError(
            Reason.NOT_ENROLLED,
            "enrolment is from before the endorsement certificate was kept; enrol again",
        )
    try:
        check_ek(enrolment.ek_certificate, policy.trust.ek_ca_pem, now, since=since)
    except DeniedError as exc:
        raise DeniedError(exc.reason, _why_no_maker(enrolment, now, since=since)) from exc


_IN_THE_FILE = "into the file that policy.yaml names as trust.ek_ca"
_ELSE = "or give the host another TPM"


def _why_no_maker(enrolment: Enrolment, now: datetime, *, since: datetime | None) -> str:
    """Cause and remedy of a chain that holds neither now nor at the enrolment."""
    if since is None or not has_ended(enrolment.ek_certificate, now):
        return (
            "policy does not trust the maker of this host's TPM any more; put its CA back"
            f" {_IN_THE_FILE}, {_ELSE}"
        )
    # The maker may have issued its CA anew: that one was not there when the host enrolled.
    return (
        "endorsement certificate of this host's TPM has ended, and policy has no certificate of"
        f" its maker's CA that was valid on {since:%Y-%m-%d}, when the host enrolled;"
        f" put that one back {_IN_THE_FILE}, beside a newer one, {_ELSE}"
    )


def judge(case: Case) -> Verdict:
    """Decide about a request whose own signatures hold and whose challenge is used up.

    Raises:
        PeerError, DeniedError: refused; those in SUSPENDING call for a suspension.
    """
    request, challenge, policy = case.request, case.challenge, case.policy
    approval = approved(policy, case.known, request.host, case.now)
    forbid(stands(case.known.notices, approval.number), request.host)
    enrolment = enrolled(case.known, request.host)
    bound = qualifying(
        challenge.nonce,
        challenge.session,
        verifier=policy.trust.verifier_name,
        spiffe=request.host.spiffe(policy.trust.trust_domain),
        keys=request.keys,
    )
    check_resident(request.resident, request.keys, enrolment, qualifying=bound)
    # Before the counters, which see a copy too, but only once it has been started anew.
    tally = check_tally(request.tally, enrolment, qualifying=bound, last=case.known.tally)
    question = Question(
        enrolment=enrolment,
        approval=approval,
        qualifying=bound,
        counters=case.known.counters,
        event_log=request.event_log,
    )
    appraisal = appraise(request.quote_attest, request.quote_signature, question=question)
    # Last, of keys that a quote has bound: nobody else's fill what is remembered of keys.
    for key in request.keys:
        if key.use is Use.HPKE:
            check_recipient(key)
    result = _result(case, approval, appraisal)
    return Verdict(enrolment=enrolment, result=result, counters=appraisal.counters, tally=tally)


def heads_of(case: Case) -> tuple[bytes, ...]:
    """Those heads of a request that its result, or a notice about its host, carries.

    No quote binds them, and every view keeps them: a host has no more than the streams that the
    policy lets it fill, and some that a policy may have taken away lately. An honest one tells
    those last, so what is beyond is left out and nothing refused.
    """
    streams = streams_of(case.policy, case.request.host)
    return case.request.heads[: streams + HEADS_SPARE if streams else 0]


def attested_state(result: Result, now: datetime) -> HostState:
    """The host record that makes a result the current one."""
    return HostState(
        host=result.host,
        state=MemberState.ATTESTED,
        result_id=result.id,
        approval=result.approval,
        number=result.revocation_number,
        since=now,
        expires=result.expires,
    )


def noticed_state(notice: Notice) -> HostState:
    """The host record that goes with a suspension or revocation."""
    is_revoked = notice.kind == NoticeKind.REVOCATION
    return HostState(
        host=notice.host,
        state=MemberState.REVOKED if is_revoked else MemberState.SUSPENDED,
        result_id=b"",
        approval=notice.approval,
        number=notice.number,
        since=notice.at,
        expires=notice.at,
    )


def svid_end(result: Result) -> datetime:
    """When the certificate ends: with the result, whatever the reader's clock within the skew."""
    return result.expires + _SKEW


def tls_point(result: Result) -> bytes:
    """The P-256 point that the SVID certifies."""
    return next(key.data for key in result.keys if key.use is Use.TLS)


def _result(case: Case, approval: Approval, appraisal: Appraisal) -> Result:
    issued, expires = _times(case, approval)
    return Result(
        id=secrets.token_bytes(ID_BYTES),
        host=case.request.host,
        approval=approval.number,
        level=min(approval.security_level, appraisal.level),
        clearance=approval.clearance,
        evidence=EVIDENCE,
        keys=case.request.keys,
        policy_version=case.policy.version,
        revocation_number=case.known.last_number,
        heads=heads_of(case),
        quote_digest=hashlib.sha256(case.request.quote_attest).digest(),
        nonce=case.challenge.nonce,
        issued=issued,
        expires=expires,
    )


def _times(case: Case, approval: Approval) -> tuple[datetime, datetime]:
    """Whole seconds, because the result has no finer ones; never beyond the approval."""
    issued = case.now.replace(microsecond=0)
    lifetime_s = _lifetime_s(case.policy, approval)
    if case.lifetime_s is not None:
        lifetime_s = min(lifetime_s, case.lifetime_s)
    end = min(issued + timedelta(seconds=lifetime_s), approval.not_after.replace(microsecond=0))
    if end <= issued:
        raise DeniedError(Reason.APPROVAL_EXPIRED, "approval of the host ends this second")
    return issued, end


def _lifetime_s(policy: Policy, approval: Approval) -> int:
    """The shortest lifetime among the levels that the host may hold."""
    try:
        rank = policy.levels.rank(approval.clearance.level)
    except Malformed as exc:
        raise DeniedError(Reason.NOT_APPROVED, "approval's clearance is no level") from exc
    rules = [policy.rules[name] for name in policy.levels.names[: rank + 1] if name in policy.rules]
    return min((rule.result_lifetime_s for rule in rules), default=RESULT_LIFETIME_S_DEFAULT)
