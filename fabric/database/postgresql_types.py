"""Which PostgreSQL column holds which Avro field, and how values get across.

One table of Avro kinds says all: the column types a source may read and a sink may
write, and the type that a sink makes. Values are Avro physical values; what does not
fit raises ValueError, which its caller turns into a refusal that names the column.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, TypeAlias

from fabric.database import postgresql_numbers as numbers
from fabric.database import postgresql_text as texts
from fabric.database import sqlite_nested as nested
from fabric.database.value_fit import resolve
from fabric.model.change import Value
from fabric.model.errors import UsageError
from fabric.model.schema import RowSchema

Binary: TypeAlias = Callable[[bytes], Value]
Text: TypeAlias = Callable[[str], Value]

NATIVE = frozenset(
    {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "bytea"}
)
"""Types whose Python values, as asyncpg gives and takes them, are Avro physical values."""
PASSED = ("date", "time", "timestamp", "timestamptz", "numeric")
"""Types that cross asyncpg as their binary form; we read and write that ourselves."""
_TEXTUAL = frozenset({"text", "varchar", "bpchar", "name", "citext", "json", "enum"})
"""Types whose binary form is their text."""
_MILLIS = 1000
_INFINITIES = (2**63 - 1, -(2**63))


class Unfit(ValueError):
    """A field and a column do not go together; the message says why, without the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a dataset, its null taken off.

    Attributes:
        kind: primitive Avro type, logical type, `decimal`, `enum`, `fixed` or `nested`.
        avro: its definition.
        names: named types of the schema, for nested ones.
    """

    name: str
    kind: str
    nullable: bool
    avro: Any
    names: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerColumn:
    """One column as the server has it.

    Attributes:
        base: name of the base type behind domains (`int4`, `numeric`), `enum` for enums.
        element: base type of an array's elements, else empty.
        sql_type: how SQL names the type without any length (`bpchar`, not `character`).
        typmod: length, precision or scale as the server codes it; -1 when there is none.
        has_default: writers may leave it out.
        is_folding: its collation may take two texts for one, as one that tells no case does.
    """

    name: str
    type_oid: int
    base: str
    element: str
    sql_type: str
    typmod: int
    nullable: bool
    generated: bool
    has_default: bool
    is_folding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeInfo:
    """One type of the server; see ServerColumn. `typmod` is a domain's own, else -1."""

    base: str
    element: str
    sql_type: str
    typmod: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a source reads one column; `binary` is None when only the text form is known."""

    binary: Binary | None
    text: Text


_SOURCES: dict[str, str] = {
    "boolean": "bool",
    "int": "int2 int4",
    "long": "int2 int4 int8",
    "float": "float4",
    "double": "float4 float8",
    "bytes": "bytea",
    "fixed": "bytea",
    "decimal": "numeric",
    "date": "date",
    "time-millis": "time",
    "time-micros": "time",
    "timestamp-millis": "timestamptz",
    "timestamp-micros": "timestamptz",
    "local-timestamp-millis": "timestamp",
    "local-timestamp-micros": "timestamp",
    "uuid": "uuid text varchar bpchar",
    "enum": "enum text varchar",
    "nested": "json jsonb",
}
"""Column types by kind; a string reads any type that has no kind of its own, through its text."""
_OWN = {
    "bool": "boolean",
    "int2": "int",
    "int4": "int",
    "int8": "long",
    "float4": "float",
    "float8": "double",
    "bytea": "bytes",
}
"""Types that are no string: they cross as what they are, and one value has many spellings."""
_MADE: dict[str, str] = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double precision",
    "bytes": "bytea",
    "fixed": "bytea",
    "string": "text",
    "date": "date",
    "time-millis": "time",
    "time-micros": "time",
    "timestamp-millis": "timestamptz",
    "timestamp-micros": "timestamptz",
    "local-timestamp-millis": "timestamp",
    "local-timestamp-micros": "timestamp",
    "uuid": "uuid",
    "enum": "text",
    "nested": "json",
}
"""Column types that a sink makes; decimals get theirs from precision and scale.

