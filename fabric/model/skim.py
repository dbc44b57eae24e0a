"""Count what a block's plaintext would make of itself, before anything is made of it.

A byte of Avro can stand for an empty array or, six, for a run: sixteen megabytes of them
are millions of objects, seconds and a gigabyte. The runs and the places of nulls come
first in a block, so they are walked here byte by byte and counted against the limits;
columns are counted as they are unpacked, and the number of an array's items is bound by its
bytes. Spec: docs/format.md, MUST-4.11.
"""

import re

from fabric.model.errors import Malformed
from fabric.model.limits import BLOCK_CHANGES_MAX

_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_ONE = re.compile(_VARINT)
_CHUNK = 256
_MANY = re.compile(rb"(?:" + _VARINT + rb"){%d}" % _CHUNK)
_FIVE = re.compile(rb"(?:" + _VARINT + rb"){5}")
"""A run's numbers: operation, position, ordinal, commit time, count."""


def check_counts(data: bytes, columns: int, nullable: int) -> None:
    """Hold the arrays at the front of a block's plaintext against their limits.

    Args:
        columns: of a row, which a run may name as absent.
        nullable: columns that may be null, each with its places of nulls.

    Raises:
        Malformed: an array is not one block of at most as many items as it may have, or
            ends early.
    """
    at = _runs(data, columns)
    count, at = _count(data, at, nullable)
    for _ in range(count):
        places, at = _count(data, at, BLOCK_CHANGES_MAX)
        if places:
            at = _end(data, _skip(data, at, places))
    if count:
        _end(data, at)


def check_steps(data: bytes) -> None:
    """Hold what follows the columns against its limits: one array of numbers, and no more.

    Raises:
        Malformed: it is none, or empty, or longer than a block has changes.
    """
    count, at = _count(data, 0, BLOCK_CHANGES_MAX)
    if not count or _end(data, _skip(data, at, count)) != len(data):
        raise Malformed("block has bytes after its end")


def _runs(data: bytes, columns: int) -> int:
    count, at = _count(data, 0, BLOCK_CHANGES_MAX)
    for _ in range(count):
        numbers = _FIVE.match(data, at)
        if numbers is None:
            raise Malformed("block ends in its runs")
        absent, at = _count(data, numbers.end(), columns)
        for _ in range(absent):
            size, at = _count(data, at, len(data))
            at += size
        if absent:
            at = _end(data, at)
    return _end(data, at) if count else at


def _count(data: bytes, at: int, most: int) -> tuple[int, int]:
    """A count or length, as Avro writes it (zigzag), and what follows it."""
    found = _ONE.match(data, at)
    if found is None:
        raise Malformed("block ends in a count")
    value = 0
    for shift, byte in enumerate(found[0]):
        value |= (byte & 0x7F) << 7 * shift
    if value & 1 or value >> 1 > most:
        raise Malformed("block has a count that is negative or too large")
    return value >> 1, found.end()


def _skip(data: bytes, at: int, count: int) -> int:
    """Behind so many varints."""
    for shape, times in ((_MANY, count // _CHUNK), (_ONE, count % _CHUNK)):
        for _ in range(times):
            found = shape.match(data, at)
            if found is None:
                raise Malformed("block ends in a list of numbers")
            at = found.end()
    return at


def _end(data: bytes, at: int) -> int:
    """Behind the zero that ends an array: a second block of it would be counted by nobody."""
    if data[at : at + 1] != b"\0":
        raise Malformed("array of a block is not in one piece")
    return at + 1
