"""Count the values of a block's columns before a decoder makes them.

A byte of Avro can stand for an empty text, list or map: sixteen megabytes are as many objects,
and fastavro makes them in one go, while nothing else of the process runs. Columns of numbers
and of texts are one value each and are stepped over. What stands in arrays is walked by its
type, and counted; a walk makes nothing, and others have their turn meanwhile.
Spec: docs/format.md, MUST-4.11, MUST-4.15 and MUST-4.17.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from fabric.model.errors import Malformed
from fabric.model.skim import count_at, end_at, skip_numbers


class TooManyValues(Malformed):
    """A block has more values in its arrays than one may have; its sender makes it smaller."""


Stride: TypeAlias = Callable[[bytes, int, int, int], tuple[int, int]]
"""Goes over values of one type: of these bytes, from here, with so many values left, so many.

Gives where it ends, which may lie after the bytes, and how many values are left then.
"""
_FEW = 8
_STEPS = tuple(0 if byte & 1 or byte > 0x7F else 1 + (byte >> 1) for byte in range(0x100))
"""By its first byte, what a text and its length take together; 0 where that says too little."""
_BRANCHES = tuple(0xFF if byte & 1 or byte > 0x7F else byte >> 1 for byte in range(0x100))
"""By its first byte, a union's index; more than any where that says too little."""


def strides_of(codec: Any) -> tuple[Stride, ...]:
    """How to go over columns, each of a number of values.

    Args:
        codec: the record of the columns, as fastavro has parsed it for the decoder: a name
            can mean another type to who has parsed it elsewhere.
    """
    known: dict[str, Stride] = {}
    return tuple(_column(field["type"], known) for field in codec["fields"])


def strides_of_types(types: Sequence[Any]) -> tuple[Stride, ...]:
    """How to go over values of types that the decoder's fastavro has parsed one after another.

    Raises:
        KeyError: one is recursive.
    """
    known: dict[str, Stride] = {}
    return tuple(_stride(kind, known) for kind in types)


def walk_columns(
    data: bytes, at: int, *, left: int, strides: Sequence[Stride], counts: Sequence[int]
) -> tuple[int, int]:
    """Go over the columns that begin in `data` at `at`.

    Args:
        left: values that may stand in arrays.
        counts: for each column, how many values are due.

    Returns:
        Where the columns end, and how many values are left then.

    Raises:
        TooManyValues: there are more values in arrays.
        Malformed: a column in an array has another number of values, an array or map is not in
            one piece, a union has no such branch, or the bytes end early.
    """
    left = _less(left, 0)
    try:
        for stride, count in zip(strides, counts, strict=True):
            at, left = stride(data, at, left, count)
    except IndexError as exc:
        raise Malformed("block ends in its columns") from exc
    if at > len(data):
        raise Malformed("block ends in its columns")
    return at, left


def _less(left: int, many: int) -> int:
    if many > left:
        raise TooManyValues("block has too many values in its arrays")
    return left - many


def _column(kind: Any, known: dict[str, Stride]) -> Stride:
    if kind == "bytes":
        return _whole  # how many numbers are in it is counted as it is cut
    if isinstance(kind, list):
        return partial(_text_or_array, _stride(kind[1]["items"], known))
    return partial(_array, _stride(kind["items"], known))


def _whole(data: bytes, at: int, left: int, _: int) -> tuple[int, int]:
    size, at = count_at(data, at, len(data))
    return at + size, left


def _text_or_array(stride: Stride, data: bytes, at: int, left: int, count: int) -> tuple[int, int]:
    is_array, at = count_at(data, at, 1)
    if is_array:
        return _array(stride, data, at, left, count)
    return _whole(data, at, left, count)  # as its separators are


def _array(stride: Stride, data: bytes, at: int, left: int, count: int) -> tuple[int, int]:
    there, at = count_at(data, at, len(data))
    if there != count:
        raise Malformed("column has another number of values than rows")
    if count:
        at, left = stride(data, at, left, count)
        at = end_at(data, at)
    return at, left


# The types of values. These loops run for every value of a column that is an array: what is
# one byte is not called for, and reading after the end is an IndexError.


def _stride(kind: Any, known: dict[str, Stride]) -> Stride:
    if isinstance(kind, str):
        return _SIMPLE[kind] if kind in _SIMPLE else known[kind]
    if isinstance(kind, list):
        return partial(_union, [_stride(branch, known) for branch in kind])
    match kind["type"]:
        case "array":
            return partial(_arrays, _stride(kind["items"], known))
        case "map":
            entry = [_sized, _stride(kind["values"], known)]
            return partial(_arrays, partial(_fields, entry))
        case "record":
            fields = [_stride(field["type"], known) for field in kind["fields"]]
            made: Stride = partial(_record, fields)
        case "enum":
            made = _number
        case "fixed":
            made = partial(_wide, kind["size"])
        case other:
            return _stride(other, known)
    known[kind["name"]] = made
    return made


def _wide(size: int, _: bytes, at: int, left: int, many: int) -> tuple[int, int]:
    left = _less(left, many)
    return at + size * many, left


def _number(data: bytes, at: int, left: int, many: int) -> tuple[int, int]:
    left = _less(left, many)
    if many > _FEW:
        return skip_numbers(data, at, many), left
    for _ in range(many):
        at = skip_numbers(data, at, 1) if data[at] > 0x7F else at + 1
    return at, left


def _sized(data: bytes, at: int, left: int, many: int) -> tuple[int, int]:
    """Texts, bytes."""
    left = _less(left, many)
    for _ in range(many):
        step = _STEPS[data[at]]
        if not step:
            step, at = count_at(data, at, len(data))
        at += step
    return at, left


def _union(
    branches: Sequence[Stride], data: bytes, at: int, left: int, many: int
) -> tuple[int, int]:
    last = len(branches) - 1
    for _ in range(many):
        branch = _BRANCHES[data[at]]
        if branch > last:
            branch, at = count_at(data, at, last)
        else:
            at += 1
        at, left = branches[branch](data, at, left, 1)
    return at, left


def _record(
    fields: Sequence[Stride], data: bytes, at: int, left: int, many: int
) -> tuple[int, int]:
    return _fields(fields, data, at, _less(left, many), many)


def _fields(
    fields: Sequence[Stride], data: bytes, at: int, left: int, many: int
) -> tuple[int, int]:
    for _ in range(many):
        for field in fields:
            at, left = field(data, at, left, 1)
    return at, left


def _arrays(item: Stride, data: bytes, at: int, left: int, many: int) -> tuple[int, int]:
    """Arrays, or maps, whose items are a key and a value."""
    left = _less(left, many)
    for _ in range(many):
        if not data[at]:
            at += 1
            continue
        count, at = count_at(data, at, len(data))  # not 0, which has one form only
        at, left = item(data, at, left, count)
        if data[at]:
            end_at(data, at)
        at += 1
    return at, left


_SIMPLE: dict[str, Stride] = {
    "null": partial(_wide, 0),
    "boolean": partial(_wide, 1),
    "int": _number,
    "long": _number,
    "float": partial(_wide, 4),
    "double": partial(_wide, 8),
    "bytes": _sized,
    "string": _sized,
}
