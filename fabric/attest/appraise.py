"""Appraise one quote: every check of design section 6, in its order; all must pass.

Pure: bytes and a question in, an appraisal or an error out. Whatever is raised
means refused. Exactly one error says that an authentic quote shows a wrong
state: STATE_REFUSED. The caller suspends the host for that one at once.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fabric.attest import event_log, evidence
from fabric.attest.ek import EndorsementKey, qualified_name
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import HostId
from fabric.policy.types import Approval

EVIDENCE = "tpm2"
"""The evidence kind that this module appraises."""
_EVIDENCED_LEVEL: Mapping[str, int] = {EVIDENCE: 5}
"""Highest host level that each kind of evidence can show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What enrolment proved of a host: this AK lives in this EK's TPM. Never changed.

    Attributes:
        ek_sha256: SHA-256 of the endorsement certificate's DER.
        ek_name: TPM name of the endorsement key.
        ak_public: marshalled TPM2B_PUBLIC of the attestation key.
        ak_name: its TPM name, which activation proved.
        ek_certificate: that DER; empty in an enrolment from before it was kept. What it is
            follows from `ek_sha256`, so it makes no other enrolment.
    """

    host: HostId
    ek_sha256: bytes
    ek_name: bytes
    ak_public: bytes
    ak_name: bytes
    ek_certificate: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Time as a TPM counts it.

    Attributes:
        clock: milliseconds it has been on.
        resets: resets and power cycles.
        restarts: resumes since the last reset.
        safe: the clock is certainly above every value it showed before.
    """

    clock: int
    resets: int
    restarts: int
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a quote has to answer.

    Attributes:
        approval: of the host, valid now.
        qualifying: what `binding.qualifying` gives for the challenge and the request.
        counters: of the last quote that was accepted from this AK; None before the first.
        event_log: the host's account of its boot, unproved; empty when it gave none.
    """

    enrolment: Enrolment
    approval: Approval
    qualifying: bytes
    counters: Counters | None
    event_log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What a good quote shows.

    Attributes:
        level: effective host level: the lower of approved and evidenced, 1..5.
        counters: store them as the AK's new high-water mark.
        pcr_digest: SHA-256 over the selected PCRs.
    """

    level: int
    counters: Counters
    pcr_digest: bytes


def enrol(host: HostId, ek: EndorsementKey, ak_public: bytes) -> Enrolment:
    """What may be enrolled once the AK has been activated under this EK.

    Raises:
        Malformed: the AK does not parse.
        DeniedError: EVIDENCE_REFUSED, it is no restricted signing key of its TPM.
    """
    ak = evidence.parse_ak(ak_public)
    _check_attributes(ak)
    return Enrolment(
        host=host,
        ek_sha256=ek.sha256,
        ek_name=ek.name,
        ak_public=ak_public,
        ak_name=ak.name,
        ek_certificate=ek.certificate,
    )


def appraise(quote_attest: bytes, quote_signature: bytes, *, question: Question) -> Appraisal:
    """Check a quote against everything that is asked of it.

    Args:
        quote_attest: marshalled TPMS_ATTEST.
        quote_signature: marshalled TPMT_SIGNATURE.

    Raises:
        PeerError: MALFORMED; BAD_SIGNATURE; BINDING_MISMATCH, the quote answers another
            challenge or binds other keys; EVIDENCE_REFUSED, it is not the quote asked for.
        DeniedError: NOT_ENROLLED, EVIDENCE_REFUSED, COUNTERS_WENT_BACK, NOT_APPROVED;
            STATE_REFUSED for an authentic quote of a state that is not approved.
    """
    enrolment, approval = question.enrolment, question.approval
    attest = evidence.parse_attest(quote_attest)
    signature = evidence.parse_signature(quote_signature)
    check_signature(check_ak(enrolment), signature, quote_attest)
    if (attest.magic, attest.type) != (evidence.MAGIC, evidence.TYPE_QUOTE):
        raise PeerError(Reason.EVIDENCE_REFUSED, "signed structure is not a TPM's quote")
    if not hmac.compare_digest(attest.extra, question.qualifying):
        raise PeerError(Reason.BINDING_MISMATCH, "quote answers another challenge or other keys")
    _check_selection(attest, approval)
    check_state(attest.pcr_digest, approval, question.event_log)
    if attest.signer != qualified_name(enrolment.ek_name, enrolment.ak_name):
        raise PeerError(
            Reason.EVIDENCE_REFUSED, "quote's signer is not the endorsement key's child"
        )
    counters = Counters(
        clock=attest.clock, resets=attest.resets, restarts=attest.restarts, safe=attest.safe
    )
    if question.counters is not None:
        check_counters(counters, question.counters)
    _check_approval(enrolment, approval)
    level = min(approval.security_level, _EVIDENCED_LEVEL[EVIDENCE])
    return Appraisal(level=level, counters=counters, pcr_digest=attest.pcr_digest)


