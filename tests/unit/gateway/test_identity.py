"""Certificates and who they name."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fabric.gateway.identity import identify
from fabric.model.errors import PeerError, Reason
from fabric.model.names import HostId

DOMAIN = "fabric.example"
URI = "spiffe://fabric.example/G01/registry/a1"
END = datetime(2030, 1, 1, tzinfo=UTC)
OIDS = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "C": NameOID.COUNTRY_NAME,
}
HOST = "O=G01,OU=registry,CN=a1"


def certificate(subject: str, *uris: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [part.split("=") for part in subject.split(",") if part]
    name = x509.Name([x509.NameAttribute(OIDS[kind], value) for kind, value in parts])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(END - timedelta(days=1))
        .not_valid_after(END)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_host_is_its_spiffe_id_and_its_subject() -> None:
    found = identify(certificate(HOST, URI), DOMAIN)
    assert found.host == HostId.parse("G01/registry/a1")
    assert found.name == "G01/registry/a1"
    assert found.not_after == END


@pytest.mark.parametrize("name", ["verifier", "admin"])
def test_platform_parts_are_their_common_name(name: str) -> None:
    found = identify(certificate(f"O=fabric-platform,CN={name}"), DOMAIN)
    assert (found.name, found.host) == (name, None)


@pytest.mark.parametrize(
    ("subject", "uris"),
    [
        pytest.param(HOST, [], id="no SPIFFE id"),
        pytest.param(HOST, [URI, URI + "2"], id="two SPIFFE ids"),
        pytest.param(HOST, ["spiffe://elsewhere/G01/registry/a1"], id="another trust domain"),
        pytest.param(HOST, ["https://fabric.example/G01/registry/a1"], id="no SPIFFE id at all"),
        pytest.param("O=G02,OU=registry,CN=a1", [URI], id="another agency in the subject"),
        pytest.param("O=G01,OU=registry,CN=a2", [URI], id="another host in the subject"),
        pytest.param("O=G01,OU=registry,CN=a1,C=VN", [URI], id="more in the subject"),
        pytest.param("O=G01,OU=registry,CN=a1,CN=a1", [URI], id="a name twice"),
        pytest.param("O=G01,CN=a1", [URI], id="no system in the subject"),
        pytest.param("", [URI], id="no subject"),
        pytest.param("O=fabric-platform,CN=gateway", [], id="a gateway is no client"),
        pytest.param("O=fabric-platform,CN=broker", [], id="a broker is no client"),
        pytest.param("O=fabric-platform,CN=verifier", [URI], id="verifier with a SPIFFE id"),
        pytest.param("O=G01,CN=verifier", [], id="verifier of another organisation"),
        pytest.param("O=fabric-platform,OU=x,CN=verifier", [], id="verifier with a unit"),
        pytest.param(
            "O=fabric-platform,OU=x,CN=verifier",
            ["spiffe://fabric.example/fabric-platform/x/verifier"],
            id="an agency called fabric-platform",
        ),
    ],
)
def test_everybody_else_is_refused(subject: str, uris: list[str]) -> None:
    with pytest.raises(PeerError) as refused:
        identify(certificate(subject, *uris), DOMAIN)
    assert refused.value.reason is Reason.IDENTITY_MISMATCH


def test_bytes_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(PeerError):
        identify(b"garbage", DOMAIN)
