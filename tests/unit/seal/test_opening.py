"""Opening gives the block back, or one error whatever the cause."""

import pytest

from fabric.model.block import Block
from fabric.model.change import Op, Run, Sequence
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import QUICK_BYTES_MAX
from fabric.model.schema import RowSchema
from fabric.seal.opening import open_, open_quickly
from fabric.seal.secret import EpochSecret
from tests.fakes.sealing import NOTES, STREAM, Party, block, fixed


@pytest.mark.parametrize("suite", ["classic", "hybrid", "hybrid-tpm", "hybrid-top"])
@pytest.mark.parametrize("coding", ["zstd", "none"])
@pytest.mark.parametrize("padding", [True, False])
def test_opening_undoes_sealing(suite: str, coding: str, padding: bool) -> None:
    party = Party.make(suite=suite)
    stamp = party.stamp(coding=coding, padding=padding)
    sealed = party.seal(block(), party.start(party.draft()), stamp=stamp)
    assert open_(party.verify(sealed.data), party.secret(), NOTES) == block()


def test_every_operation_comes_back() -> None:
    runs = (
        Run(op=Op.SNAPSHOT_BEGIN, position=9, ordinal=1, commit_us=0, rows=[]),
        Run(op=Op.UPSERT, position=9, ordinal=2, commit_us=1, rows=[{"id": 1, "text": "a"}]),
        Run(op=Op.DELETE, position=10, ordinal=1, commit_us=2, rows=[{"id": 1}, {"id": 2}]),
        Run(
            op=Op.UPSERT,
            position=10,
            ordinal=3,
            commit_us=2,
            rows=[{"id": 3, "text": ""}],
            absent=("text",),
        ),
        Run(op=Op.TRUNCATE, position=11, ordinal=1, commit_us=3, rows=[]),
        Run(op=Op.SNAPSHOT_END, position=11, ordinal=2, commit_us=3, rows=[]),
    )
    whole = Block(stream=STREAM, after=Sequence(1, 8, 0), upto=Sequence(1, 12, 0), runs=runs)
    party = Party.make()
    sealed = party.seal(whole, party.start(party.draft()))
    assert open_(party.verify(sealed.data), party.secret(), NOTES) == whole


def test_another_secret_or_schema_does_not_open_and_says_one_thing() -> None:
    """MUST-5.11."""
    party = Party.make()
    verified = party.verify(party.seal(block(), party.start(party.draft())).data)
    other_schema = RowSchema.parse(
        '{"type":"record","name":"N","fields":[{"name":"id","type":"long"}]}', ("id",)
    )
    said = set()
    for secret, schema in (
        (EpochSecret(fixed("other")), NOTES),
        (party.secret(), other_schema),
    ):
        with pytest.raises(PeerError) as caught:
            open_(verified, secret, schema)
        assert caught.value.reason is Reason.OPEN_FAILED
        said.add(str(caught.value))
    assert said == {"open_failed: block does not open"}


@pytest.mark.parametrize("coding", ["zstd", "none"])
def test_what_is_short_is_opened_quickly_and_what_expands_is_left_alone(coding: str) -> None:
    party = Party.make()
    start, stamp = party.start(party.draft()), party.stamp(coding=coding)
    short = party.verify(party.seal(block(), start, stamp=stamp).data)
    assert open_quickly(short, party.secret(), NOTES) == block()
    rows = [{"id": 1, "text": "a" * QUICK_BYTES_MAX}]
    run = Run(op=Op.UPSERT, position=9, ordinal=1, commit_us=0, rows=rows)
    whole = Block(stream=STREAM, after=Sequence(1, 8, 0), upto=Sequence(1, 9, 1), runs=(run,))
    large = party.verify(party.seal(whole, start, stamp=stamp).data)
    assert open_quickly(large, party.secret(), NOTES) is None
    assert open_(large, party.secret(), NOTES) == whole


def test_what_does_not_open_is_no_quick_verdict() -> None:
    party = Party.make()
    verified = party.verify(party.seal(block(), party.start(party.draft())).data)
    assert open_quickly(verified, EpochSecret(fixed("other")), NOTES) is None