Nested values are json and not jsonb, which refuses zero characters.
"""
_LOGICAL = frozenset(_MADE) - {"boolean", "int", "long", "float", "double", "bytes", "string"}


def server_column(
    name: str, type_oid: int, typmod: int, types: Mapping[int, TypeInfo]
) -> ServerColumn:
    """A nullable column of a type; raises KeyError when the type is not in `types`."""
    info = types[type_oid]
    return ServerColumn(
        name=name,
        type_oid=type_oid,
        base=info.base,
        element=info.element,
        sql_type=info.sql_type,
        typmod=info.typmod if typmod < 0 else typmod,
        nullable=True,
        generated=False,
        has_default=False,
        is_folding=False,
    )


def fields_of(schema: RowSchema) -> tuple[Field, ...]:
    """Every field of a schema.

    Raises:
        UsageError: SCHEMA_MISMATCH, a field is a union of several types.
    """
    names: dict[str, Any] = {}
    return tuple(_field(name, schema.type_of(name), names) for name in schema.fields)


def _field(name: str, avro: Any, names: dict[str, Any]) -> Field:
    branches = avro if isinstance(avro, list) else [avro]
    inner = [branch for branch in branches if branch != "null"]
    definition = resolve(inner[0] if len(inner) == 1 else inner, names)
    return Field(
        name=name,
        kind=_kind(definition),
        nullable=len(inner) < len(branches),
        avro=definition,
        names=names,
    )


def _kind(avro: Any) -> str:
    if isinstance(avro, str):
        return avro
    if isinstance(avro, list):
        return "nested"
    kind, logical = avro["type"], avro.get("logicalType", "")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return "decimal"
    if kind in ("array", "map", "record"):
        return "nested"
    if logical in _LOGICAL and kind in ("int", "long", "string"):
        return str(logical)
    return str(kind)


def made_type(field: Field) -> str:
    """The column type that a sink makes for a field."""
    if field.kind == "decimal":
        return f"numeric({field.avro['precision']}, {field.avro.get('scale', 0)})"
    return _MADE[field.kind]


def reader_of(field: Field, column: ServerColumn) -> Reader:
    """How a source reads `column` as `field`; raises Unfit."""
    if column.element and field.kind == "nested":
        return _array(field, column)
    if field.kind == "string":
        return _string(column)
    if column.base not in _SOURCES.get(field.kind, "").split():
        raise Unfit(f"type {column.sql_type} is not {field.kind}")
    if field.kind == "decimal":
        precision, scale, size = decimal_of(field)
        return Reader(
            binary=numbers.numeric_reader(precision, scale, size),
            text=texts.decimal_text_reader(precision, scale, size),
        )
    if field.kind in _READERS:
        if field.kind.endswith("millis") and not 0 <= column.typmod <= 3:
            raise Unfit(f"type {column.sql_type} keeps microseconds; declare micros")
        return _READERS[field.kind]
    if field.kind == "uuid":
        return _string(column)
    return _checked_kind(field, column)


def demand_text(column: ServerColumn) -> None:
    """Refuse a string over a number, a boolean or bytes; raises Unfit."""
    own = _OWN.get(column.base)
    if own is not None:
        seen = f"type {column.sql_type} is not string"
        raise Unfit(f"{seen}; declare the field {own}, or make the column text")


def _checked_kind(field: Field, column: ServerColumn) -> Reader:
    if field.kind == "fixed":
        size = int(field.avro["size"])
        return Reader(
            binary=lambda raw: _sized(raw, size),
            text=lambda text: _sized(texts.read_bytes(text), size),
        )
    if field.kind == "enum":
        symbols = frozenset(field.avro["symbols"])
        return Reader(
            binary=lambda raw: _one_of(raw.decode(), symbols),
            text=lambda text: _one_of(text, symbols),
        )
    read = _nested_reader(field)
    if column.base == "json":
        return Reader(binary=lambda raw: read(raw.decode()), text=read)
    return Reader(binary=lambda raw: read(_jsonb(raw)), text=read)


def _nested_reader(field: Field) -> Text:
    try:
        read: Text = nested.reader(field.avro, field.names)
    except UsageError as exc:
        raise Unfit("a union of several types has no column; use null and one type") from exc

    def convert(text: str) -> Value:
        try:
            return read(text)
        except (TypeError, ValueError) as exc:
            raise ValueError("JSON does not have the shape of the schema") from exc

    return convert


def _string(column: ServerColumn) -> Reader:
    if column.base in _TEXTUAL:
        return Reader(binary=bytes.decode, text=str)
    if column.base == "jsonb":
        return Reader(binary=_jsonb, text=str)
    if column.base == "uuid":
        return Reader(binary=_uuid, text=str)
    return Reader(binary=None, text=str)


def _array(field: Field, column: ServerColumn) -> Reader:
    if not (isinstance(field.avro, dict) and field.avro["type"] == "array"):
        raise Unfit(f"type {column.sql_type} is not {field.kind}")
    inner = _field(field.name, field.avro["items"], field.names)
    plain = replace(column, base=column.element, element="")
    element = reader_of(inner, plain)
    return Reader(binary=None, text=texts.array_reader(element.text, inner.nullable))


def _int(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _float(raw: bytes) -> float:
    value: float = (_DOUBLE if len(raw) == 8 else _SINGLE).unpack(raw)[0]
    return value


def _bool(raw: bytes) -> bool:
    return raw == b"\x01"


def _jsonb(raw: bytes) -> str:
    if raw[:1] != b"\x01":
        raise ValueError("jsonb has an unknown version")
    return raw[1:].decode()


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _sized(raw: bytes, size: int) -> bytes:
    if len(raw) != size:
        raise ValueError("bytes do not have the schema's fixed size")
    return raw


def _one_of(text: str, symbols: frozenset[str]) -> str:
    if text not in symbols:
        raise ValueError("value is none of the schema's symbols")
    return text


def decimal_of(field: Field) -> tuple[int, int, int | None]:
    """Precision, scale and, for a fixed, size in bytes of a decimal field."""
    size = int(field.avro["size"]) if field.avro["type"] == "fixed" else None
    return int(field.avro["precision"]), int(field.avro.get("scale", 0)), size


def _millis(micros: Callable[[Any], int]) -> Callable[[Any], Value]:
    def read(raw: Any) -> Value:
        value = micros(raw)
        if value in _INFINITIES:
            raise ValueError("infinity has no milliseconds")
        return value // _MILLIS

    return read


def _readers() -> dict[str, Reader]:
    times = Reader(binary=numbers.time_micros, text=texts.read_time)
    stamps = Reader(binary=numbers.stamp_micros, text=texts.read_stamp)
    time_ms = Reader(binary=_millis(numbers.time_micros), text=_millis(texts.read_time))
    stamp_ms = Reader(binary=_millis(numbers.stamp_micros), text=_millis(texts.read_stamp))
    return {
        "boolean": Reader(binary=_bool, text=texts.read_boolean),
        "int": Reader(binary=_int, text=int),
        "long": Reader(binary=_int, text=int),
        "float": Reader(binary=_float, text=float),
        "double": Reader(binary=_float, text=float),
        "bytes": Reader(binary=bytes, text=texts.read_bytes),
        "date": Reader(binary=numbers.date_days, text=texts.read_date),
        "time-millis": time_ms,
        "time-micros": times,
        "timestamp-millis": stamp_ms,
        "timestamp-micros": stamps,
        "local-timestamp-millis": stamp_ms,
        "local-timestamp-micros": stamps,
    }


_SINGLE, _DOUBLE = Struct(">f"), Struct(">d")
_READERS = _readers()
