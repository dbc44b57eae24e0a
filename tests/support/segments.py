"""Edit a stopped broker's segment files, as its operator could: the checksums fit afterwards."""

import struct
from pathlib import Path

from crc32c import crc32c

_HEAD = struct.Struct(">qi")  # base offset, length of what follows
_CRC_AT = 17
_CRC_FROM = 21
_SEALED = b"\xd8\x62"


def newest(folder: Path) -> Path:
    """The segment of a partition that is written to."""
    return max(folder.glob("*.log"))


def batches(data: bytes) -> list[tuple[int, int]]:
    """Where each record batch begins and ends."""
    found, at = [], 0
    while at + _HEAD.size <= len(data):
        _, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if length <= 0 or end > len(data):
            break
        found.append((at, end))
        at = end
    return found


def place_in_envelope(path: Path, at: int) -> int:
    """A place in the middle of the envelope in batch `at`, counted from 0."""
    data = path.read_bytes()
    start, end = batches(data)[at]
    return (data.index(_SEALED, start, end) + end) // 2


def flip(path: Path, place: int) -> None:
    """Change one bit, and the checksum of the batch around it; the second time undoes it."""
    data = bytearray(path.read_bytes())
    start, end = next(span for span in batches(bytes(data)) if span[0] <= place < span[1])
    data[place] ^= 1
    crc = crc32c(bytes(data[start + _CRC_FROM : end]))
    data[start + _CRC_AT : start + _CRC_FROM] = crc.to_bytes(4)
    path.write_bytes(bytes(data))
