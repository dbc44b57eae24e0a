"""Between a block's Avro bytes and what is encrypted: content coding, length, padding.

Padded plaintext = length of the coded bytes (4 bytes, big-endian) || coded bytes ||
zero bytes. Padding is Padme (at most 12 % more, and only O(log log n) bits of the
length show) with a least length. Spec: docs/format.md section 4.
"""

import zstandard

from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import (
    BLOCK_BYTES_MAX,
    DECOMPRESSED_BYTES_MAX,
    EXPANSION_RATIO_MAX,
    PADDING_BYTES_MIN,
)

_LENGTH_BYTES = 4
_ZSTD_LEVEL = 3


def encode(plain: bytes, coding: str, padding: bool) -> tuple[bytes, str]:
    """Code, frame and pad.

    Returns:
        The padded plaintext, and the coding that was used: `none` in place of `zstd`
        where the bytes shrink so much that a reader would take them for a bomb.

    Raises:
        DeniedError: TOO_LARGE, the block must be made smaller.
    """
    coded = plain
    if coding == "zstd":
        coded = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False).compress(plain)
        if len(plain) > EXPANSION_RATIO_MAX * len(coded):
            coded, coding = plain, "none"
    if len(coded) > BLOCK_BYTES_MAX or len(plain) > DECOMPRESSED_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "block is too large to seal")
    size = _LENGTH_BYTES + len(coded)
    fill = max(padme(size), PADDING_BYTES_MIN) - size if padding else 0
    return b"".join((len(coded).to_bytes(_LENGTH_BYTES), coded, bytes(fill))), coding


def decode(padded: bytes, coding: str, *, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """Undo `encode`.

    Raises:
        Malformed: also for bytes that would expand too far, or to more than `bytes_max`; by
            what they say of their size, before they are expanded.
    """
    size = _LENGTH_BYTES + int.from_bytes(padded[:_LENGTH_BYTES])
    lengths = (size, max(padme(size), PADDING_BYTES_MIN))
    if len(padded) < _LENGTH_BYTES or len(padded) not in lengths:
        raise Malformed("padded plaintext has a wrong length")
    if padded.count(0, size) != len(padded) - size:
        raise Malformed("padding is not zero")
    if size - _LENGTH_BYTES > BLOCK_BYTES_MAX:
        raise Malformed("coded plaintext is too long")
    coded = padded[_LENGTH_BYTES:size]
    if coding != "none":
        return _decompress(coded, bytes_max)
    if len(coded) > bytes_max:
        raise Malformed("plaintext is too long")
    return coded


def padme(size: int) -> int:
    """The least Padme length that is at least `size` (Nikitin et al., PURBs, 2019)."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << max(low_bits, 0)) - 1
    return (size + mask) & ~mask


def _decompress(coded: bytes, bytes_max: int) -> bytes:
    try:
        size = zstandard.get_frame_parameters(coded).content_size
        limit = min(bytes_max, EXPANSION_RATIO_MAX * len(coded))
        if size > limit:  # an unknown size reads as 2^64 - 1
            raise Malformed("plaintext expands too far or does not state its size")
        decompressor = zstandard.ZstdDecompressor(max_window_size=DECOMPRESSED_BYTES_MAX)
        plain: bytes = decompressor.decompress(coded, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise Malformed("plaintext is not one zstd frame") from exc
    if len(plain) != size:
        raise Malformed("plaintext is not as long as it says")
    return plain
