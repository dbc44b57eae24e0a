"""From a client's certificate to who it is: a host by its SVID, or a part of the platform.

The chain is TLS's to check. Here subject and SPIFFE id must say the same, because
the broker maps principals from the subject alone. Errors: PeerError IDENTITY_MISMATCH.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.names import HostId

PLATFORM = "fabric-platform"
PLATFORM_NAMES = frozenset({"verifier", "admin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is at the other end of a connection.

    Attributes:
        name: `agency/system/host`, or the common name of a platform part.
        host: None for a platform part.
        not_after: end of its certificate.
    """

    name: str
    host: HostId | None
    not_after: datetime


def identify(certificate: bytes, trust_domain: str) -> Identity:
    """Read a client's certificate (DER), whose chain has been checked.

    Raises:
        PeerError: IDENTITY_MISMATCH, the certificate is neither a host's nor a
            platform part's, or subject and SPIFFE id disagree.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        subject = _subject(parsed)
        uris = _uris(parsed)
        not_after = parsed.not_valid_after_utc
    except PeerError:
        raise
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise PeerError(Reason.IDENTITY_MISMATCH, "certificate does not parse") from exc
    if subject.keys() == {NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME}:
        name = subject[NameOID.COMMON_NAME]
        is_platform = subject[NameOID.ORGANIZATION_NAME] == PLATFORM and name in PLATFORM_NAMES
        if not is_platform or uris:
            raise PeerError(Reason.IDENTITY_MISMATCH, "certificate is of no known platform part")
        return Identity(name=name, host=None, not_after=not_after)
    host = _host(uris, trust_domain)
    expected = {
        NameOID.COMMON_NAME: host.host,
        NameOID.ORGANIZATIONAL_UNIT_NAME: host.system,
        NameOID.ORGANIZATION_NAME: host.agency,
    }
    if subject != expected:
        raise PeerError(Reason.IDENTITY_MISMATCH, "subject and SPIFFE id disagree")
    return Identity(name=str(host), host=host, not_after=not_after)


def _subject(certificate: x509.Certificate) -> dict[x509.ObjectIdentifier, str]:
    subject: dict[x509.ObjectIdentifier, str] = {}
    for attribute in certificate.subject:
        if attribute.oid in subject or not isinstance(attribute.value, str):
            raise PeerError(Reason.IDENTITY_MISMATCH, "subject names something twice")
        subject[attribute.oid] = attribute.value
    return subject


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _host(uris: list[str], trust_domain: str) -> HostId:
    if len(uris) != 1:
        raise PeerError(Reason.IDENTITY_MISMATCH, "certificate has not exactly one SPIFFE id")
    try:
        return HostId.from_spiffe(uris[0], trust_domain)
    except Malformed as exc:
        raise PeerError(Reason.IDENTITY_MISMATCH, "SPIFFE id is not of this domain") from exc
