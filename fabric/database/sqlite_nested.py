"""Arrays, maps and records of Avro as JSON text, guided by the schema in both directions.

Bytes are strings of code points 0..255, as in Avro's own JSON encoding.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from fabric.database.value_fit import checker, resolve
from fabric.model.errors import Reason, UsageError


def writer(avro: Any, names: dict[str, Any]) -> Callable[[Any], str]:
    """Physical value to JSON text."""
    convert = _converter(avro, names, _bytes_out)
    return lambda value: json.dumps(convert(value), ensure_ascii=False, separators=(",", ":"))


def reader(avro: Any, names: dict[str, Any]) -> Callable[[str], Any]:
    """JSON text to physical value; the function raises ValueError or TypeError.

    It does so for every value that a block of this type cannot hold.
    """
    convert, check = _converter(avro, names, _bytes_in), checker(avro, names)

    def read(text: str) -> Any:
        try:
            value = convert(json.loads(text))
        except (KeyError, AttributeError, OverflowError, RecursionError):
            raise ValueError from None
        check(value)
        return value

    return read


def _bytes_out(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes_in(value: str) -> bytes:
    return value.encode("latin-1")


def _converter(
    avro: Any, names: dict[str, Any], octets: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    avro = resolve(avro, names)
    if isinstance(avro, list):
        return _union(avro, names, octets)
    kind = avro["type"] if isinstance(avro, dict) else avro
    if kind in ("bytes", "fixed"):
        return octets
    if kind == "array":
        item = _converter(avro["items"], names, octets)
        return lambda value: [item(element) for element in _listed(value)]
    if kind == "map":
        held = _converter(avro["values"], names, octets)
        return lambda value: {key: held(element) for key, element in value.items()}
    if kind == "record":
        parts = {f["name"]: _converter(f["type"], names, octets) for f in avro["fields"]}
        return lambda value: {name: part(value[name]) for name, part in parts.items()}
    if kind in ("float", "double"):
        return _finite
    return _same


def _union(
    branches: list[Any], names: dict[str, Any], octets: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    inner = [branch for branch in branches if branch != "null"]
    if len(inner) != 1 or len(branches) != 2:
        raise UsageError(
            Reason.SCHEMA_MISMATCH,
            "SQLite has no column for a nested union of several types; use null and one type",
        )
    convert = _converter(inner[0], names, octets)
    return lambda value: None if value is None else convert(value)


def _listed(value: Any) -> Any:
    # A text and a map can be gone through, too.
    if not isinstance(value, list | tuple):
        raise ValueError
    return value


def _finite(value: float) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _same(value: Any) -> Any:
    return value