def check_ak(enrolment: Enrolment) -> evidence.AkPublic:
    """The key that activation proved, with its attributes; raises DeniedError, Malformed."""
    ak = evidence.parse_ak(enrolment.ak_public)
    if not hmac.compare_digest(ak.name, enrolment.ak_name):
        raise DeniedError(Reason.NOT_ENROLLED, "attestation key is not the one activated")
    _check_attributes(ak)
    return ak


def check_signature(ak: evidence.AkPublic, signature: evidence.Signature, attest: bytes) -> None:
    """Whether `ak` signed a TPMS_ATTEST; raises PeerError BAD_SIGNATURE, also for SHA-1."""
    if (signature.algorithm, signature.hash) != (evidence.ALG_ECDSA, evidence.ALG_SHA256):
        raise PeerError(Reason.BAD_SIGNATURE, "TPM's statement is not signed by ECDSA with SHA-256")
    der = encode_dss_signature(signature.r, signature.s)
    try:
        ak.key.verify(der, attest, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise PeerError(
            Reason.BAD_SIGNATURE, "TPM's statement is not signed by the enrolled key"
        ) from exc


def check_counters(new: Counters, old: Counters) -> None:
    """Refuse a TPM whose time went back: a restored copy, or a cleared TPM.

    Resets and restarts never fall. The clock may fall only over a reset or restart, and
    only while the TPM says so itself (`safe` is false): that is an honest power cut.

    Raises:
        DeniedError: COUNTERS_WENT_BACK.
    """
    counts, before = (new.resets, new.restarts), (old.resets, old.restarts)
    if counts < before:
        raise DeniedError(Reason.COUNTERS_WENT_BACK, "TPM's reset counters went back")
    if new.clock < old.clock and (counts == before or new.safe):
        raise DeniedError(Reason.COUNTERS_WENT_BACK, "TPM's clock went back")


def _check_attributes(ak: evidence.AkPublic) -> None:
    # An unrestricted key signs a forged quote that passes every other check.
    if ak.attributes != evidence.AK_ATTRIBUTES:
        raise DeniedError(
            Reason.EVIDENCE_REFUSED, "attestation key is not a restricted signing key of its TPM"
        )


def _check_selection(attest: evidence.Attest, approval: Approval) -> None:
    wanted = ((evidence.ALG_SHA256, frozenset(approval.pcrs)),)
    if not approval.pcrs or attest.selection != wanted:
        raise PeerError(Reason.EVIDENCE_REFUSED, "quote is not over exactly the approved PCRs")


def check_state(pcr_digest: bytes, approval: Approval, log: bytes) -> None:
    """PCR values are accepted as they are, or as the end of a boot that keeps the rules.

    A missing or untrue log shows no wrong state, so it suspends nobody: the host has shown
    nothing, and its old result ends on time.

    Args:
        pcr_digest: over the approval's PCRs, as quoted.
        log: the host's account of its boot, unproved; empty for none.

    Raises:
        Malformed: the log was needed and does not parse.
        DeniedError: EVIDENCE_REFUSED, it is missing or untrue; STATE_REFUSED.
    """
    accepted = [hmac.compare_digest(pcr_digest, digest) for digest in approval.digests]
    if any(accepted):
        return
    if not approval.event_rules:
        raise DeniedError(Reason.STATE_REFUSED, "host is not in an approved state")
    if not log:
        raise DeniedError(
            Reason.EVIDENCE_REFUSED, "approval demands an event log; set event_log in [tpm]"
        )
    boot = event_log.parse(log)
    if not hmac.compare_digest(event_log.replayed(boot, approval.pcrs), pcr_digest):
        raise DeniedError(
            Reason.EVIDENCE_REFUSED, "event log does not end in the quoted PCR values"
        )
    event_log.check_rules(boot, approval.event_rules)


def _check_approval(enrolment: Enrolment, approval: Approval) -> None:
    if approval.host != enrolment.host or approval.ek_sha256 != enrolment.ek_sha256:
        raise DeniedError(Reason.NOT_APPROVED, "approval is for another host or TPM")
    if approval.ak_name != enrolment.ak_name:
        raise DeniedError(Reason.NOT_APPROVED, "attestation key is not in the host's approval")
