"""Signed heads of audit logs: who vouches for a log's last line, and when. Pure.

A head is a COSE_Sign of kind `audit-head` on the topic `fabric.audit`. A host signs with
every signing key of its result, the authority with the verifier's keys, a gateway with the key of
its platform certificate, which the head carries. Spec: docs/format.md section 12.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fabric.attest import cose, fields
from fabric.attest.audit_chain import LOG_BYTES, Link
from fabric.attest.keys import Alg, PublicKey, Signer, Use
from fabric.attest.result import Result, check_verifier, signing_keys
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import AUTHORITY, GATEWAY, HostId
from fabric.policy.types import Trust

KIND = "audit-head"
_VERSION = 1
_TYP = 16  # RFC 9596
_PROTECTED = canonical.encode({_TYP: KIND})
_RECORD_BYTES_MAX = 16 * 1024
_CERTIFICATE_BYTES_MAX = 4 * 1024
_NAME_CHARS_MAX = 256
_PLATFORM = "fabric-platform"
_KEYS = frozenset(range(8))
_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a component says of its log.

    Attributes:
        component: a host `agency/system/host`, `verifier` or `gateway`.
        link: the last line when it was signed.
        at: when it was signed, aware UTC, whole milliseconds.
        result_id: of the host's result, 16 bytes; empty for the others.
        certificate: of the gateway, DER; empty for the others.
    """

    component: str
    link: Link
    at: datetime
    result_id: bytes = b""
    certificate: bytes = b""

    @property
    def host(self) -> HostId | None:
        """The host, None for a part of the platform."""
        if self.component in (AUTHORITY, GATEWAY):
            return None
        return HostId.parse(self.component)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedHead:
    """A well-formed head; nobody has checked its signatures."""

    head: Head
    signed: cose.Signed


def head_key(head: Head) -> bytes:
    """The record's key: it begins with the writer's identity."""
    return f"{head.component}/audit/{head.link.log.hex()}".encode()


def head_record(head: Head, signers: Sequence[Signer]) -> tuple[bytes, bytes]:
    """Key and value of a head; raises Malformed when it breaks its own rules."""
    content: dict[int, canonical.Value] = {
        0: _VERSION,
        1: head.component,
        2: head.link.log,
        3: head.link.number,
        4: head.link.hash,
        5: fields.milliseconds(head.at),
        6: head.result_id,
        7: head.certificate,
    }
    payload = canonical.encode(content)
    _read(payload)
    return head_key(head), cose.sign(KIND, _PROTECTED, payload, signers)


def parse_head(key: bytes, value: bytes) -> OpenedHead:
    """Read a head without trusting it; raises Malformed, also when its key is another's."""
    if len(value) > _RECORD_BYTES_MAX:
        raise Malformed("audit head is too long")
    signed = cose.parse(value)
    if signed.protected_bytes != _PROTECTED:
        raise Malformed("record is not an audit head")
    head = _read(signed.payload)
    if key != head_key(head):
        raise Malformed("audit head does not stand under its own key")
    return OpenedHead(head=head, signed=signed)


def verify_head(opened: OpenedHead, trust: Trust, result_of: Callable[[bytes], Result]) -> Head:
    """Check who signed.

    Args:
        result_of: gives the verified result of an id, or raises DeniedError.

    Raises:
        PeerError: BAD_SIGNATURE, IDENTITY_MISMATCH.
        DeniedError: as `result_of`. Whether the host was trusted then is not asked here.
    """
    head = opened.head
    if head.component == AUTHORITY:
        check_verifier(opened.signed, KIND, trust)
    elif head.component == GATEWAY:
        cose.check(opened.signed, KIND, (_gateway_key(head, trust),))
    else:
        result = result_of(head.result_id)
        if result.host != head.host or not result.issued - _SKEW <= head.at < result.expires:
            raise PeerError(Reason.IDENTITY_MISMATCH, "audit head names a result not its own")
        cose.check(opened.signed, KIND, signing_keys(result))
    return head


def public_point(certificate: x509.Certificate) -> PublicKey:
    """The P-256 key of a certificate; raises PeerError BAD_SIGNATURE for another kind."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PeerError(Reason.BAD_SIGNATURE, "certificate's key is not on P-256")
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PublicKey(Use.TLS, Alg.ESP256, point)


def _gateway_key(head: Head, trust: Trust) -> PublicKey:
    """The key of the certificate a head carries, when a CA of the policy issued it."""
    try:
        leaf = x509.load_der_x509_certificate(head.certificate)
        anchors = x509.load_pem_x509_certificates(trust.ca_pem)
        subject = [(attribute.oid, attribute.value) for attribute in leaf.subject]
        issued = any(_is_issued(leaf, anchor) for anchor in anchors)
        runs = leaf.not_valid_before_utc <= head.at < leaf.not_valid_after_utc
    except ValueError as exc:
        raise PeerError(Reason.BAD_SIGNATURE, "gateway's certificate does not parse") from exc
    expected = [(NameOID.COMMON_NAME, GATEWAY), (NameOID.ORGANIZATION_NAME, _PLATFORM)]
    if not issued or sorted(subject, key=_dotted) != sorted(expected, key=_dotted):
        raise PeerError(Reason.IDENTITY_MISMATCH, "certificate is not a gateway's of this platform")
    if not runs:
        raise PeerError(Reason.IDENTITY_MISMATCH, "gateway's certificate did not run then")
    return public_point(leaf)


def _is_issued(leaf: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _dotted(attribute: tuple[x509.ObjectIdentifier, str | bytes]) -> str:
    return attribute[0].dotted_string


def _read(payload: bytes) -> Head:
    content = fields.exact_map(canonical.decode(payload), _KEYS, "audit head")
    if content[0] != _VERSION:
        raise Malformed("audit head is of an unknown version")
    head = Head(
        component=fields.text(content[1], "component", _NAME_CHARS_MAX),
        link=Link(
            log=fields.octets(content[2], "log", LOG_BYTES),
            number=fields.uint(content[3], "number"),
            hash=fields.octets(content[4], "hash"),
        ),
        at=fields.instant(content[5], "time"),
    )
    if head.link.number == 0:
        raise Malformed("lines are numbered from 1")
    is_host = head.host is not None
    is_gateway = head.component == GATEWAY
    result_id = fields.octets(content[6], "result id", fields.ID_BYTES if is_host else 0)
    if not is_gateway:
        fields.octets(content[7], "certificate", 0)
        return replace(head, result_id=result_id)
    return replace(head, certificate=fields.blob(content[7], "certificate", _CERTIFICATE_BYTES_MAX))
