"""fabric.cli.certificates: what a handshake would refuse is told before."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.pki import Ca, issue_platform, issue_svid, make_ca
from fabric.cli.certificates import look, look_at_pages
from fabric.model.errors import ConfigInvalid
from fabric.model.names import HostId


@pytest.fixture(scope="module")
def ca() -> Ca:
    return make_ca("platform")


class Files:
    """A part's files, well at first."""

    def __init__(self, folder: Path, ca: Ca, *, days: int = 9, cn: str = "gateway") -> None:
        self.certificate, self.key, self.ca = folder / "a.pem", folder / "a.key", folder / "ca.pem"
        certificate, key = issue_platform(ca, cn, hosts=["localhost", "127.0.0.1"], days=days)
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)
        self.ca.write_bytes(ca.cert_pem)

    def look(self, *hosts: str) -> str:
        return look(self.certificate, self.key, self.ca, common_name="gateway", hosts=hosts)


@pytest.mark.parametrize("hosts", [(), ("localhost",), ("elsewhere.example", "127.0.0.1")])
def test_a_certificate_that_will_do_says_whose_and_how_long(
    tmp_path: Path, ca: Ca, hosts: tuple[str, ...]
) -> None:
    assert Files(tmp_path, ca).look(*hosts) == "CN=gateway,O=fabric-platform, 9 days left"
    assert Files(tmp_path, ca, days=1).look(*hosts).endswith("24 h left")


def refused(files: Files, *hosts: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        files.look(*hosts)
    return str(caught.value)


def test_another_parts_certificate_is_told(tmp_path: Path, ca: Ca) -> None:
    assert "is CN=verifier,O=fabric-platform" in refused(Files(tmp_path, ca, cn="verifier"))


def test_a_hosts_certificate_is_no_parts(tmp_path: Path, ca: Ca) -> None:
    files = Files(tmp_path, ca)
    key = SigningKey.generate(Alg.ESP256, Use.TLS)
    host, end = HostId.parse("G01/registry/gateway"), datetime.now(UTC) + timedelta(hours=1)
    svid = issue_svid(ca, host, "fabric.example", key.public.data, end)
    files.certificate.write_bytes(svid)
    assert "correct `certificate` and `key`" in refused(files)


def test_a_certificate_of_a_foreign_ca_is_told(tmp_path: Path, ca: Ca) -> None:
    files = Files(tmp_path, ca)
    files.ca.write_bytes(make_ca("another").cert_pem)
    assert "issue it under a CA in" in refused(files)
    assert "issue it under a CA in" in refused(files, "localhost")


def test_a_certificate_that_has_ended_is_told(tmp_path: Path, ca: Ca) -> None:
    # It begins half a minute ago, so that it may end now.
    assert "has ended" in refused(Files(tmp_path, ca, days=0))


def test_a_certificate_without_the_name_that_peers_use_is_told(tmp_path: Path, ca: Ca) -> None:
    said = refused(Files(tmp_path, ca), "gateway-1.example")
    assert "Hostname mismatch" in said
    assert "gateway-1.example among its names" in said


def test_a_key_of_another_certificate_is_told(tmp_path: Path, ca: Ca) -> None:
    files = Files(tmp_path, ca)
    files.key.write_bytes(issue_platform(ca, "gateway", hosts=[], days=1)[1])
    assert "correct `certificate` and `key`" in refused(files)


# The pages' server


def test_the_pages_certificate_says_for_whom_and_how_long(tmp_path: Path, ca: Ca) -> None:
    files = Files(tmp_path, ca)
    seen = look_at_pages(files.certificate, files.key, files.ca)
    assert seen == "for localhost, 127.0.0.1, 9 days left"


@pytest.mark.parametrize(
    ("hosts", "days", "words"), [(["localhost"], 0, "has ended"), ([], 9, "names no host")]
)
def test_a_pages_certificate_that_prometheus_would_refuse_is_told(
    tmp_path: Path, ca: Ca, hosts: list[str], days: int, words: str
) -> None:
    files = Files(tmp_path, ca)
    certificate, key = issue_platform(ca, "web", hosts=hosts, days=days)
    files.certificate.write_bytes(certificate)
    files.key.write_bytes(key)
    with pytest.raises(ConfigInvalid, match=words):
        look_at_pages(files.certificate, files.key, files.ca)
