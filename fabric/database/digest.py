"""An order-independent digest of a table: equal rows give equal digests, whatever the database.

The digest of a table is the number of its rows and the sum, modulo 2^256, of SHA-256
over each row's canonical text, which the dataset's schema determines. It finds
differences; it does not withstand someone who chooses rows to make sums collide.
"""

import hashlib
import math
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from fabric.model.change import Row
from fabric.model.errors import ConfigInvalid, Reason, UsageError
from fabric.model.schema import RowSchema

_MODULUS = 2**256
_Text: TypeAlias = Callable[[Any], str]


class TableDigest:
    """Sums up rows of one schema, in any order."""

    def __init__(self, schema: RowSchema) -> None:
        names: dict[str, Any] = {}
        self._fields = [(name, _text_of(schema.type_of(name), names)) for name in schema.fields]
        self.count = 0
        self._sum = 0

    def add(self, row: Row) -> None:
        """Count one row, given as Avro physical values.

        Raises:
            UsageError: SCHEMA_MISMATCH, a value is not of its type.
        """
        try:
            text = "\x1f".join([text(row[name]) for name, text in self._fields])
            octets = text.encode()
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            raise UsageError(
                Reason.SCHEMA_MISMATCH, "a row does not fit the dataset's schema"
            ) from None
        self._sum += int.from_bytes(hashlib.sha256(octets).digest())
        self.count += 1

    @property
    def value(self) -> str:
        """The sum so far: 64 hexadecimal digits."""
        return f"{self._sum % _MODULUS:064x}"


def _text_of(avro: Any, names: dict[str, Any]) -> _Text:
    """A function to unambiguous text; strings carry their length."""
    if isinstance(avro, list):
        inner = [_text_of(branch, names) for branch in avro if branch != "null"]
        if len(inner) != 1:
            raise UsageError(
                Reason.SCHEMA_MISMATCH, "a union of several types cannot be compared by digest"
            )
        return lambda value: "~" if value is None else inner[0](value)
    if isinstance(avro, str):
        avro = names.get(avro, avro)
        if isinstance(avro, str):
            return _PLAIN[avro]
        return _text_of(avro, names)
    kind = avro["type"]
    if isinstance(kind, dict | list):
        return _text_of(kind, names)
    if "name" in avro:
        names[avro["name"]] = avro
        names[f"{avro.get('namespace', '')}.{avro['name']}"] = avro
    return _complex(avro, kind, names)


def _complex(avro: dict[str, Any], kind: str, names: dict[str, Any]) -> _Text:
    if avro.get("logicalType") == "decimal":
        return lambda value: str(int.from_bytes(value, "big", signed=True))
    if avro.get("logicalType") == "uuid":
        return lambda value: _string(value.lower())
    if kind == "array":
        item = _text_of(avro["items"], names)
        return lambda value: f"[{len(value)}:{','.join([item(each) for each in value])}]"
    if kind == "map":
        held = _text_of(avro["values"], names)
        return lambda value: (
            f"{{{len(value)}:{','.join([_string(k) + held(value[k]) for k in sorted(value)])}}}"
        )
    if kind == "record":
        parts = [(f["name"], _text_of(f["type"], names)) for f in avro["fields"]]
        return lambda value: f"({','.join([text(value[name]) for name, text in parts])})"
    if kind == "enum":
        return _string
    return _PLAIN["bytes" if kind == "fixed" else kind]


def _bool(value: bool) -> str:
    if value not in (True, False):
        raise ValueError
    return "1" if value else "0"


def _int(value: int) -> str:
    if not isinstance(value, int):
        raise TypeError
    return str(int(value))


def _double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(float(value) + 0.0)  # adding 0.0 makes -0.0, which SQLite does not keep, 0.0


def _float(value: float) -> str:
    if math.isinf(value):
        return _double(value)
    return _double(struct.unpack("<f", struct.pack("<f", value))[0])


def _string(value: str) -> str:
    return f"{len(value)}:{value}"


def _bytes(value: bytes) -> str:
    return value.hex()


_PLAIN: dict[str, _Text] = {
    "null": lambda _value: "~",
    "boolean": _bool,
    "int": _int,
    "long": _int,
    "float": _float,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
}


async def table_digest(kind: str, url: str, table: str, schema: RowSchema) -> tuple[int, str]:
    """Number of rows and digest of one table.

    Args:
        kind: `postgresql` or `sqlite`.
        url: connection URL; for SQLite a path or `sqlite:///path`.
        table: its name, with its schema where there is one.

    Raises:
        ConfigInvalid: the kind is unknown.
        UsageError: SCHEMA_MISMATCH, a value is not of its declared type.
        UnavailableError: DATABASE_UNAVAILABLE, also when the table is not there.
    """
    if kind == "sqlite":
        from fabric.database.digest_sqlite import sqlite_digest

        return await sqlite_digest(url, table, schema)
    if kind == "postgresql":
        from fabric.database.digest_postgresql import postgresql_digest

        return await postgresql_digest(url, table, schema)
    raise ConfigInvalid(f"kind: {kind!r} is not a database we know; use postgresql or sqlite")
