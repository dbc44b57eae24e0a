"""The shape that starts and grants share: recipients, wraps, digests, limits."""

from dataclasses import replace

import pytest

from fabric.attest.keys import Kem
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError
from fabric.model.limits import (
    CONTROL_RECORD_BYTES_MAX,
    EPOCH_HEADS_MAX,
    RECIPIENTS_MAX,
    WRAPS_PER_RECORD_MAX,
)
from fabric.model.names import HostId
from fabric.seal import record
from fabric.seal.hpke import WRAP_BYTES, HpkeKey
from fabric.seal.secret import EpochSecret
from tests.fakes.sealing import Party, fixed

A, B = Party.make(), Party.make("G02/health/b1")
START = A.start(A.draft(), (B,))
TERMS = START.start.terms


def test_wraps_stand_in_the_order_of_host_names() -> None:
    """MUST-6.7."""
    pairs = [(party.host, party.key.public) for party in (B, A)]
    named, wraps = record.wrap_all(TERMS, A.secret(), pairs)
    assert [recipient.host for recipient in named] == [A.host, B.host]
    assert [*record.check_wraps(named, 0, wraps)] == [A.host, B.host]
    assert [*record.check_wraps(named, 1, wraps[1:])] == [B.host]


@pytest.mark.parametrize("case", ["nobody", "twice", "other kind"])
def test_recipients_that_make_no_sense_are_our_bug(case: str) -> None:
    pair = (A.host, A.key.public)
    hybrid = (B.host, HpkeKey.generate(Kem.MLKEM768_X25519).public)
    pairs = {"nobody": [], "twice": [pair, pair], "other kind": [pair, hybrid]}[case]
    with pytest.raises(UsageError):
        record.wrap_all(TERMS, A.secret(), pairs)


def test_more_recipients_than_a_manifest_names_are_refused_before_anything_is_wrapped() -> None:
    """MUST-6.3, MUST-10.1."""
    pairs = [(HostId("G", "s", f"h{n}"), A.key.public) for n in range(RECIPIENTS_MAX + 1)]
    with pytest.raises(DeniedError) as caught:
        record.wrap_all(TERMS, A.secret(), pairs)
    assert caught.value.reason is Reason.TOO_LARGE


def test_wraps_fit_beside_the_manifest_of_most_recipients_and_heads_with_the_longest_names() -> (
    None
):
    longest = len(f"{'A' * 35}/{'s' * 63}/{'h' * 63}")
    recipients = RECIPIENTS_MAX * (longest + 3 + 2 * 34 + 1)
    heads = EPOCH_HEADS_MAX * (longest + 3 + 2 * 34 + 11)
    room = CONTROL_RECORD_BYTES_MAX - recipients - heads
    assert room > 100 * WRAP_BYTES[Kem.MLKEM768_X25519]


def test_wraps_are_cut_into_records_by_bytes_and_by_count() -> None:
    """MUST-6.3."""
    values, _ = record.write("grant", {0: 1}, [bytes(200_000)] * 9, A.signers)
    assert [record.read("grant", value).first for value in values] == [0, 4, 8]
    assert all(len(value) <= CONTROL_RECORD_BYTES_MAX for value in values)
    values, _ = record.write("grant", {0: 1}, [b"w"] * (WRAPS_PER_RECORD_MAX + 1), A.signers)
    assert [len(record.read("grant", value).wraps) for value in values] == [600, 1]


def test_record_longer_than_the_limit_is_neither_written_nor_read() -> None:
    """MUST-6.3, MUST-10.1."""
    with pytest.raises(DeniedError):
        record.write("grant", {0: 1}, [bytes(CONTROL_RECORD_BYTES_MAX)], A.signers)
    with pytest.raises(Malformed, match="too long"):
        record.read("grant", bytes(CONTROL_RECORD_BYTES_MAX + 1))


def test_record_says_which_kind_it_is() -> None:
    """MUST-6.4."""
    assert record.kind_of(START.value) == "epoch-start"
    with pytest.raises(Malformed):
        record.read("grant", START.value)


def test_hash_covers_the_manifest_but_neither_signatures_nor_wraps() -> None:
    """MUST-6.14."""
    signed, _, wraps = canonical.decode(START.value)  # type: ignore[misc]
    without = canonical.encode([signed, 0, wraps[:1]])
    assert record.read("epoch-start", without).hash == START.hash
    other = A.start(A.draft(revocation_number=9), (B,))
    assert other.hash != START.hash


@pytest.mark.parametrize(("first", "wraps"), [(0, (b"x", b"y")), (0, (b"",)), (1, (b"x",))])
def test_wraps_that_were_not_signed_are_refused(first: int, wraps: tuple[bytes, ...]) -> None:
    """MUST-6.8."""
    named, _ = record.wrap_all(TERMS, A.secret(), [(A.host, A.key.public)])
    with pytest.raises(PeerError) as caught:
        record.check_wraps(named, first, wraps)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_wrap_of_a_secret_of_another_length_does_not_open() -> None:
    """MUST-6.11."""
    from fabric.seal.hpke import wrap

    info = TERMS.info(A.host, A.key.public.thumbprint)
    wraps = {A.host: (A.key.public.thumbprint, wrap(A.key.public, bytes(31), info))}
    with pytest.raises(PeerError) as caught:
        record.unwrap_one(TERMS, wraps, A.host, [A.key])
    assert caught.value.reason is Reason.OPEN_FAILED


def test_wrap_of_another_secret_than_the_epochs_does_not_open() -> None:
    """MUST-6.1: a granter cannot hand out two secrets under one id."""
    named, wraps = record.wrap_all(TERMS, EpochSecret(fixed("other")), [(A.host, A.key.public)])
    entry = {A.host: (named[0].thumbprint, wraps[0])}
    with pytest.raises(PeerError) as caught:
        record.unwrap_one(TERMS, entry, A.host, [A.key])
    assert caught.value.reason is Reason.OPEN_FAILED


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "hybrid"},
        {"epoch_id": bytes(32)},
        {"sender": "spiffe://fabric.example/G09/x/y"},
        {"granter": "spiffe://fabric.example/G09/x/y"},
        {"trust_domain": "other.example"},
        {"policy_version": 8},
    ],
)
def test_info_of_a_wrap_depends_on_every_term(change: dict[str, object]) -> None:
    """MUST-6.11."""
    other = replace(TERMS, **change)  # type: ignore[arg-type]  # names are real
    assert other.info(A.host, bytes(32)) != TERMS.info(A.host, bytes(32))
    assert TERMS.info(B.host, bytes(32)) != TERMS.info(A.host, bytes(32))
    assert TERMS.info(A.host, fixed("t")) != TERMS.info(A.host, bytes(32))
