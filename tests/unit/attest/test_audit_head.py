"""Signed heads: who may vouch for which log."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fabric.attest.audit_head import (
    Head,
    head_key,
    head_record,
    parse_head,
    verify_head,
)
from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.pki import issue_platform, issue_svid, make_ca
from fabric.model.errors import DeniedError, FabricError, Malformed, PeerError, Reason
from fabric.model.names import HostId
from fabric.policy.types import Trust
from tests.fakes.gateway import World
from tests.fakes.receipts import attest_hybrid, head_of
from tests.fakes.sealing import TRUST_DOMAIN, fixed


@pytest.fixture
def world() -> World:
    return World()


class Gateway:
    """A gateway's certificate and key, and the trust that knows its CA."""

    def __init__(self, world: World, name: str = "gateway") -> None:
        self.ca = ca = make_ca("platform")
        certificate, key = issue_platform(ca, name, hosts=["localhost"], days=1)
        leaf = x509.load_pem_x509_certificate(certificate)
        self.der = leaf.public_bytes(Encoding.DER)
        self.at = leaf.not_valid_before_utc + timedelta(minutes=1)
        self.signer = SigningKey(Alg.ESP256, load_pem_private_key(key, None), Use.TLS)
        trust = world.verifier.trust
        self.trust = Trust(
            trust_domain=trust.trust_domain,
            verifier_name=trust.verifier_name,
            verifier_keys=trust.verifier_keys,
            ca_pem=make_ca("another").cert_pem + ca.cert_pem,
            ek_ca_pem=b"",
        )

    def head(self, world: World, **changes: object) -> Head:
        return head_of("gateway", world, **{"at": self.at, "certificate": self.der, **changes})


def refused(head: Head, signers: list[SigningKey], trust: Trust, world: World) -> Reason:
    opened = parse_head(*head_record(head, signers))
    with pytest.raises(FabricError) as caught:
        verify_head(opened, trust, world.members.result)
    return caught.value.reason


def test_a_host_vouches_with_the_keys_of_its_result(world: World) -> None:
    """MUST-12.8."""
    result, signers = attest_hybrid(world)
    head = head_of("G02/health/b1", world, result_id=result.id)
    opened = parse_head(*head_record(head, signers))
    assert verify_head(opened, world.policy.trust, world.members.result) == head


def test_every_signing_key_of_the_result_vouches_whatever_its_suite(world: World) -> None:
    """MUST-12.8."""
    algs = (Alg.ESP384, Alg.ML_DSA_87, Alg.ESP256)
    result, signers = attest_hybrid(world, algs=algs)
    head = head_of("G02/health/b1", world, result_id=result.id)
    opened = parse_head(*head_record(head, signers))
    assert verify_head(opened, world.policy.trust, world.members.result) == head
    trust = world.policy.trust
    assert refused(head, signers[:2], trust, world) is Reason.BAD_SIGNATURE


def test_a_host_vouches_for_no_other_and_for_no_other_time(world: World) -> None:
    """MUST-12.8."""
    result, signers = attest_hybrid(world)
    trust = world.policy.trust
    other = head_of("G01/registry/a1", world, result_id=result.id)
    late = head_of("G02/health/b1", world, result_id=result.id, at=result.expires)
    early = head_of(
        "G02/health/b1", world, result_id=result.id, at=result.issued - timedelta(minutes=1)
    )
    unknown = head_of("G02/health/b1", world, result_id=bytes(16))
    assert refused(other, signers, trust, world) is Reason.IDENTITY_MISMATCH
    assert refused(late, signers, trust, world) is Reason.IDENTITY_MISMATCH
    assert refused(early, signers, trust, world) is Reason.IDENTITY_MISMATCH
    assert refused(unknown, signers, trust, world) is Reason.RESULT_UNKNOWN
    half = head_of("G02/health/b1", world, result_id=result.id)
    assert refused(half, signers[:1], trust, world) is Reason.BAD_SIGNATURE


def test_the_authority_vouches_with_the_verifiers_keys(world: World) -> None:
    """MUST-12.8."""
    head = head_of("verifier", world)
    opened = parse_head(*head_record(head, world.verifier.signers))
    assert verify_head(opened, world.policy.trust, world.members.result) == head
    strangers = list(World().verifier.signers)
    assert refused(head, strangers, world.policy.trust, world) is Reason.BAD_SIGNATURE


def test_a_gateway_vouches_with_its_platform_certificate(world: World) -> None:
    """MUST-12.8."""
    gateway = Gateway(world)
    head = gateway.head(world)
    opened = parse_head(*head_record(head, [gateway.signer]))
    assert verify_head(opened, gateway.trust, world.members.result) == head


def test_a_certificate_that_is_no_gateways_vouches_for_nothing(world: World) -> None:
    """MUST-12.8."""
    gateway = Gateway(world)
    wrong = Reason.IDENTITY_MISMATCH
    for name in ("broker", "admin", "Gateway"):
        other = Gateway(world, name)
        assert refused(other.head(world), [other.signer], other.trust, world) is wrong
    stranger = Gateway(world)
    assert refused(gateway.head(world), [gateway.signer], stranger.trust, world) is wrong
    after = gateway.at + timedelta(days=2)
    assert refused(gateway.head(world, at=after), [gateway.signer], gateway.trust, world) is wrong
    thief = SigningKey.generate(Alg.ESP256, Use.TLS)
    assert refused(gateway.head(world), [thief], gateway.trust, world) is Reason.BAD_SIGNATURE
    none = gateway.head(world, certificate=b"not a certificate")
    assert refused(none, [gateway.signer], gateway.trust, world) is Reason.BAD_SIGNATURE


def test_a_hosts_svid_is_no_gateways_certificate(world: World) -> None:
    gateway, key = Gateway(world), SigningKey.generate(Alg.ESP256, Use.TLS)
    host, end = HostId.parse("G01/a/gateway"), gateway.at + timedelta(days=1)
    pem = issue_svid(gateway.ca, host, TRUST_DOMAIN, key.public.data, end)
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    head = gateway.head(world, certificate=der)
    assert refused(head, [key], gateway.trust, world) is Reason.IDENTITY_MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"component": "G01/registry"},
        {"component": "admin"},
        {"component": "verifier", "result_id": bytes(16)},
        {"component": "verifier", "certificate": b"x"},
        {"component": "gateway"},
        {"component": "gateway", "certificate": bytes(5_000)},
        {"component": "G01/registry/a1"},
    ],
)
def test_a_head_that_breaks_its_rules_is_not_written(
    world: World, changes: dict[str, object]
) -> None:
    """MUST-12.7."""
    with pytest.raises(Malformed):
        head_record(replace(head_of("verifier", world), **changes), world.verifier.signers)


def test_a_head_stands_under_its_own_key(world: World) -> None:
    """MUST-12.7."""
    head = head_of("verifier", world)
    key, value = head_record(head, world.verifier.signers)
    assert key == head_key(head) == b"verifier/audit/" + fixed("log", 16).hex().encode()
    for other in (b"", b"gateway/audit/x", key + b"x"):
        with pytest.raises(Malformed):
            parse_head(other, value)


def test_every_changed_byte_is_refused(world: World) -> None:
    key, value = head_record(head_of("verifier", world), world.verifier.signers[:1])
    trust = world.policy.trust
    for at in range(0, len(value), 5):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises((PeerError, DeniedError)):
            verify_head(parse_head(key, changed), trust, world.members.result)
