"""The attestation result: an EAT (RFC 9711) as CWT claims (RFC 8392) in a COSE_Sign.

The verifier says for minutes: this host, these keys, this effective level. Every
claim is required and no other is allowed, so a result without an end cannot
exist. Times are whole seconds (NumericDate). Spec: docs/format.md section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fabric.attest import cose, fields
from fabric.attest.keys import PublicKey, Signer, Use
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError
from fabric.model.label import Label
from fabric.model.limits import CARRIER_ITEMS_MAX, NONCE_BYTES, RESULT_BYTES_MAX
from fabric.model.names import AUTHORITY, HostId
from fabric.policy.decide import Standing
from fabric.policy.types import Trust

KIND = "result"
LEVEL_MAX = 5
"""Host security levels are 1..5 (Decree 85/2016/ND-CP)."""
_PROFILE = "tag:agency-fabric,2026:result-v1"
_TYP = 16  # RFC 9596
_PROTECTED = canonical.encode({_TYP: "application/eat+cwt"})
_ISS, _SUB, _EXP, _IAT, _CTI, _NONCE, _EAT_PROFILE = 1, 2, 4, 6, 7, 10, 265
# Private claims, which EAT allows below -65536.
_APPROVAL, _LEVEL, _CLEARANCE, _EVIDENCE, _KEYS = -65537, -65538, -65539, -65540, -65541
_POLICY, _REVOCATION, _HEADS, _QUOTE = -65542, -65543, -65544, -65545
_CLAIMS = frozenset(
    {_ISS, _SUB, _EXP, _IAT, _CTI, _NONCE, _EAT_PROFILE, _APPROVAL, _LEVEL, _CLEARANCE}
    | {_EVIDENCE, _KEYS, _POLICY, _REVOCATION, _HEADS, _QUOTE}
)
_LABEL_CHARS_MAX = 1_024
_EVIDENCE_CHARS_MAX = 16
_SECONDS_MAX = 253_402_300_799  # year 9999, where datetime ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the verifier says of a host, until `expires`.

    Attributes:
        id: 16 random bytes; headers name the result by it.
        approval: number of the approval it rests on.
        level: effective host level, 1..5.
        evidence: evidence kind, for example `tpm2`.
        keys: the host's current keys in the order the quote binds them.
        revocation_number: of the last notice when it was issued.
        heads: hashes of the host's last acknowledged envelopes, 32 bytes each.
        quote_digest: SHA-256 of the quote's TPMS_ATTEST.
        nonce: the challenge that the quote answered, 32 bytes.
        issued: aware UTC, whole seconds.
        expires: aware UTC, whole seconds; from then on it says nothing.
    """

    id: bytes
    host: HostId
    approval: int
    level: int
    clearance: Label
    evidence: str
    keys: tuple[PublicKey, ...]
    policy_version: int
    revocation_number: int
    heads: tuple[bytes, ...]
    quote_digest: bytes
    nonce: bytes
    issued: datetime
    expires: datetime


def encode(result: Result, trust_domain: str, signers: Sequence[Signer]) -> bytes:
    """Sign a result with the verifier's keys, in the policy's order.

    Parts of a second of `issued` and `expires` are cut off.

    Raises:
        Malformed: the result does not keep its own rules, so no reader would take it.
    """
    claims: dict[int, canonical.Value] = {
        _ISS: _issuer(trust_domain),
        _SUB: result.host.spiffe(trust_domain),
        _EXP: int(result.expires.timestamp()),
        _IAT: int(result.issued.timestamp()),
        _CTI: result.id,
        _NONCE: result.nonce,
        _EAT_PROFILE: _PROFILE,
        _APPROVAL: result.approval,
        _LEVEL: result.level,
        _CLEARANCE: str(result.clearance),
        _EVIDENCE: result.evidence,
        _KEYS: fields.write_keys(result.keys),
        _POLICY: result.policy_version,
        _REVOCATION: result.revocation_number,
        _HEADS: list(result.heads),
        _QUOTE: result.quote_digest,
    }
    payload = canonical.encode(claims)
    _read(payload, trust_domain)
    return cose.sign(KIND, _PROTECTED, payload, signers)


