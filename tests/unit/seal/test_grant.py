"""Late recipients get the epoch's own secret, from its sender, and nobody else's."""

from dataclasses import replace

import pytest

from fabric.attest.keys import Kem
from fabric.model.errors import DeniedError, PeerError, Reason, UsageError
from fabric.seal.grant import (
    GrantDraft,
    VerifiedGrant,
    grant,
    grant_key,
    parse_grant,
    unwrap_secret,
    verify_grant,
)
from fabric.seal.hpke import HpkeKey
from tests.fakes.sealing import NOW, Party

SUITES = ["classic", "hybrid", "hybrid-tpm", "hybrid-top"]


def parties(suite: str) -> tuple[Party, Party, Party]:
    names = ("G01/registry/a1", "G02/health/b1", "G03/tax/c1")
    a, b, c = (Party.make(name, suite) for name in names)
    return a, b, c


def draft(party: Party) -> GrantDraft:
    return GrantDraft(
        granter=party.host,
        result_id=party.result.id,
        policy_version=9,
        revocation_number=4,
        granted=NOW,
    )


def granted(a: Party, *late: Party) -> bytes:
    start = a.verified_start(a.draft())
    pairs = [(party.host, party.key.public) for party in late]
    return grant(draft(a), start, a.secret(), recipients=pairs, signers=a.signers)[0]


@pytest.mark.parametrize("suite", SUITES)
def test_recipients_of_a_start_get_its_secret(suite: str) -> None:
    a, b, _ = parties(suite)
    start = a.verified_start(a.draft(), (b,))
    for party in (a, b):
        assert unwrap_secret(start, party.host, [party.key]) == a.secret()


@pytest.mark.parametrize("suite", SUITES)
def test_late_recipient_gets_the_secret_by_a_grant(suite: str) -> None:
    a, b, c = parties(suite)
    start = a.verified_start(a.draft())
    (value,) = grant(
        draft(a),
        start,
        a.secret(),
        recipients=[(b.host, b.key.public)],
        signers=a.signers,
    )
    verified = verify_grant(parse_grant(value), a.result, start)
    assert unwrap_secret(verified, b.host, [b.key]) == a.secret()
    assert (verified.grant.revocation_number, verified.grant.terms.policy_version) == (4, 9)
    assert (verified.grant.granted, verified.grant.start_hash) == (NOW, start.hash)
    with pytest.raises(DeniedError) as caught:
        unwrap_secret(verified, c.host, [c.key])
    assert caught.value.reason is Reason.GRANT_MISSING


def test_host_that_rotated_its_key_opens_with_the_old_one() -> None:
    a, b, _ = parties("classic")
    start = a.verified_start(a.draft(), (b,))
    fresh = HpkeKey.generate(Kem.X25519)
    assert unwrap_secret(start, b.host, [fresh, b.key]) == a.secret()
    with pytest.raises(DeniedError) as caught:
        unwrap_secret(start, b.host, [fresh])
    assert caught.value.reason is Reason.GRANT_MISSING


def test_key_of_another_host_opens_nothing() -> None:
    a, b, c = parties("classic")
    start = a.verified_start(a.draft(), (b,))
    with pytest.raises(DeniedError):
        unwrap_secret(start, c.host, [b.key])


def test_grant_for_another_epoch_is_refused() -> None:
    """MUST-6.12."""
    a, b, _ = parties("classic")
    other = a.verified_start(a.draft(2))
    with pytest.raises(PeerError) as caught:
        verify_grant(parse_grant(granted(a, b)), a.result, other)
    assert caught.value.reason is Reason.IDENTITY_MISMATCH


def test_grant_signed_by_another_is_refused() -> None:
    """MUST-6.10."""
    a, b, c = parties("classic")
    start = a.verified_start(a.draft())
    (forged,) = grant(
        draft(a), start, a.secret(), recipients=[(c.host, c.key.public)], signers=b.signers
    )
    opened = parse_grant(forged)
    with pytest.raises(PeerError) as caught:
        verify_grant(opened, a.result, start)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    with pytest.raises(PeerError) as caught:
        verify_grant(opened, b.result, start)
    assert caught.value.reason is Reason.IDENTITY_MISMATCH


def test_grant_by_a_custodian_needs_policys_word_for_it() -> None:
    """MUST-6.13: whether policy names the granter is for admission and readers to say."""
    a, b, c = parties("classic")
    start = a.verified_start(a.draft(), (b,))
    pairs = [(c.host, c.key.public)]
    (value,) = grant(draft(b), start, a.secret(), recipients=pairs, signers=b.signers)
    with pytest.raises(PeerError) as caught:
        verify_grant(parse_grant(value), b.result, start)
    assert caught.value.reason is Reason.IDENTITY_MISMATCH
    verified = verify_grant(parse_grant(value), b.result, start, custodian=True)
    assert unwrap_secret(verified, c.host, [c.key]) == a.secret()


def test_grant_with_wraps_of_another_is_refused() -> None:
    """MUST-6.8."""
    a, b, _ = parties("classic")
    start = a.verified_start(a.draft())
    pairs = [(b.host, b.key.public)]
    one, two = (
        parse_grant(grant(draft(a), start, a.secret(), recipients=pairs, signers=a.signers)[0])
        for _ in range(2)
    )
    opened = replace(one, wraps=two.wraps)
    with pytest.raises(PeerError) as caught:
        verify_grant(opened, a.result, start)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_verified_grant_cannot_be_made_by_hand() -> None:
    a, b, _ = parties("classic")
    opened = parse_grant(granted(a, b))
    with pytest.raises(UsageError):
        VerifiedGrant(grant=opened.grant, result=a.result, wraps={}, proof=1)


def test_keys_of_another_suite_are_our_bug() -> None:
    a, b, _ = parties("hybrid")
    start = a.verified_start(a.draft())
    with pytest.raises(UsageError):
        grant(
            draft(a),
            start,
            a.secret(),
            recipients=[(b.host, b.key.public)],
            signers=a.signers[:1],
        )


def test_record_key_begins_with_the_signers_identity() -> None:
    a, _, _ = parties("classic")
    assert grant_key(a.host, b"\x01\x02") == b"G01/registry/a1/grant/0102"
