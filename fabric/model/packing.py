"""How the values of one column stand in a block: as one value, where their type allows it.

fastavro visits every item of an array, and every byte of a number in it. Numbers of a fixed
width are written and read as one value by one call, and so is a text that is cut where its
separators are; other types stand in an Avro array. Spec: docs/format.md section 4.
"""

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

from fabric.model.change import Value
from fabric.model.errors import Malformed

Column: TypeAlias = list[Value]
Packed: TypeAlias = "bytes | str | Column"

_CODES = {"boolean": "?", "int": "i", "long": "q", "float": "f", "double": "d"}
"""Avro's numbers, as `struct` writes them; little-endian, as Avro writes its floats."""
_TEXT = "string"
_CUT = "\0"
_TRUTHS = b"\0\1"


def type_of(item: Any) -> Any:
    """Avro type of a whole column.

    Args:
        item: type of one value, as fastavro has parsed it, without logical types.
    """
    if isinstance(item, str) and item in _CODES:
        return "bytes"
    array = {"type": "array", "items": item}
    return [_TEXT, array] if item == _TEXT else array


def pack(item: Any, values: Column) -> Packed:
    """One column as it stands in a block.

    Raises:
        struct.error, TypeError, ValueError, OverflowError: a value is not of the column's type.
    """
    if isinstance(item, str) and item in _CODES:
        packed = struct.pack(f"<{len(values)}{_CODES[item]}", *values)
        if item == "boolean" and packed != bytes(values):  # type: ignore[arg-type]  # raises, too
            raise TypeError("value is no boolean")
        return packed
    if item != _TEXT:
        return values
    text = _CUT.join(values)  # type: ignore[arg-type]  # a value that is no text raises here
    return values if _is_cut_by_a_value(text, values) else text


def _is_cut_by_a_value(text: str, values: Sequence[Value]) -> bool:
    """Whether a value has the separator in itself: then values stand in an array."""
    return text.count(_CUT) != max(0, len(values) - 1)


def unpack(item: Any, packed: Any, count: int) -> Column:
    """Undo `pack` for a column of `count` values.

    Raises:
        Malformed: it has another number of values, a boolean that is neither 0 nor 1, or
            stands in an array where it can stand as text.
    """
    if isinstance(item, str) and item in _CODES:
        return _numbers(_CODES[item], packed, count)
    if isinstance(packed, str):
        # Counted before it is cut: a megabyte of separators is a million values.
        if packed.count(_CUT) != max(0, count - 1) or (packed and not count):
            raise Malformed("column has another number of texts than rows")
        return [*packed.split(_CUT)] if count else []
    if len(packed) != count:
        raise Malformed("column has another number of values than rows")
    if item == _TEXT and not any(_CUT in value for value in packed):
        raise Malformed("column stands in an array and could stand as one text")
    return list(packed)


def _numbers(code: str, packed: bytes, count: int) -> Column:
    layout = f"<{count}{code}"
    if len(packed) != struct.calcsize(layout):
        raise Malformed("column has another number of values than rows")
    if code == _CODES["boolean"] and packed.translate(None, _TRUTHS):
        raise Malformed("boolean is neither 0 nor 1")
    return [*struct.unpack(layout, packed)]
