"""The tally: a hash chain in the TPM that only one holder of its state can continue.

Each renewal extends an NV index by a step that the verifier drew for it alone, and the
attestation key certifies the new value. Of two copies of a TPM the first to renew moves
the verifier's value on; the other can never reach it, because the step went to the first
alone. Clocks and counters do not see a copy that runs at the same time; this does.
Spec: docs/format.md section 9.2.
"""

import hmac
from dataclasses import dataclass
from hashlib import sha256

from fabric.attest import evidence
from fabric.attest.appraise import Enrolment, check_ak, check_signature
from fabric.attest.ek import qualified_name
from fabric.attest.evidence import sized
from fabric.model.errors import DeniedError, PeerError, Reason

NV_INDEX = 0x0180_FAB1
"""In the range of the TPM's owner."""
NV_DEFINED = 0x0204_0044
"""TPMA_NV at definition: extend only, read and extended with its own (empty) secret, noDA."""
NV_WRITTEN = NV_DEFINED | 0x2000_0000
VALUE_BYTES = 32
START = bytes(VALUE_BYTES)
"""Value of an index that was never extended."""


def public_area(attributes: int = NV_WRITTEN) -> bytes:
    """TPMS_NV_PUBLIC of the index: no policy, SHA-256, 32 bytes."""
    head = NV_INDEX.to_bytes(4) + evidence.ALG_SHA256.to_bytes(2)
    return head + attributes.to_bytes(4) + sized(b"") + VALUE_BYTES.to_bytes(2)


NAME = evidence.name_of(public_area())
"""TPM name of the index once it was extended; every host's is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyReport:
    """A host's word on its tally.

    Attributes:
        attest: marshalled TPMS_ATTEST of TPM2_NV_Certify over the whole index.
        signature: marshalled TPMT_SIGNATURE by the enrolled attestation key.
        step: what the last extension added to the verifier's value, 32 bytes.
    """

    attest: bytes
    signature: bytes
    step: bytes

    def __repr__(self) -> str:  # whoever learns a step can follow the chain
        return "TallyReport(step=hidden)"


def extended(value: bytes, step: bytes) -> bytes:
    """The value after TPM2_NV_Extend by `step`."""
    return sha256(value + step).digest()


def is_heard(last: bytes, value: bytes) -> bool:
    """Whether a TPM at `value` has nothing to report to a verifier at `last`: extend it.

    Any other value is one step ahead, because the agent died between extension and report
    or was refused, or it is a fork. Then nothing is extended, so that a TPM is written once
    per accepted renewal at most, also while its host is refused again and again.
    """
    return value in (last, START)


def check_tally(
    report: TallyReport, enrolment: Enrolment, *, qualifying: bytes, last: bytes | None
) -> bytes:
    """Check that this TPM, and no copy of it, continued the chain by exactly one step.

    Args:
        qualifying: as in the quote of the same request.
        last: value of the last accepted report; None before the first, which is taken as
            it is: enrolment begins the chain.

    Returns:
        The new value, to be kept with the result.

    Raises:
        PeerError: MALFORMED; BAD_SIGNATURE; BINDING_MISMATCH; EVIDENCE_REFUSED, another
            structure, index or length; NONCE_REFUSED, the chain was continued after the
            challenge was drawn: ask for a new one.
        DeniedError: NOT_ENROLLED, EVIDENCE_REFUSED; FORK for authentic evidence that does
            not continue the chain.
    """
    value = _certified(report, enrolment, qualifying)
    if last is None:
        return value
    if hmac.compare_digest(value, last):
        raise PeerError(Reason.NONCE_REFUSED, "tally was reported before; ask for a new challenge")
    if not hmac.compare_digest(value, extended(last, report.step)):
        raise DeniedError(
            Reason.FORK,
            "tally does not continue the chain: a copy of this TPM attested, or an old state of"
            " it was restored; clear the TPM of the true host and enrol it anew",
        )
    return value


def _certified(report: TallyReport, enrolment: Enrolment, qualifying: bytes) -> bytes:
    """The index's value as this host's TPM certifies it now."""
    attest = evidence.parse_nv(report.attest)
    ak = check_ak(enrolment)
    check_signature(ak, evidence.parse_signature(report.signature), report.attest)
    if (attest.magic, attest.type) != (evidence.MAGIC, evidence.TYPE_NV):
        raise PeerError(Reason.EVIDENCE_REFUSED, "signed structure is not a TPM's NV certificate")
    if not hmac.compare_digest(attest.extra, qualifying):
        raise PeerError(Reason.BINDING_MISMATCH, "tally answers another challenge or other keys")
    if attest.signer != qualified_name(enrolment.ek_name, enrolment.ak_name):
        raise PeerError(
            Reason.EVIDENCE_REFUSED, "tally's signer is not the endorsement key's child"
        )
    if attest.index != NAME or attest.offset != 0 or len(attest.contents) != VALUE_BYTES:
        raise PeerError(Reason.EVIDENCE_REFUSED, "certified NV index is not the tally, whole")
    return attest.contents
