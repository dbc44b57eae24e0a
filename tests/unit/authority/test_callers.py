"""Who a certificate names, and that nothing else gives rights."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.callers import caller_of, check_own
from fabric.authority.pki import issue_platform, issue_svid, make_ca
from fabric.model.errors import PeerError, Reason
from fabric.model.names import HostId

CA = make_ca("test")
HOST = HostId.parse("G01/registry/host-a")
DOMAIN = "fabric.example"


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def svid(host: HostId = HOST) -> bytes:
    point = SigningKey.generate(Alg.ESP256, Use.TLS).public.data
    return der(issue_svid(CA, host, DOMAIN, point, datetime.now(UTC) + timedelta(hours=1)))


def made(subject: list[tuple[x509.ObjectIdentifier, str]], uris: list[str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_without_a_certificate_a_caller_is_its_address() -> None:
    caller = caller_of(None, "10.0.0.1", DOMAIN)
    assert (caller.name, caller.host) == ("10.0.0.1", None)
    assert not caller.is_admin
    assert not caller.has_certificate


def test_without_a_certificate_a_caller_counts_as_its_network() -> None:
    assert caller_of(None, "2001:db8::1", DOMAIN).share == "2001:db8::/64"
    assert caller_of(None, "192.0.2.1", DOMAIN).share == "192.0.2.1"
    assert caller_of(svid(), "2001:db8::1", DOMAIN).share == str(HOST)


def test_a_host_is_its_spiffe_id_and_no_administrator() -> None:
    caller = caller_of(svid(), "10.0.0.1", DOMAIN)
    assert (caller.host, caller.is_admin, caller.has_certificate) == (HOST, False, True)


def test_only_the_platforms_admin_is_administrator() -> None:
    for name, is_admin in (("admin", True), ("gateway", False), ("verifier", False)):
        certificate, _ = issue_platform(CA, name, hosts=["localhost"], days=1)
        assert caller_of(der(certificate), "10.0.0.1", DOMAIN).is_admin is is_admin


@pytest.mark.parametrize(
    "subject",
    [
        [(NameOID.COMMON_NAME, "admin")],
        [(NameOID.COMMON_NAME, "admin"), (NameOID.ORGANIZATION_NAME, "FABRIC-PLATFORM")],
        [(NameOID.COMMON_NAME, "fabric-platform"), (NameOID.ORGANIZATION_NAME, "admin")],
        [
            (NameOID.COMMON_NAME, "admin"),
            (NameOID.ORGANIZATION_NAME, "fabric-platform"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "x"),
        ],
        [
            (NameOID.COMMON_NAME, "admin"),
            (NameOID.COMMON_NAME, "admin"),
            (NameOID.ORGANIZATION_NAME, "fabric-platform"),
        ],
    ],
)
def test_a_subject_that_is_not_exactly_the_administrators_gives_no_rights(
    subject: list[tuple[x509.ObjectIdentifier, str]],
) -> None:
    assert not caller_of(made(subject, []), "10.0.0.1", DOMAIN).is_admin


@pytest.mark.parametrize(
    ("subject", "uris"),
    [
        ("CN=admin,O=fabric-platform", [f"spiffe://{DOMAIN}/{HOST}"]),
        ("CN=host-b,OU=registry,O=G01", [f"spiffe://{DOMAIN}/{HOST}"]),
        ("CN=host-a,OU=registry,O=G01", [f"spiffe://other/{HOST}"]),
        ("CN=host-a,OU=registry,O=G01", [f"spiffe://{DOMAIN}/{HOST}", f"spiffe://{DOMAIN}/{HOST}"]),
        ("CN=host-a,OU=registry,O=G01", ["https://example"]),
    ],
)
def test_a_certificate_that_says_two_things_is_refused(subject: str, uris: list[str]) -> None:
    name = x509.Name.from_rfc4514_string(subject)
    data = made([(attribute.oid, str(attribute.value)) for attribute in name], uris)
    with pytest.raises(PeerError) as error:
        caller_of(data, "10.0.0.1", DOMAIN)
    assert error.value.reason is Reason.IDENTITY_MISMATCH


def test_garbage_is_refused() -> None:
    with pytest.raises(PeerError):
        caller_of(b"garbage", "10.0.0.1", DOMAIN)


def test_a_certificate_of_a_host_speaks_for_no_other() -> None:
    other = HostId.parse("G01/registry/host-b")
    itself = caller_of(svid(), "127.0.0.1", DOMAIN)
    for caller in (itself, caller_of(None, "127.0.0.1", DOMAIN)):
        check_own(caller, HOST)
    check_own(caller_of(None, "127.0.0.1", DOMAIN), other)
    with pytest.raises(PeerError) as error:
        check_own(itself, other)
    assert error.value.reason is Reason.IDENTITY_MISMATCH