def decode(data: bytes, trust: Trust) -> Result:
    """Verify a result and read it; whether it is current is for Members to say.

    Raises:
        PeerError: MALFORMED, or BAD_SIGNATURE when not exactly the verifier's keys signed.
    """
    if len(data) > RESULT_BYTES_MAX:
        raise Malformed("result is too long")
    signed = cose.parse(data)
    if signed.protected_bytes != _PROTECTED:
        raise Malformed("result is not an EAT")
    check_verifier(signed, KIND, trust)
    return _read(signed.payload, trust.trust_domain)


def check_verifier(signed: cose.Signed, kind: str, trust: Trust) -> None:
    """Verify that exactly the verifier's keys signed, or exactly those it had before.

    Raises:
        PeerError: BAD_SIGNATURE, as cose.check; one key of each says nothing.
    """
    try:
        cose.check(signed, kind, _public(trust.verifier_keys))
    except PeerError:
        cose.check(signed, kind, _public(trust.former_keys))


def _public(keys: tuple[tuple[int, bytes], ...]) -> tuple[PublicKey, ...]:
    return tuple(PublicKey(Use.SIGN, alg, data) for alg, data in keys)


def signing_keys(result: Result) -> tuple[PublicKey, ...]:
    """Every signing key that a result binds: what a host's own statements are signed with."""
    return tuple(key for key in result.keys if key.use is Use.SIGN)


def standing(result: Result) -> Standing:
    """What policy decisions need to know of the result's host."""
    return Standing(
        host=result.host,
        level=result.level,
        clearance=result.clearance,
        evidence=result.evidence,
        policy_version=result.policy_version,
    )


def _issuer(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}/{AUTHORITY}"


def _read(payload: bytes, trust_domain: str) -> Result:
    content = canonical.decode(payload, items_max=CARRIER_ITEMS_MAX)
    claims = fields.exact_map(content, _CLAIMS, "result")
    if claims[_ISS] != _issuer(trust_domain) or claims[_EAT_PROFILE] != _PROFILE:
        raise Malformed("result is of another issuer or profile")
    issued = _time(claims[_IAT], "issue time")
    expires = _time(claims[_EXP], "end")
    if issued >= expires:
        raise Malformed("result ends before it begins")
    level = fields.uint(claims[_LEVEL], "level", LEVEL_MAX)
    if level == 0:
        raise Malformed("level must be 1 to 5")
    subject = fields.text(claims[_SUB], "subject", _LABEL_CHARS_MAX)
    return Result(
        id=fields.octets(claims[_CTI], "result id", fields.ID_BYTES),
        host=HostId.from_spiffe(subject, trust_domain),
        approval=fields.uint(claims[_APPROVAL], "approval"),
        level=level,
        clearance=Label.parse(fields.text(claims[_CLEARANCE], "clearance", _LABEL_CHARS_MAX)),
        evidence=fields.text(claims[_EVIDENCE], "evidence", _EVIDENCE_CHARS_MAX),
        keys=fields.keys(claims[_KEYS]),
        policy_version=fields.uint(claims[_POLICY], "policy version"),
        revocation_number=fields.uint(claims[_REVOCATION], "revocation number"),
        heads=fields.heads(claims[_HEADS]),
        quote_digest=fields.octets(claims[_QUOTE], "quote digest"),
        nonce=fields.octets(claims[_NONCE], "nonce", NONCE_BYTES),
        issued=issued,
        expires=expires,
    )


def _time(value: canonical.Value, what: str) -> datetime:
    return datetime.fromtimestamp(fields.uint(value, what, _SECONDS_MAX), UTC)
