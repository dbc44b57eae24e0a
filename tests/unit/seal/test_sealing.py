"""Sealing: what is refused before a signature exists, and that keys never repeat."""

from dataclasses import replace

import pytest

from fabric.model.change import Sequence
from fabric.model.errors import DeniedError, Malformed, Reason, UsageError
from fabric.model.limits import BLOCK_CHANGES_MAX, EPOCH_BLOCKS_MAX
from fabric.model.names import Topic
from fabric.seal import envelope as form
from fabric.seal.sealing import Link, SealingEpoch, prepare, seal, seal_packed
from tests.fakes.sealing import FIRST, NOTES, STREAM, Party, block

A = Party.make()
STARTED = A.start(A.draft())


def salt(data: bytes) -> bytes:
    return form.parse(data).header.salt


def test_same_block_in_another_place_has_another_salt_and_so_another_key() -> None:
    """MUST-5.8: a copied machine that repeats a counter does not repeat a key."""
    made = [
        A.seal(block(), STARTED),
        A.seal(block(), STARTED, link=Link(counter=1, previous=FIRST.previous)),
        A.seal(block(), STARTED, link=Link(counter=0, previous=bytes(31) + b"\x01")),
        A.seal(block(4), STARTED),
        A.seal(block(), STARTED, stamp=A.stamp(policy_version=8)),
    ]
    assert len({salt(sealed.data) for sealed in made}) == len(made)


def test_sealing_the_same_again_gives_the_same_envelope() -> None:
    assert A.seal(block(), STARTED).data == A.seal(block(), STARTED).data


def test_a_block_packed_ahead_seals_to_the_same_envelope() -> None:
    stamp = A.stamp()
    packed = prepare(block(), NOTES, coding=stamp.coding, padding=stamp.padding)
    sealed = seal_packed(packed, epoch=A.epoch(STARTED), link=FIRST, stamp=stamp, signers=A.signers)
    assert sealed == A.seal(block(), STARTED)
    assert "note 0" not in repr(packed)


def test_a_block_packed_for_another_level_is_not_sealed() -> None:
    packed = prepare(block(), NOTES, coding="none", padding=False)
    with pytest.raises(UsageError):
        seal_packed(
            packed, epoch=A.epoch(STARTED), link=FIRST, stamp=A.stamp(padding=True),
            signers=A.signers,
        )  # fmt: skip


def test_too_many_changes_are_not_packed() -> None:
    with pytest.raises(DeniedError) as caught:
        prepare(block(BLOCK_CHANGES_MAX + 1), NOTES, coding="none", padding=False)
    assert caught.value.reason is Reason.TOO_LARGE


def test_padding_and_coding_are_as_the_level_says() -> None:
    """MUST-4.9."""
    bare = A.seal(block(), STARTED, stamp=A.stamp(padding=False, coding="none"))
    padded = A.seal(block(), STARTED, stamp=A.stamp(padding=True, coding="none"))
    assert len(form.parse(padded.data).ciphertext) == 4096 + 16
    assert len(form.parse(bare.data).ciphertext) == 4 + bare.plaintext_bytes + 16
    assert form.parse(bare.data).header.coding == "none"


def test_block_of_another_topic_is_our_bug() -> None:
    other = replace(STREAM, topic=Topic.parse("secret.G01.other"))
    with pytest.raises(UsageError) as caught:
        A.seal(block(stream=other), STARTED)
    assert caught.value.reason is Reason.TOPIC_MISMATCH


@pytest.mark.parametrize("suite", ["classic", "hybrid", "hybrid-tpm", "hybrid-top"])
def test_signing_keys_must_be_the_suites(suite: str) -> None:
    """MUST-5.13."""
    party = Party.make(suite=suite)
    signers = () if suite == "classic" else party.signers[::-1]
    epoch = party.epoch(party.start(party.draft()))
    with pytest.raises(UsageError):
        seal(block(), NOTES, epoch=epoch, link=FIRST, stamp=party.stamp(), signers=signers)


@pytest.mark.parametrize("counter", [-1, EPOCH_BLOCKS_MAX])
def test_used_up_epoch_seals_nothing(counter: int) -> None:
    """MUST-10.1, with the limit of 10.5."""
    with pytest.raises(UsageError):
        A.seal(block(), STARTED, link=Link(counter=counter, previous=FIRST.previous))


def test_block_with_too_many_changes_is_not_sealed() -> None:
    """MUST-10.1, with the limit of 10.2."""
    with pytest.raises(DeniedError) as caught:
        A.seal(block(BLOCK_CHANGES_MAX + 1), STARTED)
    assert caught.value.reason is Reason.TOO_LARGE


def test_block_that_ends_before_it_starts_is_our_bug() -> None:
    """MUST-5.4."""
    for wrong in (replace(block(), after=Sequence(2, 0, 0)), replace(block(), after=block().upto)):
        with pytest.raises(UsageError):
            A.seal(wrong, STARTED)


def test_row_that_does_not_fit_the_schema_is_malformed_and_not_shown() -> None:
    run = replace(block().runs[0], rows=[{"id": "do not show", "text": "me"}])
    with pytest.raises(Malformed) as caught:
        A.seal(replace(block(), runs=(run,)), STARTED)
    assert "show" not in str(caught.value)


def test_epoch_of_an_unknown_suite_does_not_seal() -> None:
    """MUST-1.1."""
    start = replace(STARTED.start, suite="rot13")
    with pytest.raises(DeniedError):
        SealingEpoch.of(start, STARTED.hash, A.secret())


def test_repr_of_an_epoch_hides_its_secret() -> None:
    assert A.secret().private_bytes().hex() not in repr(A.epoch(STARTED))
    assert "EpochSecret(hidden)" in repr(A.epoch(STARTED))
