"""Count what a block's plaintext would make of itself, before anything is made of it.

A byte of Avro can stand for an empty array or, six, for a run: sixteen megabytes of them
are millions of objects, seconds and a gigabyte. The runs and the places of nulls come
first in a block, so they are walked here byte by byte and counted against the limits; what
they say of the columns is what `walk` holds those against. Spec: docs/format.md, MUST-4.11
and MUST-4.16.
"""

import re

from fabric.model.errors import Malformed
from fabric.model.limits import (
    BLOCK_CHANGES_MAX,
    BLOCK_NULLS_MAX,
    BLOCK_VALUES_MAX,
    QUICK_NULLS_MAX,
    QUICK_RUNS_MAX,
    QUICK_VALUES_MAX,
)

_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_ONE = re.compile(_VARINT)
_CHUNK = 256
_MANY = re.compile(rb"(?:" + _VARINT + rb"){%d}" % _CHUNK)
_FIVE = re.compile(rb"(?:" + _VARINT + rb"){5}")
"""A run's numbers: operation, position, ordinal, commit time, count; an open change has five."""


def check_counts(data: bytes, columns: int, nullable: int, *, is_quick: bool = False) -> int:
    """Hold the arrays at the front of a block's plaintext against their limits.

    Args:
        columns: of a row, which a run may name as absent.
        nullable: columns that may be null, each with its places of nulls.
        is_quick: only so much as is decoded in a few ms.

    Returns:
        How many names of absent columns the runs have.

    Raises:
        Malformed: an array is not one block of at most as many items as it may have, or
            ends early.
    """
    runs_max = QUICK_RUNS_MAX if is_quick else BLOCK_CHANGES_MAX
    named, at = _runs(data, columns, runs_max, QUICK_VALUES_MAX if is_quick else BLOCK_VALUES_MAX)
    count, at = count_at(data, at, nullable)
    left = QUICK_NULLS_MAX if is_quick else BLOCK_NULLS_MAX
    for _ in range(count):
        places, at = count_at(data, at, BLOCK_CHANGES_MAX)
        left -= places
        if left < 0:
            raise Malformed("block has too many nulls")
        if places:
            at = end_at(data, skip_numbers(data, at, places))
    if count:
        end_at(data, at)
    return named


def check_steps(data: bytes) -> None:
    """Hold what follows the columns against its limits: one array of numbers, and no more.

    Raises:
        Malformed: it is none, or empty, or longer than a block has changes.
    """
    count, at = count_at(data, 0, BLOCK_CHANGES_MAX)
    if not count or end_at(data, skip_numbers(data, at, count)) != len(data):
        raise Malformed("block has bytes after its end")


def _runs(data: bytes, columns: int, runs_max: int, named_max: int) -> tuple[int, int]:
    count, at = count_at(data, 0, runs_max)
    named = 0
    for _ in range(count):
        absent, at = count_at(data, behind_five(data, at), columns)
        named += absent
        if named > named_max:
            raise Malformed("runs name too many absent columns")
        for _ in range(absent):
            size, at = count_at(data, at, len(data))
            at += size
        if absent:
            at = end_at(data, at)
    return named, end_at(data, at) if count else at


def behind_five(data: bytes, at: int) -> int:
    """Behind five varints; raises Malformed."""
    numbers = _FIVE.match(data, at)
    if numbers is None:
        raise Malformed("block ends in its runs")
    return numbers.end()


def count_at(data: bytes, at: int, most: int) -> tuple[int, int]:
    """A count, length or index, as Avro writes it (zigzag), and where what follows it stands.

    Raises:
        Malformed: it is negative, or larger than `most`, or longer than it need be, or the
            bytes end.
    """
    try:
        value = data[at]
    except IndexError as exc:
        raise Malformed("block ends in a count") from exc
    after = at + 1
    if value > 0x7F:
        value, after = _long(data, at)
    if value & 1 or value >> 1 > most:
        raise Malformed("block has a count that is negative or too large")
    return value >> 1, after


def _long(data: bytes, at: int) -> tuple[int, int]:
    found = _ONE.match(data, at)
    if found is None:
        raise Malformed("block ends in a count")
    if not data[found.end() - 1]:  # a zero of two bytes would be an array that is no end
        raise Malformed("count of a block is longer than it need be")
    value = 0
    for shift, byte in enumerate(found[0]):
        value |= (byte & 0x7F) << 7 * shift
    return value, found.end()


def skip_numbers(data: bytes, at: int, count: int) -> int:
    """Behind so many varints; raises Malformed."""
    for shape, times in ((_MANY, count // _CHUNK), (_ONE, count % _CHUNK)):
        for _ in range(times):
            found = shape.match(data, at)
            if found is None:
                raise Malformed("block ends in a list of numbers")
            at = found.end()
    return at


def end_at(data: bytes, at: int) -> int:
    """Behind the zero that ends an array: a second block of it would be counted by nobody.

    Raises:
        Malformed: there is none.
    """
    if data[at : at + 1] != b"\0":
        raise Malformed("array of a block is not in one piece")
    return at + 1
