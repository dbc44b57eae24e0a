"""Arrays, maps and records of Avro as JSON text, guided by the schema in both directions.

Bytes are strings of code points 0..255, as in Avro's own JSON encoding.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from fabric.model.errors import Reason, UsageError


def resolve(avro: Any, names: dict[str, Any]) -> Any:
    """Follow a name to its definition, and remember the definitions inside `avro`."""
    _remember(avro, "", names)
    while isinstance(avro, str) and avro in names:
        avro = names[avro]
    while isinstance(avro, dict) and isinstance(avro.get("type"), dict):
        avro = avro["type"]
    return avro


def _remember(avro: Any, space: str, names: dict[str, Any]) -> None:
    if isinstance(avro, list):
        for branch in avro:
            _remember(branch, space, names)
    if not isinstance(avro, dict):
        return
    if "name" in avro and avro.get("type") in ("record", "enum", "fixed"):
        space = avro.get("namespace", space)
        short = avro["name"].rpartition(".")[2]
        for name in (avro["name"], short, f"{space}.{short}"):
            names.setdefault(name, avro)
    for item in avro.get("fields", ()):
        _remember(item["type"], space, names)
    for inner in ("items", "values", "type"):
        if isinstance(avro.get(inner), dict | list):
            _remember(avro[inner], space, names)


def writer(avro: Any, names: dict[str, Any]) -> Callable[[Any], str]:
    """Physical value to JSON text."""
    convert = _converter(avro, names, _bytes_out)
    return lambda value: json.dumps(convert(value), ensure_ascii=False, separators=(",", ":"))


def reader(avro: Any, names: dict[str, Any]) -> Callable[[str], Any]:
    """JSON text to physical value; the function raises ValueError or TypeError."""
    convert = _converter(avro, names, _bytes_in)

    def read(text: str) -> Any:
        try:
            return convert(json.loads(text))
        except (KeyError, AttributeError, RecursionError) as exc:
            raise ValueError from exc

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
        return lambda value: [item(element) for element in value]
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


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _same(value: Any) -> Any:
    return value
