import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fabric.attest.ek import certified_name, check_ek, check_key, ek_name, has_ended, qualified_name
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError
from tests.fakes.tpm import EKU_EK, FakeTpm, FakeTpmCa

CA = FakeTpmCa()
TPM = FakeTpm(CA)
ELLIPTIC = FakeTpm(CA, elliptic=True)
NOW = datetime.now(UTC)
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH


def _denied(der: bytes, pem: bytes = CA.pem, now: datetime = NOW) -> Reason:
    with pytest.raises(DeniedError) as denied:
        check_ek(der, pem, now)
    return denied.value.reason


@pytest.mark.parametrize("tpm", [TPM, ELLIPTIC], ids=["rsa-2048", "p-384"])
def test_certificate_of_a_trusted_manufacturer_passes(tpm: FakeTpm) -> None:
    ek = check_ek(tpm.ek_certificate(), CA.pem, NOW)
    assert ek.public == tpm.ek.public_key()
    assert ek.sha256 == hashlib.sha256(tpm.ek_certificate()).digest()
    assert ek.name == ek_name(tpm.ek.public_key())


def test_one_of_several_manufacturers_suffices() -> None:
    check_ek(TPM.ek_certificate(), FakeTpmCa("another").pem + CA.pem, NOW)


def test_certificate_of_an_untrusted_manufacturer_is_refused() -> None:
    assert _denied(FakeTpm(FakeTpmCa()).ek_certificate()) is Reason.EVIDENCE_REFUSED


def test_certificate_of_a_rogue_of_the_same_name_is_refused() -> None:
    rogue = FakeTpmCa("fake TPM manufacturer")
    assert _denied(rogue.certify(TPM.ek.public_key())) is Reason.EVIDENCE_REFUSED


def test_self_made_certificate_is_refused_though_the_key_is_real() -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake TPM manufacturer")])
    der = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, NOW, NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([EKU_EK]), False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    assert _denied(der) is Reason.EVIDENCE_REFUSED


@pytest.mark.parametrize(
    "purposes",
    [(), (CLIENT_AUTH,), (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, EKU_EK)],
    ids=["none", "TLS client", "any"],
)
def test_certificate_for_another_purpose_is_refused(purposes: list[ObjectIdentifier]) -> None:
    der = CA.certify(TPM.ek.public_key(), purposes=purposes)
    assert _denied(der) is Reason.EVIDENCE_REFUSED


def test_certificate_of_an_authority_is_no_endorsement() -> None:
    assert _denied(CA.certify(TPM.ek.public_key(), ca=True)) is Reason.EVIDENCE_REFUSED


def test_certificate_outside_its_time_is_refused() -> None:
    der = CA.certify(TPM.ek.public_key(), until=NOW - timedelta(days=1))
    assert _denied(der) is Reason.EVIDENCE_REFUSED
    assert _denied(TPM.ek_certificate(), now=NOW - timedelta(days=500)) is Reason.EVIDENCE_REFUSED


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
        rsa.generate_private_key(65537, 3072),
        ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["rsa-1024", "exponent 3", "rsa-3072", "p-256"],
)
def test_key_of_another_kind_is_refused(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    assert _denied(CA.certify(key.public_key())) is Reason.EVIDENCE_REFUSED


def test_certificate_signed_by_an_endorsement_key_is_refused() -> None:
    """A TPM owner must not become an authority by the key that he has."""
    issuer = x509.Name([])
    key = rsa.generate_private_key(65537, 2048)
    assert isinstance(TPM.ek, rsa.RSAPrivateKey)
    der = (
        x509.CertificateBuilder(issuer, issuer, key.public_key(), 7, NOW, NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([EKU_EK]), False)
        .sign(TPM.ek, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    assert _denied(der) is Reason.EVIDENCE_REFUSED


def _misordered() -> bytes:
    """A certificate whose subject holds a SET in an order that DER forbids."""
    names = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "aa"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bb"),
    ]
    subject = x509.Name([x509.RelativeDistinguishedName(names)])
    key = ec.generate_private_key(ec.SECP384R1())
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 7, NOW, NOW + timedelta(days=1)
    )
    der = builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)
    return der.replace(b"aa", b"xx").replace(b"bb", b"aa").replace(b"xx", b"bb")


@pytest.mark.parametrize(
    "der",
    [
        TPM.ek_certificate() + b"\0",
        TPM.ek_certificate() + b"\xff" * 64,
        TPM.ek_certificate()[:-1],
        TPM.ek_certificate() * 2,
        _misordered(),
        b"",
        bytes(100),
        bytes(20_000),
    ],
    ids=["zero", "padding", "cut", "two", "set order", "empty", "zeros", "long"],
)
def test_certificate_that_is_not_clean_der_is_refused_with_a_clear_word(der: bytes) -> None:
    with pytest.raises(Malformed, match="endorsement certificate is") as malformed:
        check_ek(der, CA.pem, NOW)
    assert "too long" in str(malformed.value) or "another TPM" in str(malformed.value)


@pytest.mark.parametrize("pem", [b"", b"garbage"])
def test_trust_that_does_not_parse_is_a_mistake_of_the_policy(pem: bytes) -> None:
    with pytest.raises(UsageError) as wrong:
        check_ek(TPM.ek_certificate(), pem, NOW)
    assert wrong.value.reason is Reason.POLICY_INVALID


def test_key_that_is_not_the_certificates_is_refused() -> None:
    check_key(TPM.ek_certificate(), TPM.ek.public_key())
    with pytest.raises(PeerError) as refused:
        check_key(TPM.ek_certificate(), FakeTpm(CA).ek.public_key())
    assert refused.value.reason is Reason.IDENTITY_MISMATCH


def test_name_of_a_certified_key_needs_no_chain() -> None:
    assert certified_name(TPM.ek_certificate()) == ek_name(TPM.ek.public_key())
    with pytest.raises(DeniedError):
        certified_name(CA.certify(ec.generate_private_key(ec.SECP256R1()).public_key()))


def test_qualified_name_depends_on_both_keys() -> None:
    name = b"\x00\x0b" + bytes(32)
    names = {
        qualified_name(ek_name(TPM.ek.public_key()), name),
        qualified_name(ek_name(ELLIPTIC.ek.public_key()), name),
        qualified_name(ek_name(TPM.ek.public_key()), b"\x00\x0b" + b"\1" * 32),
    }
    assert len(names) == 3
    assert all(found[:2] == b"\x00\x0b" and len(found) == 34 for found in names)


def test_a_chain_that_held_at_enrolment_holds_while_its_maker_is_trusted() -> None:
    der = CA.certify(TPM.ek.public_key(), until=NOW - timedelta(days=1))
    check_ek(der, CA.pem, NOW, since=NOW - timedelta(days=2))
    check_ek(TPM.ek_certificate(), CA.pem, NOW, since=NOW - timedelta(days=9_999))
    with pytest.raises(DeniedError):
        check_ek(der, FakeTpmCa("another").pem, NOW, since=NOW - timedelta(days=2))


def test_a_certificate_has_ended_by_its_own_date_alone() -> None:
    der = CA.certify(TPM.ek.public_key(), until=NOW)
    assert [has_ended(der, NOW + timedelta(days=days)) for days in (-1, 1)] == [False, True]
    assert not has_ended(TPM.ek_certificate(), NOW)
