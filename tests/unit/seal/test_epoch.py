"""Epoch starts: made, read, verified, and nothing in between trusted."""

import time
from dataclasses import fields, replace

import pytest

from fabric.attest.keys import PublicKey
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError
from fabric.model.limits import EPOCH_HEADS_MAX
from fabric.model.names import HostId, Origin
from fabric.seal import record
from fabric.seal.epoch import (
    EpochDraft,
    Head,
    VerifiedStart,
    parse_start,
    start_epoch,
    start_key,
    verify_start,
)
from tests.fakes.sealing import ORIGIN, TRUST_DOMAIN, Party, fixed

A, B = Party.make(), Party.make("G02/health/b1")


def head(partition: int, origin: Origin = ORIGIN) -> Head:
    return Head(
        origin=origin, partition=partition, epoch=fixed("e"), counter=partition, hash=fixed("h")
    )


@pytest.mark.parametrize("suite", ["classic", "hybrid", "hybrid-tpm", "hybrid-top"])
def test_start_says_what_its_draft_said(suite: str) -> None:
    a, b = Party.make(suite=suite), Party.make("G02/health/b1", suite)
    draft = a.draft(4, heads=(head(0), head(1)), chain_reset=True, history="from_join")
    start = a.verified_start(draft, (b,)).start
    for field in fields(EpochDraft):
        assert getattr(start, field.name) == getattr(draft, field.name), field.name
    assert [recipient.host for recipient in start.recipients] == [a.host, b.host]


def test_heads_are_written_in_order_and_found_by_stream() -> None:
    """MUST-6.6."""
    other = Origin.parse("G01/registry/aux")
    start = A.verified_start(A.draft(heads=(head(1), head(0), head(0, other)))).start
    assert start.heads == (head(0, other), head(0), head(1))
    assert start.head_of(ORIGIN, 1) == head(1)
    assert start.head_of(ORIGIN, 2) is None
    assert start.head_of(other, 1) is None


def test_record_key_begins_with_the_signers_identity() -> None:
    assert start_key(A.draft(4)) == b"G01/registry/a1/start/4"


def test_sender_that_does_not_grant_to_itself_is_our_bug() -> None:
    """MUST-6.9."""
    with pytest.raises(UsageError):
        start_epoch(A.draft(), A.secret(), [(B.host, B.key.public)], signers=A.signers)


def test_start_of_an_unknown_suite_is_denied() -> None:
    """MUST-1.1."""
    with pytest.raises(DeniedError):
        A.start(A.draft(suite="rot13"))


def test_start_of_another_suites_keys_is_our_bug() -> None:
    with pytest.raises(UsageError):
        A.start(A.draft(suite="hybrid"))


def test_too_many_heads_are_malformed() -> None:
    """MUST-6.5, with the limit of 10.6."""
    made = A.start(A.draft(heads=tuple(head(n) for n in range(EPOCH_HEADS_MAX))))
    assert len(parse_start(made.value).start.heads) == EPOCH_HEADS_MAX
    made = A.start(A.draft(heads=tuple(head(n) for n in range(EPOCH_HEADS_MAX + 1))))
    with pytest.raises(Malformed):
        parse_start(made.value)


def test_start_of_another_host_or_domain_is_refused() -> None:
    """MUST-6.10."""
    opened = parse_start(A.start(A.draft()).value)
    for result, domain in ((B.result, TRUST_DOMAIN), (A.result, "other.example")):
        with pytest.raises(PeerError) as caught:
            verify_start(opened, result, domain)
        assert caught.value.reason is Reason.IDENTITY_MISMATCH


def test_verified_start_cannot_be_made_by_hand() -> None:
    start = A.verified_start(A.draft())
    with pytest.raises(UsageError):
        VerifiedStart(
            start=start.start, hash=start.hash, result=A.result, wraps=start.wraps, proof=None
        )


def test_full_record_is_read_and_verified_fast() -> None:
    """A reader meets one of these per epoch; 600 recipients cost milliseconds."""
    hosts: list[tuple[HostId, PublicKey]] = [(A.host, A.key.public)]
    hosts += [(HostId("G02", "health", f"h{n}"), B.key.public) for n in range(599)]
    value = start_epoch(A.draft(), A.secret(), hosts, signers=A.signers).value
    began = time.perf_counter()
    verified = verify_start(parse_start(value), A.result, TRUST_DOMAIN)
    assert time.perf_counter() - began < 1.0
    assert len(verified.wraps) == 600


def test_start_signed_for_other_wraps_is_refused() -> None:
    """MUST-6.8."""
    one, two = A.start(A.draft(), (B,)), A.start(A.draft(), (B,))
    signed = canonical.decode(one.value)[0]  # type: ignore[index,call-overload]
    wraps = canonical.decode(two.value)[1]  # type: ignore[index,call-overload]
    mixed = parse_start(canonical.encode([signed, wraps]))
    with pytest.raises(PeerError) as caught:
        verify_start(mixed, A.result, TRUST_DOMAIN)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_hash_of_a_start_is_its_manifests() -> None:
    made = A.start(A.draft())
    assert parse_start(made.value).hash == made.hash == record.read("epoch-start", made.value).hash
    assert replace(made.start, id=bytes(32)).terms.epoch_id == bytes(32)
