"""A signing key that lives in the TPM: what proves it, and the check of that proof.

A host whose policy asks for it signs blocks with a P-256 key that its TPM made and
that cannot leave it. The attestation key certifies it (TPM2_Certify) over the same
qualifying data as the quote, so the proof belongs to this renewal and no other. A
result binds such a key only where it was proved; that is why its algorithm means
"in the TPM" to every reader of results. Spec: docs/format.md section 9.4.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fabric.attest import evidence
from fabric.attest.appraise import Enrolment, check_ak, check_signature
from fabric.attest.ek import qualified_name
from fabric.attest.keys import Alg, PublicKey, Use
from fabric.model.errors import DeniedError, PeerError, Reason

RESIDENT_ATTRIBUTES = 0x0004_0472
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign; not restricted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentReport:
    """A TPM's word on a key that it holds.

    Attributes:
        attest: marshalled TPMS_ATTEST of TPM2_Certify.
        signature: marshalled TPMT_SIGNATURE by the enrolled attestation key.
        public: marshalled TPM2B_PUBLIC of the certified key.
    """

    attest: bytes
    signature: bytes
    public: bytes


def is_resident(key: PublicKey) -> bool:
    """Whether a bound key claims to live in the TPM."""
    return key.use is Use.SIGN and key.alg == Alg.ESP256


def point_of(public: bytes) -> bytes:
    """Uncompressed point of a marshalled TPM2B_PUBLIC; raises Malformed."""
    key = evidence.parse_ak(public).key
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def check_resident(
    report: ResidentReport | None,
    keys: Sequence[PublicKey],
    enrolment: Enrolment,
    *,
    qualifying: bytes,
) -> None:
    """Check that the bound key that claims it lives in the enrolled TPM.

    Args:
        report: of the request; None when it has none.
        keys: every key that the request binds.
        qualifying: as in the quote of the same request.

    Raises:
        PeerError: MALFORMED; BAD_SIGNATURE; BINDING_MISMATCH, the proof is of another
            request or another key; EVIDENCE_REFUSED, there is no proof, none is needed,
            or it is of another kind.
        DeniedError: NOT_ENROLLED, EVIDENCE_REFUSED: the key could leave the TPM, came
            from outside, or signs what only the TPM may say.
    """
    claimed = [key for key in keys if is_resident(key)]
    if report is None:
        if claimed:
            raise PeerError(
                Reason.EVIDENCE_REFUSED, "P-256 signing key is not proved to be a TPM's"
            )
        return
    if len(claimed) != 1:
        raise PeerError(Reason.EVIDENCE_REFUSED, "proof is of a key that the request does not bind")
    certified = evidence.parse_certify(report.attest)
    ak = check_ak(enrolment)
    check_signature(ak, evidence.parse_signature(report.signature), report.attest)
    if (certified.magic, certified.type) != (evidence.MAGIC, evidence.TYPE_CERTIFY):
        raise PeerError(Reason.EVIDENCE_REFUSED, "signed structure is not a TPM's key certificate")
    if not hmac.compare_digest(certified.extra, qualifying):
        raise PeerError(Reason.BINDING_MISMATCH, "proof answers another challenge or other keys")
    if certified.signer != qualified_name(enrolment.ek_name, enrolment.ak_name):
        raise PeerError(
            Reason.EVIDENCE_REFUSED, "proof's signer is not the endorsement key's child"
        )
    _check_key(report.public, certified.name, claimed[0])


def _check_key(public: bytes, name: bytes, claimed: PublicKey) -> None:
    """The certified name is that of the public area, and its point that of the bound key."""
    area = evidence.parse_ak(public)
    if not hmac.compare_digest(area.name, name):
        raise PeerError(Reason.BINDING_MISMATCH, "proof is of another key than it shows")
    if not hmac.compare_digest(point_of(public), claimed.data):
        raise PeerError(Reason.BINDING_MISMATCH, "proof is of another key than the bound one")
    if area.attributes != RESIDENT_ATTRIBUTES:
        raise DeniedError(
            Reason.EVIDENCE_REFUSED, "signing key is not a plain one that never leaves its TPM"
        )
