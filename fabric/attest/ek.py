"""The endorsement key: whether a certificate is a TPM manufacturer's, and whose key it is.

The key's TPM name is computed from the certificate's public key and the TCG
template it is made from (TCG EK Credential Profile: L-1 for RSA 2048, H-3 for
P-384); nobody is asked for it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fabric.attest import evidence
from fabric.attest.evidence import sized
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError

EkKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_EKU_EK_CERTIFICATE = ObjectIdentifier("2.23.133.8.1")
_CERTIFICATE_BYTES_MAX = 16 * 1024
_CHAIN_MAX = 4
_RSA_EXPONENT = 65537
_RH_ENDORSEMENT = 0x4000000B
_RSA_ATTRIBUTES = 0x0003_00B2
_ECC_ATTRIBUTES = 0x0003_00F2
_RSA_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_ECC_POLICY = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca"
    "cb47ba09699646150f9fc000f3f80e12"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A key that a trusted manufacturer certified.

    Attributes:
        certificate: its DER.
        sha256: SHA-256 of that, by which an approval names it.
        name: TPM name.
    """

    certificate: bytes
    sha256: bytes
    name: bytes
    public: EkKey


def check_ek(
    der: bytes, ek_ca_pem: bytes, now: datetime, *, since: datetime | None = None
) -> EndorsementKey:
    """Check an endorsement certificate: form, key, purpose, chain and time.

    Args:
        der: the certificate, without padding.
        ek_ca_pem: certificates of the manufacturers that are trusted; self-issued ones
            are anchors, the others intermediates.
        since: when it was enrolled. A chain that held then still does, as long as its CAs are
            trusted: the end of a certificate says nothing against a key inside a TPM.

    Raises:
        Malformed: not exactly one certificate in clean DER. Some manufacturers' are not
            (wrong set order, padding): such a TPM cannot be enrolled.
        DeniedError: EVIDENCE_REFUSED: no chain to an anchor, another purpose than
            endorsement, not valid now, or neither RSA 2048 nor P-384.
        UsageError: POLICY_INVALID, the trusted certificates do not parse.
    """
    certificate = _parse(der)
    public = _supported(certificate)
    _check_chain(certificate, ek_ca_pem, (now,) if since is None else (now, since))
    sha256 = hashlib.sha256(der).digest()
    return EndorsementKey(certificate=der, sha256=sha256, name=ek_name(public), public=public)


def check_key(certificate: bytes, public: EkKey) -> None:
    """Hold a TPM's own endorsement key against its certificate.

    Raises:
        Malformed: the certificate is not clean DER.
        PeerError: IDENTITY_MISMATCH, the certificate is another key's.
    """
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if _parse(certificate).public_key().public_bytes(*form) != public.public_bytes(*form):
        raise PeerError(Reason.IDENTITY_MISMATCH, "endorsement certificate is another key's")


def has_ended(certificate: bytes, now: datetime) -> bool:
    """Whether an endorsement certificate's own time is over; raises Malformed."""
    return now > _parse(certificate).not_valid_after_utc


def certified_name(certificate: bytes) -> bytes:
    """TPM name of the key in an endorsement certificate that nobody has checked.

    Raises:
        Malformed: the certificate is not clean DER.
        DeniedError: EVIDENCE_REFUSED, the key is neither RSA 2048 nor P-384.
    """
    return ek_name(_supported(_parse(certificate)))


def ek_name(public: EkKey) -> bytes:
    """TPM name of an endorsement key made from the TCG template of its kind."""
    if isinstance(public, rsa.RSAPublicKey):
        area = _rsa_area(public.public_numbers().n)
        return evidence.name_of(area)
    numbers = public.public_numbers()
    area = _ecc_area(numbers.x.to_bytes(48), numbers.y.to_bytes(48))
    return evidence.ALG_SHA384.to_bytes(2) + hashlib.sha384(area).digest()


def qualified_name(name_ek: bytes, name_ak: bytes) -> bytes:
    """Qualified name of an attestation key that is the endorsement key's child.

    Every object's is hash(parent's qualified name || own name) by its own name algorithm;
    the hierarchy stands as its handle. A consistency check: names are public.
    """
    of_ek = _hash_like(name_ek, _RH_ENDORSEMENT.to_bytes(4) + name_ek)
    return _hash_like(name_ak, of_ek + name_ak)


def _hash_like(name: bytes, data: bytes) -> bytes:
    algorithm = int.from_bytes(name[:2])
    if algorithm == evidence.ALG_SHA384:
        return name[:2] + hashlib.sha384(data).digest()
    return name[:2] + hashlib.sha256(data).digest()


