"""X.509 of the platform: CAs, certificates of platform parts, SVIDs of hosts, the verifier's keys.

P-256 throughout, because Kafka takes no Ed25519 keys. Kafka maps a principal from the
subject alone, so the subject is the identity: `CN=host,OU=system,O=agency` for a host,
`CN=part,O=fabric-platform` for a part of the platform. An agency code cannot be written
in lower case, so no SVID can ever carry the platform's O.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fabric.attest.keys import Alg, SigningKey
from fabric.model import canonical
from fabric.model.errors import ConfigInvalid, Malformed
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import HostId

PLATFORM = "fabric-platform"
"""Organisation in the subject of every platform part."""

VERIFIER_ALGS = (Alg.ED25519, Alg.ML_DSA_65)
"""Algorithms of the verifier's signing keys, in signature order."""

_CA_DAYS = 3650
_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)

_Extensions: TypeAlias = list[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ca:
    """A certificate authority: certificate and PKCS#8 key, both PEM."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


def make_ca(common_name: str) -> Ca:
    """A fresh self-signed CA that issues leaf certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = _builder(name, key.public_key()).issuer_name(name)
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + timedelta(days=_CA_DAYS))
    extensions: _Extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(is_ca=True), True),
    ]
    certificate = _extend(builder, extensions).sign(key, hashes.SHA256())
    return Ca(cert_pem=certificate.public_bytes(Encoding.PEM), key_pem=_key_pem(key))


def issue_platform(ca: Ca, cn: str, *, hosts: Sequence[str], days: int) -> tuple[bytes, bytes]:
    """A platform part's certificate and PKCS#8 key, PEM: subject `CN=cn,O=fabric-platform`.

    Args:
        hosts: DNS names and IP addresses it is reached by (subject alternative names).
        days: validity from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, PLATFORM),
            x509.NameAttribute(NameOID.COMMON_NAME, cn),
        ]
    )
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    not_after = datetime.now(UTC) + timedelta(days=days)
    extensions: _Extensions = [(names, False)] if hosts else []
    return _issue(ca, _builder(subject, key.public_key()), extensions, not_after), _key_pem(key)


def issue_svid(
    ca: Ca, host: HostId, trust_domain: str, public_point: bytes, not_after: datetime
) -> bytes:
    """The X.509-SVID of an attested host, PEM (SPIFFE X.509-SVID; design section 6).

    Args:
        public_point: uncompressed P-256 point of the host's TLS key, as the quote bound it.

    Raises:
        Malformed: the point is not on P-256.
    """
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_point)
    except ValueError as exc:
        raise Malformed("TLS key is not a point of P-256") from exc
    # DER order: O, OU, CN prints as CN,OU,O (RFC 2253), which the broker's rule expects.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, host.agency),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, host.system),
            x509.NameAttribute(NameOID.COMMON_NAME, host.host),
        ]
    )
    uri = x509.UniformResourceIdentifier(host.spiffe(trust_domain))
    extensions: _Extensions = [(x509.SubjectAlternativeName([uri]), False)]
    return _issue(ca, _builder(subject, public), extensions, not_after)


def load_ca(cert_pem: bytes, key_pem: bytes) -> Ca:
    """A CA from its files' bytes; raises ConfigInvalid when they do not fit each other."""
    ca = Ca(cert_pem=cert_pem, key_pem=key_pem)
    try:
        certificate, key = _opened(ca)
        fits = certificate.public_key() == key.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, x509.ExtensionNotFound) as exc:
        raise ConfigInvalid(
            "authority.issuing_certificate or issuing_key does not parse as a P-256 CA in PEM"
        ) from exc
    if not fits or not constraints.ca:
        raise ConfigInvalid("authority.issuing_key is not the key of issuing_certificate, a CA")
    return ca


def make_verifier_keys() -> tuple[SigningKey, ...]:
    """Fresh signing keys of the verifier, in signature order."""
    return tuple(SigningKey.generate(alg) for alg in VERIFIER_ALGS)


def encode_verifier_keys(keys: Sequence[SigningKey]) -> bytes:
    """Bytes of the verifier's key file: CBOR [[alg, private bytes]...]; keep it 0600."""
    return canonical.encode([[int(key.public.alg), key.private_bytes()] for key in keys])


def decode_verifier_keys(data: bytes) -> tuple[SigningKey, ...]:
    """Undo `encode_verifier_keys`; raises ConfigInvalid."""
    try:
        match canonical.decode(data):
            case [[int() as first, bytes() as one], [int() as second, bytes() as two]]:
                parts = ((Alg(first), one), (Alg(second), two))
            case _:
                raise Malformed("key file has a wrong shape")
        keys = tuple(SigningKey.from_private_bytes(alg, private) for alg, private in parts)
    except (Malformed, ValueError) as exc:
        raise ConfigInvalid(
            "authority.verifier_key is not the verifier's key file; restore the one whose"
            " public keys the policy names"
        ) from exc
    if tuple(key.public.alg for key in keys) != VERIFIER_ALGS:
        raise ConfigInvalid("authority.verifier_key holds keys of other algorithms or order")
    return keys


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return builder.add_extension(identifier, critical=False)


def _issue(
    ca: Ca, builder: x509.CertificateBuilder, extensions: _Extensions, not_after: datetime
) -> bytes:
    issuer, key = _opened(ca)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    common: _Extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(is_ca=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ]
    builder = builder.issuer_name(issuer.subject)
    builder = builder.not_valid_before(datetime.now(UTC) - _SKEW).not_valid_after(not_after)
    certificate = _extend(builder, [*common, *extensions]).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM)


def _extend(builder: x509.CertificateBuilder, extensions: _Extensions) -> x509.CertificateBuilder:
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _opened(ca: Ca) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = load_pem_private_key(ca.key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("CA key is not an elliptic curve key")
    return x509.load_pem_x509_certificate(ca.cert_pem), key


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
