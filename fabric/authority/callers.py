"""Who is at the other end of a TLS connection: a host, a platform part, or only an address.

TLS has checked the chain. A certificate that is neither a host's nor the
administrator's gives no rights; it only names who asked.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from fabric.authority.pki import PLATFORM
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.names import HostId
from fabric.model.network import share_of

ADMIN = "admin"
_NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as far as TLS knows.

    Attributes:
        name: certificate subject or network address, for the audit.
        host: the host its certificate names, if it has one.
        is_admin: its certificate is the platform administrator's.
        has_certificate: it showed a certificate of a trusted CA.
    """

    name: str
    host: HostId | None = None
    is_admin: bool = False
    has_certificate: bool = False

    @property
    def share(self) -> str:
        """By what it is counted: a certificate's name, or else an address's network."""
        return self.name if self.has_certificate else share_of(self.name)


def caller_of(certificate: bytes | None, address: str, trust_domain: str) -> Caller:
    """Read a client's certificate (DER), if it showed one.

    Raises:
        PeerError: IDENTITY_MISMATCH; it does not parse, or its SPIFFE id is not its subject's.
    """
    if certificate is None:
        return Caller(name=address)
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        subject = [(attribute.oid, attribute.value) for attribute in parsed.subject]
        uris = _uris(parsed)
        name = parsed.subject.rfc4514_string()[:_NAME_CHARS_MAX]
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise PeerError(Reason.IDENTITY_MISMATCH, "certificate does not parse") from exc
    if not uris:
        wanted = {(NameOID.ORGANIZATION_NAME, PLATFORM), (NameOID.COMMON_NAME, ADMIN)}
        is_admin = len(subject) == len(wanted) and set(subject) == wanted
        return Caller(name=name, is_admin=is_admin, has_certificate=True)
    host = _host(uris, trust_domain)
    expected = [
        (NameOID.ORGANIZATION_NAME, host.agency),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, host.system),
        (NameOID.COMMON_NAME, host.host),
    ]
    if sorted(subject, key=str) != sorted(expected, key=str):
        raise PeerError(Reason.IDENTITY_MISMATCH, "subject and SPIFFE id disagree")
    return Caller(name=str(host), host=host, has_certificate=True)


def check_own(caller: Caller, host: HostId) -> None:
    """Whoever shows a host's certificate speaks for that host alone; raises PeerError."""
    if caller.host is not None and caller.host != host:
        raise PeerError(Reason.IDENTITY_MISMATCH, "certificate is another host's")


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _host(uris: list[str], trust_domain: str) -> HostId:
    try:
        (uri,) = uris
        return HostId.from_spiffe(uri, trust_domain)
    except (ValueError, Malformed) as exc:
        raise PeerError(
            Reason.IDENTITY_MISMATCH, "certificate has not exactly one SPIFFE id of this domain"
        ) from exc
