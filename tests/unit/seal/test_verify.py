"""Only `verify` makes a verified envelope, and only for the host that signed it."""

from dataclasses import replace

import pytest

from fabric.model.errors import PeerError, Reason, UsageError
from fabric.seal import envelope as form
from fabric.seal.suites import SUITES
from fabric.seal.verify import VerifiedEnvelope, verify
from tests.fakes.sealing import TRUST_DOMAIN, Party, block

P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384 = int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16)
"""Orders of the curves."""


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_envelope_of_its_sender_is_verified(suite: str) -> None:
    """MUST-5.12, MUST-5.13."""
    party = Party.make(suite=suite)
    sealed = party.seal(block(), party.start(party.draft()))
    verified = party.verify(sealed.data)
    assert verified.envelope.hash == sealed.hash
    assert verified.result is party.result


def test_verified_envelope_cannot_be_made_by_hand() -> None:
    party = Party.make()
    envelope = form.parse(party.seal(block(), party.start(party.draft())).data)
    with pytest.raises(UsageError):
        VerifiedEnvelope(envelope=envelope, result=party.result, proof=object())


@pytest.mark.parametrize("dropped", [0, 1])
def test_hybrid_with_one_of_its_signatures_is_refused(dropped: int) -> None:
    """MUST-3.5: neither half alone is enough."""
    party = Party.make(suite="hybrid")
    envelope = form.parse(party.seal(block(), party.start(party.draft())).data)
    kept = tuple(s for place, s in enumerate(envelope.signatures) if place != dropped)
    for signatures in (kept, kept * 2, envelope.signatures[::-1]):
        with pytest.raises(PeerError) as caught:
            verify(replace(envelope, signatures=signatures), party.result, TRUST_DOMAIN)
        assert caught.value.reason is Reason.BAD_SIGNATURE


def test_result_without_the_suites_keys_verifies_nothing() -> None:
    party = Party.make()
    envelope = form.parse(party.seal(block(), party.start(party.draft())).data)
    with pytest.raises(PeerError) as caught:
        verify(envelope, replace(party.result, keys=(party.key.public,)), TRUST_DOMAIN)
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("suite", "order", "half"), [("hybrid-tpm", P256, 32), ("hybrid-top", P384, 48)]
)
def test_rewritten_elliptic_signature_makes_no_other_envelope(
    suite: str, order: int, half: int
) -> None:
    """MUST-5.14: (r, n - s) verifies too, and anyone can make it; the hash must not change."""
    party = Party.make(suite=suite)
    sealed = party.seal(block(), party.start(party.draft()))
    envelope = form.parse(sealed.data)
    (head, signature), *rest = envelope.signatures
    s = int.from_bytes(signature[half:])
    rewritten = signature[:half] + (order - s).to_bytes(half)
    assert rewritten != signature
    other = replace(envelope, signatures=((head, rewritten), *rest))
    assert verify(other, party.result, TRUST_DOMAIN).envelope.hash == sealed.hash
