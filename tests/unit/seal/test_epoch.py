"""Epoch starts: made, read, verified, and nothing in between trusted."""

import time
from dataclasses import fields, replace

import pytest

from fabric.attest.keys import PublicKey
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError
from fabric.model.label import Label
from fabric.model.limits import EPOCH_HEADS_MAX
from fabric.model.names import HostId, Origin
from fabric.seal import record
from fabric.seal.epoch import (
    EpochDraft,
    Head,
    VerifiedStart,
    parse_start,
    sign_start,
    start_epoch,
    start_key,
    verify_start,
    wrap_start,
)
from fabric.seal.record import unwrap_one
from tests.fakes.sealing import ORIGIN, TRUST_DOMAIN, Party, fixed
from tests.support.cost import wraps_cpu_s

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


def hosts_of(key: PublicKey, count: int) -> list[tuple[HostId, PublicKey]]:
    return [(HostId("G02", "health", f"h{n}"), key) for n in range(count)]


def test_start_for_many_is_written_in_several_records_of_one_manifest() -> None:
    """MUST-6.3, MUST-6.8: readers meet these once an epoch; they cost milliseconds."""
    hosts = [(A.host, A.key.public), *hosts_of(B.key.public, 1_300)]
    made = start_epoch(A.draft(), A.secret(), hosts, signers=A.signers)
    began = time.process_time()
    parts = [verify_start(parse_start(value), A.result, TRUST_DOMAIN) for value in made.values]
    assert time.process_time() - began < 1.0
    assert [len(part.wraps) for part in parts] == [600, 600, 101]
    assert {part.hash for part in parts} == {made.hash}
    served = {host: pair for part in parts for host, pair in part.wraps.items()}
    assert {*served} == {host for host, _ in hosts}
    last = HostId("G02", "health", "h999")
    assert unwrap_one(made.start.terms, served, last, [B.key]) == A.secret()


def test_opening_an_epoch_for_a_thousand_costs_less_than_thrice_its_wraps() -> None:
    """Processor time, not time on the wall: the machine may be busy."""
    a, b = Party.make(suite="hybrid"), Party.make("G02/health/b1", "hybrid")
    hosts = [(a.host, a.key.public), *hosts_of(b.key.public, 999)]
    costs, least = [], []
    for _ in range(3):
        least.append(wraps_cpu_s(1_000))
        began = time.process_time()
        made = start_epoch(a.draft(), a.secret(), hosts, signers=a.signers)
        costs.append(time.process_time() - began)
    assert min(costs) < 3 * min(least), (costs, least)
    assert len(made.values) == 2


def test_wraps_made_ahead_serve_any_heads_but_no_other_epoch() -> None:
    draft = A.draft()
    wrapped = wrap_start(draft, A.secret(), [(A.host, A.key.public)])
    made = sign_start(replace(draft, heads=(head(0),)), wrapped, signers=A.signers)
    assert parse_start(made.value).start.heads == (head(0),)
    for change in ({"number": 2}, {"policy_version": 8}, {"label": Label.parse("secret")}):
        with pytest.raises(UsageError):
            sign_start(replace(draft, **change), wrapped, signers=A.signers)  # type: ignore[arg-type]


def test_start_signed_for_other_wraps_is_refused() -> None:
    """MUST-6.8."""
    one, two = A.start(A.draft(), (B,)), A.start(A.draft(), (B,))
    signed = canonical.decode(one.value)[0]  # type: ignore[index,call-overload]
    wraps = canonical.decode(two.value)[2]  # type: ignore[index,call-overload]
    mixed = parse_start(canonical.encode([signed, 0, wraps]))
    with pytest.raises(PeerError) as caught:
        verify_start(mixed, A.result, TRUST_DOMAIN)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_hash_of_a_start_is_its_manifests() -> None:
    made = A.start(A.draft())
    assert parse_start(made.value).hash == made.hash == record.read("epoch-start", made.value).hash
    assert replace(made.start, id=bytes(32)).terms.epoch_id == bytes(32)
