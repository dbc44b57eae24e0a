"""Counts are held against their limits before a decoder makes anything of the bytes."""

import tracemalloc

import pytest

from fabric.model.block import Block, pack, unpack
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.model.errors import Malformed
from fabric.model.limits import BLOCK_CHANGES_MAX, BLOCK_NULLS_MAX, DECOMPRESSED_BYTES_MAX
from fabric.model.skim import check_counts, check_steps
from tests.fuzz.model_targets import STREAM, UPTO, WIDE, blocks, rows

RUN = bytes.fromhex("000202000200")
"""An upsert of one change at position 1 with nothing absent."""


def count(number: int) -> bytes:
    """A count as Avro writes it."""
    rest, out = number << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def check(data: bytes, nullable: int = 1) -> None:
    check_counts(data, columns=8, nullable=nullable)


def refused(data: bytes, nullable: int = 1) -> str:
    with pytest.raises(Malformed) as caught:
        check(data, nullable)
    return str(caught.value.args[0])


def test_what_pack_writes_is_taken() -> None:
    for data in blocks():
        check(data)


def test_a_full_block_with_nulls_and_absent_columns_is_taken() -> None:
    some = [{**rows()[0], "flag": None if i % 3 else True} for i in range(BLOCK_CHANGES_MAX)]
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=1, rows=some, absent=("map", "list"))
    block = Block(stream=STREAM, after=ZERO, upto=UPTO, runs=(run,))
    data = pack(block, WIDE)
    check(data)
    assert unpack(data, WIDE, stream=STREAM, after=ZERO, upto=UPTO).count == BLOCK_CHANGES_MAX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        count(1),
        count(1) + RUN[:-2],
        count(1) + RUN,
        count(1) + RUN + b"\0",
        count(1) + RUN + b"\0" + count(1),
        count(1) + RUN + b"\0" + count(1) + count(2) + b"\0",
        count(1) + RUN[:-1] + count(1) + count(200) + b"short" + b"\0",
    ],
)
def test_what_ends_early_is_malformed(data: bytes) -> None:
    refused(data)


def test_more_runs_than_changes_are_malformed_in_one_block_and_in_several() -> None:
    many = BLOCK_CHANGES_MAX + 1
    assert "too large" in refused(count(many) + RUN * many + b"\0\0")
    assert "one piece" in refused(count(1) + RUN + count(1) + RUN + b"\0\0")


def test_more_nulls_than_columns_or_rows_are_malformed() -> None:
    assert "too large" in refused(b"\0" + count(2) + b"\0\0\0")
    many = BLOCK_CHANGES_MAX + 1
    assert "too large" in refused(b"\0" + count(1) + count(many) + bytes(many) + b"\0\0")
    assert "one piece" in refused(b"\0" + count(1) + b"\0" + count(1) + b"\0\0")
    assert "one piece" in refused(b"\0" + count(1) + count(1) + b"\0" + count(1) + b"\0\0\0")


def test_more_nulls_in_all_columns_than_a_block_may_have_are_malformed() -> None:
    """MUST-4.16."""
    most, each = BLOCK_NULLS_MAX, BLOCK_CHANGES_MAX
    column = count(each) + bytes(each) + b"\0"
    full = most // each
    check_counts(b"\0" + count(full) + column * full + b"\0", columns=full, nullable=full)
    more = b"\0" + count(full + 1) + column * full + count(1) + b"\0\0\0"
    with pytest.raises(Malformed, match="nulls"):
        check_counts(more, columns=full + 1, nullable=full + 1)


@pytest.mark.parametrize(
    "data",
    [
        count(0),
        count(2) + b"\2",
        count(1) + b"\2\0\0",
        count(1) + b"\2" + count(1) + b"\2\0",
        count(BLOCK_CHANGES_MAX + 1) + b"\2" * (BLOCK_CHANGES_MAX + 1) + b"\0",
        count(DECOMPRESSED_BYTES_MAX) + bytes(DECOMPRESSED_BYTES_MAX),
    ],
)
def test_what_follows_the_columns_is_one_array_of_a_blocks_size(data: bytes) -> None:
    check_steps(count(2) + b"\2\4\0")
    with pytest.raises(Malformed):
        check_steps(data)


def test_negative_counts_are_malformed() -> None:
    """Avro's other form: a negative count, then the size in bytes."""
    assert "negative" in refused(b"\x01\x0c" + RUN + b"\0\0")


@pytest.mark.parametrize(
    "data",
    [
        count(DECOMPRESSED_BYTES_MAX // 6) + RUN * (DECOMPRESSED_BYTES_MAX // 6),
        (count(1) + RUN) * (DECOMPRESSED_BYTES_MAX // 7),
        b"\0" + count(DECOMPRESSED_BYTES_MAX) + bytes(DECOMPRESSED_BYTES_MAX),
        b"\0" + (count(1) + b"\0") * (DECOMPRESSED_BYTES_MAX // 2),
    ],
    ids=["runs", "blocks of runs", "nulls", "blocks of nulls"],
)
def test_sixteen_megabytes_of_nothing_cost_nothing(data: bytes) -> None:
    """Each of these took a decoder twenty seconds and a gigabyte."""
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            unpack(data, WIDE, stream=STREAM, after=Sequence(1, 0, 0), upto=UPTO)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
