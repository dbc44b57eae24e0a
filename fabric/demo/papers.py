"""Certificates and keys of the demo: the platform's, and those of its intruders."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fabric.attest import cose
from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.pki import (
    Ca,
    encode_verifier_keys,
    issue_platform,
    issue_svid,
    load_ca,
    make_ca,
    make_verifier_keys,
)
from fabric.demo.intruder import Papers
from fabric.demo.layout import TRUST_DOMAIN, Layout
from fabric.model.names import HostId
from fabric.seal import envelope
from fabric.seal.suites import suite_of

_DAYS = 7
_NAMES = ["localhost", "127.0.0.1"]


def create_papers(layout: Layout) -> list[tuple[int, bytes]]:
    """Write CAs, platform certificates and the verifier's keys; its public keys."""
    layout.pki.mkdir()
    platform, svid = make_ca("fabric demo platform"), make_ca("fabric demo verifier")
    for name, ca in (("platform-ca", platform), ("svid-ca", svid)):
        (layout.pki / f"{name}.pem").write_bytes(ca.cert_pem)
        _write_secret(layout.pki / f"{name}.key", ca.key_pem)
    layout.ca.write_bytes(platform.cert_pem + svid.cert_pem)
    for name in ("broker", "gateway", "verifier", "admin"):
        certificate, key = issue_platform(platform, name, hosts=_NAMES, days=_DAYS)
        _write(layout, name, certificate, key)
    both = (layout.pki / "broker.key").read_bytes() + (layout.pki / "broker.pem").read_bytes()
    _write_secret(layout.pki / "broker-both.pem", both)
    keys = make_verifier_keys()
    _write_secret(layout.pki / "verifier.keys", encode_verifier_keys(keys))
    return [(int(key.public.alg), key.public.data) for key in keys]


def _write(layout: Layout, name: str, certificate: bytes, key: bytes) -> Papers:
    papers = Papers(
        certificate=layout.pki / f"{name}.pem", key=layout.pki / f"{name}.key", ca=layout.ca
    )
    papers.certificate.write_bytes(certificate)
    _write_secret(papers.key, key)
    return papers


def _write_secret(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _svid_ca(layout: Layout) -> Ca:
    return load_ca(
        (layout.pki / "svid-ca.pem").read_bytes(), (layout.pki / "svid-ca.key").read_bytes()
    )


def _svid(layout: Layout, host: HostId, name: str) -> Papers:
    key = SigningKey.generate(Alg.ESP256, Use.TLS)
    end = datetime.now(UTC) + timedelta(hours=1)
    certificate = issue_svid(_svid_ca(layout), host, TRUST_DOMAIN, key.public.data, end)
    return _write(layout, name, certificate, _pem(key))


def _pem(key: SigningKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_der_private_key,
    )

    private = load_der_private_key(key.private_bytes(), None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A host with a certificate that never attested."""

    host: HostId
    papers: Papers


def stranger(layout: Layout) -> Stranger:
    """Host D of agency G01: somebody got it a certificate, but it never attested."""
    host = HostId.parse("G01/registry/host-d")
    return Stranger(host=host, papers=_svid(layout, host, "stranger"))


def intruders_papers(layout: Layout) -> Papers:
    """A certificate whose CN says `gateway`, issued by the verifier's CA to another agency."""
    return _svid(layout, HostId.parse("G03/statistics/gateway"), "intruder")


def strangers_envelope(genuine: bytes, host: HostId) -> bytes:
    """A well-formed envelope that `host` signed with keys nobody has attested."""
    parsed = envelope.parse(genuine)
    header = replace(
        parsed.header,
        sender=host.spiffe(TRUST_DOMAIN),
        result_id=os.urandom(16),
        sealed_at=datetime.now(UTC).replace(microsecond=0),
    )
    keys = [SigningKey.generate(alg) for alg in suite_of(header.suite).signatures]
    return cose.sign(envelope.KIND, envelope.protect(header), parsed.payload, keys)
