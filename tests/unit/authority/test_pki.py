"""Certificates say exactly who somebody is, and nothing a broker could read two ways."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority import pki
from fabric.model.errors import ConfigInvalid, Malformed
from fabric.model.names import HostId

HOST = HostId.parse("G01.2/registry/host-a")
CA = pki.make_ca("test")


def _svid(ca: pki.Ca = CA) -> x509.Certificate:
    point = SigningKey.generate(Alg.ESP256, Use.TLS).public.data
    end = datetime.now(UTC) + timedelta(minutes=5)
    return x509.load_pem_x509_certificate(pki.issue_svid(ca, HOST, "fabric.example", point, end))


def test_an_svid_has_the_subject_that_the_brokers_rule_maps() -> None:
    assert _svid().subject.rfc4514_string() == "CN=host-a,OU=registry,O=G01.2"


def test_an_svid_has_exactly_one_spiffe_id_and_both_purposes() -> None:
    extensions = _svid().extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["spiffe://fabric.example/G01.2/registry/host-a"]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_serial_numbers_are_random() -> None:
    assert len({_svid().serial_number for _ in range(20)}) == 20


def test_an_svid_is_signed_by_its_ca() -> None:
    issuer = x509.load_pem_x509_certificate(CA.cert_pem)
    _svid().verify_directly_issued_by(issuer)


def test_a_point_that_is_not_on_the_curve_is_malformed() -> None:
    end = datetime.now(UTC) + timedelta(minutes=5)
    with pytest.raises(Malformed):
        pki.issue_svid(CA, HOST, "fabric.example", b"\x04" + bytes(64), end)


def test_a_platform_certificate_names_the_part_and_how_it_is_reached(tmp_path: Path) -> None:
    certificate, key = pki.issue_platform(CA, "gateway", hosts=["localhost", "127.0.0.1"], days=2)
    parsed = x509.load_pem_x509_certificate(certificate)
    assert parsed.subject.rfc4514_string() == "CN=gateway,O=fabric-platform"
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    (tmp_path / "both.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")


def test_no_host_can_be_named_as_the_platform() -> None:
    with pytest.raises(Malformed):
        HostId.parse(f"{pki.PLATFORM}/system/gateway")


def test_a_ca_does_not_show_its_key() -> None:
    assert "PRIVATE" not in repr(CA)


def test_a_key_of_another_ca_is_a_configuration_error() -> None:
    with pytest.raises(ConfigInvalid, match="issuing_key"):
        pki.load_ca(CA.cert_pem, pki.make_ca("other").key_pem)


def test_a_leaf_is_no_ca() -> None:
    certificate, key = pki.issue_platform(CA, "gateway", hosts=[], days=2)
    with pytest.raises(ConfigInvalid):
        pki.load_ca(certificate, key)


def test_garbage_is_no_ca() -> None:
    with pytest.raises(ConfigInvalid):
        pki.load_ca(b"garbage", CA.key_pem)


def test_the_verifiers_keys_survive_their_file() -> None:
    keys = pki.make_verifier_keys()
    again = pki.decode_verifier_keys(pki.encode_verifier_keys(keys))
    assert [key.public for key in again] == [key.public for key in keys]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80", b"\x81\x82\x32\x41\x00"])
def test_a_bad_key_file_names_the_remedy(data: bytes) -> None:
    with pytest.raises(ConfigInvalid, match="authority.verifier_key"):
        pki.decode_verifier_keys(data)


def test_keys_in_another_order_are_refused() -> None:
    one, two = pki.make_verifier_keys()
    with pytest.raises(ConfigInvalid, match="order"):
        pki.decode_verifier_keys(pki.encode_verifier_keys([two, one]))
