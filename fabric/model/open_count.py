"""Count the values of an open record before a decoder makes them.

An open record is one change with its row, at most 256 KiB. A byte of it can stand for a whole
record of empty fields, and a list of absent columns for as many texts as it has bytes. Most rows
have no arrays: their type says how many values they have, and nothing is walked but what stands
before the row. Spec: docs/format.md, MUST-8.2 and MUST-8.3.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import OPEN_VALUES_MAX
from fabric.model.skim import behind_five, count_at, end_at
from fabric.model.walk import TooManyValues, strides_of_types, walk_columns

_MAP = 2
"""A map with one entry is two values, beside the entry's own: itself and the key."""


class OpenCount:
    """Counts what the open records of one schema hold; raises KeyError when it is recursive.

    Args:
        codec: `fabric.Change`, as fastavro has parsed it for the decoder.
    """

    def __init__(self, codec: Any) -> None:
        types = [field["type"] for field in codec["fields"][-2:]]
        [row] = [branch for branch in types[0] if branch != "null"]
        self._columns = len(row["fields"])
        self._strides = strides_of_types(types)
        self._most = _sum(types, array=inf)
        self._each_byte = int(_sum(types, array=_MAP))

    def most(self, size: int) -> int:
        """How many values a record of `size` bytes can have at the most.

        Every item of an array or map has a byte of its own, and so have row and key.
        """
        return size * self._each_byte

    def of(self, record: bytes, at: int) -> int:
        """How many values stand in row, key and `absent` of the change that begins at `at`.

        A row without arrays counts as what its type can have at the most.

        Raises:
            DeniedError: TOO_LARGE, they are more than a record may have.
            Malformed: more columns are absent than a row has, an array or map is not in one
                piece, a count, length or index is negative or longer than it need be, a union
                has no such branch, or the bytes end early.
        """
        size, at = count_at(record, at, len(record))  # of the origin
        absent, at = count_at(record, behind_five(record, at + size), self._columns)
        for _ in range(absent):
            size, at = count_at(record, at, len(record))
            at += size
        if absent:
            at = end_at(record, at)
        values = absent + (self._walked(record, at) if self._most == inf else int(self._most))
        if values > OPEN_VALUES_MAX:
            raise DeniedError(Reason.TOO_LARGE, "open record has too many values")
        return values

    def _walked(self, record: bytes, at: int) -> int:
        most = OPEN_VALUES_MAX
        try:
            _, left = walk_columns(record, at, left=most, strides=self._strides, counts=(1, 1))
        except TooManyValues:
            return most + 1
        return most - left


def _sum(types: Sequence[Any], *, array: float) -> float:
    known: dict[str, float] = {}
    return sum(_values(kind, known, array=array) for kind in types)


def _values(kind: Any, known: dict[str, float], *, array: float) -> float:
    """How many values a datum of a type is at the most, if an array of it has one item.

    Args:
        known: the same of named types seen so far; those that stand in here are added.
        array: what an array or map counts for beside its item.
    """
    if isinstance(kind, list):
        return max(_values(branch, known, array=array) for branch in kind)
    if isinstance(kind, str):
        return known.get(kind, 1)
    if kind["type"] in ("array", "map"):
        inner = kind["items" if kind["type"] == "array" else "values"]
        return array + _values(inner, known, array=array)
    parts = [_values(field["type"], known, array=array) for field in kind.get("fields", ())]
    return known.setdefault(kind["name"], 1 + sum(parts))
