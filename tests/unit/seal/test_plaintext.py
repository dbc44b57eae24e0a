"""Coding and padding: inverse, bounded, unambiguous."""

import struct

import pytest
import zstandard

from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import BLOCK_BYTES_MAX, DECOMPRESSED_BYTES_MAX
from fabric.seal.plaintext import decode, encode, padme
from tests.fakes.sealing import fixed

SIZES = [0, 1, 100, 4_091, 4_092, 4_093, 5_000, 70_000, BLOCK_BYTES_MAX]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coding", ["zstd", "none"])
@pytest.mark.parametrize("padding", [True, False])
def test_decode_undoes_encode(size: int, coding: str, padding: bool) -> None:
    plain = fixed("plain", max(size - 100, 0) if coding == "zstd" else size)
    padded, used = encode(plain, coding, padding)
    assert decode(padded, used) == plain
    assert used == coding


@pytest.mark.parametrize("size", SIZES)
def test_padded_length_is_a_padme_length_of_at_least_4_kib(size: int) -> None:
    """MUST-4.9, MUST-4.7: padding that a level asks for is there."""
    padded, _ = encode(fixed("plain", size), "none", True)
    assert len(padded) == max(4096, padme(4 + size))
    assert padme(len(padded)) == len(padded)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 1), (2, 2), (9, 10), (33, 36), (1000, 1024), (4097, 4352), (900_004, 901_120)],
)
def test_padme_lengths(size: int, expected: int) -> None:
    assert padme(size) == expected


def test_padme_never_adds_more_than_twelve_percent() -> None:
    for size in range(2, 70_000, 7):
        assert size <= padme(size) <= size * 1.12


def test_block_that_shrinks_too_much_is_not_coded_so_that_readers_take_it() -> None:
    """MUST-10.1, and the limit of 10.4."""
    padded, used = encode(bytes(500_000), "zstd", True)
    assert used == "none"
    assert decode(padded, used) == bytes(500_000)


@pytest.mark.parametrize("size", [BLOCK_BYTES_MAX + 1, DECOMPRESSED_BYTES_MAX + 1])
@pytest.mark.parametrize("coding", ["zstd", "none"])
def test_block_beyond_the_limits_is_not_sealed(size: int, coding: str) -> None:
    """MUST-10.1: a sender refuses what a reader would refuse."""
    plain = fixed("incompressible", BLOCK_BYTES_MAX + 1) + bytes(size - BLOCK_BYTES_MAX - 1)
    with pytest.raises(DeniedError) as caught:
        encode(plain, coding, True)
    assert caught.value.reason is Reason.TOO_LARGE


def test_frame_that_states_more_than_the_limit_is_refused_before_it_is_opened() -> None:
    """MUST-4.6, with a length that the ratio alone would let pass."""
    head = struct.pack("<IBI", 0xFD2FB528, 0xA0, DECOMPRESSED_BYTES_MAX + 1)
    coded = head + bytes(90_000)
    with pytest.raises(Malformed, match="too far"):
        decode(len(coded).to_bytes(4) + coded, "zstd")


def test_frame_that_needs_a_dictionary_is_refused() -> None:
    """MUST-4.5: one frame that stands for itself."""
    plain = fixed("plain", 1_000)
    words = zstandard.ZstdCompressionDict(plain, zstandard.DICT_TYPE_RAWCONTENT)
    coded = zstandard.ZstdCompressor(level=3, dict_data=words).compress(plain)
    with pytest.raises(Malformed):
        decode(len(coded).to_bytes(4) + coded, "zstd")


@pytest.mark.parametrize(
    "padded",
    [b"", b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x01", b"\x00\x00\x00\x00\x00", bytes(4095)],
)
def test_lengths_that_do_not_add_up_are_malformed(padded: bytes) -> None:
    """MUST-4.7."""
    with pytest.raises(Malformed):
        decode(padded, "none")


def test_padding_that_is_not_zero_is_malformed() -> None:
    """MUST-4.8: nothing hides in the padding."""
    padded, _ = encode(b"plain", "none", True)
    with pytest.raises(Malformed):
        decode(padded[:2000] + b"\x01" + padded[2001:], "none")


@pytest.mark.parametrize("coding", ["zstd", "none"])
def test_a_reader_may_want_no_more_than_some_bytes(coding: str) -> None:
    padded, used = encode(b"a" * 1000, coding, True)
    assert used == coding
    assert decode(padded, used, bytes_max=1000) == b"a" * 1000
    with pytest.raises(Malformed, match="too far|too long"):
        decode(padded, used, bytes_max=999)
