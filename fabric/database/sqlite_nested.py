"""Arrays, maps and records of Avro as JSON text, guided by the schema in both directions.

Bytes are strings of code points 0..255, as in Avro's own JSON encoding. Read are also 0 and 1
as booleans, and a float without a fraction as an integer, up to 2**53: beyond that it may be
rounded. Nothing that was read is left out: an object of a record has no other field, and no
object a key twice, of which `json` would keep the last. A field that lacks is null, if it may be.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fabric.database.value_fit import checker, resolve
from fabric.model.errors import Reason, UsageError

_Leaves: TypeAlias = Mapping[str, Callable[[Any], Any]]
"""How values of a type's kind are converted; of other kinds they stay as they are."""

_WHOLE_FLOAT_MAX = 2.0**53


def writer(avro: Any, names: dict[str, Any]) -> Callable[[Any], str]:
    """Physical value to JSON text."""
    convert = _converter(avro, names, _OUT)
    return lambda value: json.dumps(convert(value), ensure_ascii=False, separators=(",", ":"))


def reader(avro: Any, names: dict[str, Any]) -> Callable[[str], Any]:
    """JSON text to physical value; the function raises ValueError or TypeError.

    It does so for every value that a block of this type cannot hold.
    """
    convert, check = _converter(avro, names, _IN), checker(avro, names)

    def read(text: str) -> Any:
        try:
            value = convert(json.loads(text, object_pairs_hook=_unique))
        except (KeyError, AttributeError, OverflowError, RecursionError):
            raise ValueError from None
        check(value)
        return value

    return read


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _bytes_out(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes_in(value: str) -> bytes:
    return value.encode("latin-1")


def _truth(value: Any) -> Any:
    # SQLite has no booleans: its json_object writes a column's 0 or 1.
    return bool(value) if value in (0, 1) else value


def _whole(value: Any) -> Any:
    is_exact = isinstance(value, float) and abs(value) <= _WHOLE_FLOAT_MAX and value.is_integer()
    return int(value) if is_exact else value


def _finite(value: float) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return float(value)


_OUT: _Leaves = {"bytes": _bytes_out, "fixed": _bytes_out, "float": _finite, "double": _finite}
_IN: _Leaves = {
    "bytes": _bytes_in,
    "fixed": _bytes_in,
    "float": _finite,
    "double": _finite,
    "boolean": _truth,
    "int": _whole,
    "long": _whole,
}


def _converter(avro: Any, names: dict[str, Any], leaves: _Leaves) -> Callable[[Any], Any]:
    avro = resolve(avro, names)
    if isinstance(avro, list):
        return _union(avro, names, leaves)
    kind = avro["type"] if isinstance(avro, dict) else avro
    if kind == "array":
        item = _converter(avro["items"], names, leaves)
        return lambda value: [item(element) for element in _listed(value)]
    if kind == "map":
        held = _converter(avro["values"], names, leaves)
        return lambda value: {key: held(element) for key, element in value.items()}
    if kind == "record":
        parts = {f["name"]: _converter(f["type"], names, leaves) for f in avro["fields"]}
        if leaves is _IN:
            nulls = dict.fromkeys(f["name"] for f in avro["fields"] if _may_be_null(f["type"]))
            return lambda value: _read_record(value, parts, nulls)
        return lambda value: {name: part(value[name]) for name, part in parts.items()}
    return leaves.get(kind, _same)


def _union(branches: list[Any], names: dict[str, Any], leaves: _Leaves) -> Callable[[Any], Any]:
    inner = [branch for branch in branches if branch != "null"]
    if len(inner) != 1 or len(branches) != 2:
        raise UsageError(
            Reason.SCHEMA_MISMATCH,
            "SQLite has no column for a nested union of several types; use null and one type",
        )
    convert = _converter(inner[0], names, leaves)
    return lambda value: None if value is None else convert(value)


def _listed(value: Any) -> Any:
    # A text and a map can be gone through, too.
    if not isinstance(value, list | tuple):
        raise ValueError
    return value


def _read_record(
    value: Any, parts: Mapping[str, Callable[[Any], Any]], nulls: Mapping[str, None]
) -> dict[str, Any]:
    # What may be null may lack: else no row from before a field could be read with it.
    whole = {**nulls, **value}
    if len(whole) != len(parts):
        raise ValueError
    return {name: part(whole[name]) for name, part in parts.items()}


def _may_be_null(avro: Any) -> bool:
    return isinstance(avro, list) and "null" in avro


def _same(value: Any) -> Any:
    return value