def _parse(der: bytes) -> x509.Certificate:
    if len(der) > _CERTIFICATE_BYTES_MAX:
        raise Malformed("endorsement certificate is too long")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Extensions and key are parsed on first use: do it here, where errors are mapped.
        certificate.public_key()
        certificate.extensions  # noqa: B018
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed(
            "endorsement certificate is not one certificate in clean DER, so this TPM cannot be"
            " enrolled: its maker must issue a corrected one, or take another TPM"
        ) from exc
    return certificate


def _supported(certificate: x509.Certificate) -> EkKey:
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size == 2048 and public.public_numbers().e == _RSA_EXPONENT:
            return public
    elif isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP384R1):
        return public
    raise DeniedError(Reason.EVIDENCE_REFUSED, "endorsement key is not RSA 2048 or P-384")


def _check_chain(
    certificate: x509.Certificate, ek_ca_pem: bytes, times: Sequence[datetime]
) -> None:
    """Find a chain that holds at one of these times; raises DeniedError EVIDENCE_REFUSED."""
    anchors, intermediates = _authorities(ek_ca_pem)
    ca_policy = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, _require_ca
    )
    # The library's own policies demand TLS purposes, which no endorsement certificate has.
    ee_policy = ExtensionPolicy.permit_all().require_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_endorsement
    )
    ee_policy = ee_policy.require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, _require_no_ca
    )
    builder = PolicyBuilder().store(Store(anchors)).max_chain_depth(_CHAIN_MAX)
    builder = builder.extension_policies(ca_policy=ca_policy, ee_policy=ee_policy)
    cause: Exception | None = None
    for when in times:
        try:
            builder.time(when).build_client_verifier().verify(certificate, intermediates)
        except (VerificationError, ValueError) as exc:
            cause = exc
        else:
            return
    raise DeniedError(
        Reason.EVIDENCE_REFUSED,
        "endorsement certificate has no valid chain to a trusted TPM manufacturer",
    ) from cause


def _authorities(pem: bytes) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    try:
        trusted = x509.load_pem_x509_certificates(pem)
    except ValueError as exc:
        raise UsageError(
            Reason.POLICY_INVALID, "trusted TPM manufacturers' certificates do not parse"
        ) from exc
    anchors = [item for item in trusted if item.issuer == item.subject]
    if not anchors:
        raise UsageError(
            Reason.POLICY_INVALID, "no trusted TPM manufacturer's certificate is self-issued"
        )
    return anchors, [item for item in trusted if item.issuer != item.subject]


def _require_ca(
    _policy: Policy, _certificate: x509.Certificate, value: x509.BasicConstraints
) -> None:
    if not value.ca:
        raise ValueError("issuer is no certificate authority")


def _require_no_ca(
    _policy: Policy, _certificate: x509.Certificate, value: x509.BasicConstraints
) -> None:
    if value.ca:
        raise ValueError("a certificate authority is no endorsement key")


def _require_endorsement(
    _policy: Policy, _certificate: x509.Certificate, value: x509.ExtendedKeyUsage
) -> None:
    if _EKU_EK_CERTIFICATE not in value or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in value:
        raise ValueError("certificate is not for an endorsement key")


def _rsa_area(modulus: int) -> bytes:
    parameters = (evidence.ALG_AES, 128, evidence.ALG_CFB, evidence.ALG_NULL, 2048)
    return b"".join(
        (
            evidence.ALG_RSA.to_bytes(2),
            evidence.ALG_SHA256.to_bytes(2),
            _RSA_ATTRIBUTES.to_bytes(4),
            sized(_RSA_POLICY),
            *(number.to_bytes(2) for number in parameters),
            bytes(4),  # exponent zero stands for 65537
            sized(modulus.to_bytes(256)),
        )
    )


def _ecc_area(x: bytes, y: bytes) -> bytes:
    parameters = (
        *(evidence.ALG_AES, 256, evidence.ALG_CFB),
        *(evidence.ALG_NULL, evidence.CURVE_P384, evidence.ALG_NULL),
    )
    return b"".join(
        (
            evidence.ALG_ECC.to_bytes(2),
            evidence.ALG_SHA384.to_bytes(2),
            _ECC_ATTRIBUTES.to_bytes(4),
            sized(_ECC_POLICY),
            *(number.to_bytes(2) for number in parameters),
            sized(x) + sized(y),
        )
    )
