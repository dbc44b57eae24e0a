"""How a snapshot selects a column and how a sink writes one, through asyncpg.

Numbers, text and bytes cross as Python values; dates, times and decimals as the binary
form that we make; everything else as text that the server casts.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fabric.database import postgresql_numbers as numbers
from fabric.database import sqlite_nested as nested
from fabric.database.postgresql_types import (
    NATIVE,
    PASSED,
    Field,
    Reader,
    ServerColumn,
    Unfit,
    decimal_of,
    demand_text,
    reader_of,
)
from fabric.model.change import Row, Value
from fabric.model.errors import UsageError

_CASTLESS = frozenset({"text", "varchar", "bpchar", "name"})
_NUMERIC_HEADER = 4
"""What the server adds to precision and scale in a numeric's typmod."""
_TARGETS: dict[str, str] = {
    "boolean": "bool",
    "int": "int2 int4 int8",
    "long": "int8",
    "float": "float4 float8",
    "double": "float8",
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
"""Column types by kind that hold every value of it; a string is cast, see `demand_text`."""
_WIRE: dict[str, str] = {
    "boolean": "bool",
    "int": "int4",
    "long": "int8",
    "float": "float4",
    "double": "float8",
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
}
"""Type in which values of a kind are sent; everything else is text."""
SPELLED = frozenset(PASSED)
"""Types whose values have several texts, so a text in them is no key to ask for rows after."""
ROUNDING = SPELLED | {"timetz", "interval", "money", "name", "char", "citext"}
"""Types that take two strings for one value: they round, cut, or do not tell case.

Not among them are uuid, inet, cidr, macaddr and char(n). They, too, take several spellings for
one value, and write it in one of them; so a key in such a column needs a source that holds the
same type, and then only that spelling comes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """One selected column.

    Attributes:
        sql: expression over the table's alias `t`.
        convert: asyncpg's value to a physical value; None when they are the same.
    """

    field: Field
    sql: str
    convert: Callable[[Any], Value] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One written column.

    Attributes:
        wire: type of the parameter or of the staging table's column.
        sql: expression over `{}`, the value as it was sent.
        convert: physical value to asyncpg's; None when they are the same.
    """

    field: Field
    wire: str
    sql: str
    convert: Callable[[Any], Any] | None


def quoted(name: str) -> str:
    """An SQL identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def split_table(table: str) -> tuple[str, str]:
    """Schema and name of `schema.table`; the schema is `public` when there is none."""
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else ("public", table)


def table_sql(table: str) -> str:
    """`schema.table`, quoted."""
    schema, name = split_table(table)
    return f"{quoted(schema)}.{quoted(name)}"


def selected(field: Field, column: ServerColumn, reader: Reader) -> Selected:
    """How to select `column` so that `reader` understands it."""
    name = f"t.{quoted(column.name)}"
    if column.base in NATIVE and not column.element:
        convert = _native_check(field, reader)
    elif column.base in PASSED and reader.binary is not None:
        convert = _not_null(reader.binary)
    else:
        # A cast to text is not the output function: inet and bpchar would look different.
        sql = f"CASE WHEN {name} IS NOT NULL THEN pg_catalog.format('%s', {name}) END"
        return Selected(field=field, sql=sql, convert=_not_null(reader.text))
    return Selected(field=field, sql=f"{name}::pg_catalog.{column.base}", convert=convert)


def _native_check(field: Field, reader: Reader) -> Callable[[Any], Value] | None:
    if field.kind == "enum":
        return _not_null(reader.text)
    if field.kind == "fixed" and reader.binary is not None:
        return _not_null(reader.binary)
    return None


def _not_null(convert: Callable[[Any], Value]) -> Callable[[Any], Value]:
    return lambda value: None if value is None else convert(value)


def rows_of(columns: Sequence[Selected], records: Sequence[Sequence[Any]]) -> list[Row]:
    """Selected records as rows.

    Raises:
        ValueError: a value does not fit; its first argument is the field's name.
    """
    names = [column.field.name for column in columns]
    rows: list[Row] = [dict(zip(names, record, strict=True)) for record in records]
    for column in columns:
        if column.convert is None:
            continue
        name, convert = column.field.name, column.convert
        try:
            for row in rows:
                row[name] = convert(row[name])
        except ValueError as exc:
            raise ValueError(name) from exc
    return rows


def key_selected(field: Field, column: ServerColumn) -> Selected:
    """How to read a key column back from a target, whatever width it has there."""
    if column.base in NATIVE:
        sql = f"t.{quoted(column.name)}::pg_catalog.{column.base}"
        return Selected(field=field, sql=sql, convert=None)
    return selected(field, column, reader_of(field, column))


def written(field: Field, column: ServerColumn) -> Written:
    """How to write `field` into `column`; raises Unfit."""
    if column.generated:
        raise Unfit("the column is generated; the table must take the value as it is sent")
    if column.element and field.kind == "nested":
        return _written_array(field, column)
    if field.kind == "string":
        demand_text(column)
        cast = "{}" if column.base in _CASTLESS else f"{{}}::{column.sql_type}"
        return Written(field=field, wire="text", sql=cast, convert=None)
    if column.base not in _TARGETS.get(field.kind, "").split():
        raise Unfit(f"type {column.sql_type} does not hold every {field.kind}")
    _check_length(field, column)
    wire = _WIRE.get(field.kind, "text")
    plain = wire != "text" or column.base in _CASTLESS
    sql = "{}" if plain else f"{{}}::{column.sql_type}"
    return Written(field=field, wire=wire, sql=sql, convert=converter_of(field))


def demand_exact_key(field: Field, column: ServerColumn, inexact: Collection[str]) -> None:
    """Refuse a string key over a type of `inexact`, and every key that folds; raises Unfit."""
    if column.is_folding:
        seen = "its collation is not deterministic and may take two strings for one key"
        raise Unfit(f"{seen}; give the column a deterministic one")
    if field.kind == "string" and (column.element or column.base) in inexact:
        seen = f"type {column.sql_type} may take two strings for one key"
        raise Unfit(f"{seen}; make the column text, or the field of the column's own type")


def _check_length(field: Field, column: ServerColumn) -> None:
    """Refuse a column that would round: the server does so without a word."""
    if field.kind == "decimal" and column.typmod >= _NUMERIC_HEADER:
        packed = column.typmod - _NUMERIC_HEADER
        precision, scale = packed >> 16, ((packed & 0x7FF) ^ 0x400) - 0x400
        wanted, digits, _ = decimal_of(field)
        if scale < digits or precision - scale < wanted - digits:
            raise Unfit(f"numeric({precision}, {scale}) would round decimal({wanted}, {digits})")
    if field.kind.endswith(("micros", "millis")) and column.typmod >= 0:
        needed = 3 if field.kind.endswith("millis") else 6
        if column.typmod < needed:
            raise Unfit(f"type {column.sql_type}({column.typmod}) would round {field.kind}")


def converter_of(field: Field) -> Callable[[Any], Any] | None:
    """Physical value of a kind to what asyncpg is given; None when they are the same."""
    if field.kind == "decimal":
        return numbers.numeric_writer(decimal_of(field)[1])
    if field.kind == "date":
        return numbers.days_date
    if field.kind.startswith("time-"):
        return _scaled(field, numbers.micros_time)
    if field.kind.endswith(("micros", "millis")):
        return _scaled(field, numbers.micros_stamp)
    if field.kind == "nested":
        return json_writer(field)
    return None


def _scaled(field: Field, write: Callable[[int], bytes]) -> Callable[[Any], Any]:
    if field.kind.endswith("millis"):
        return lambda value: write(value * 1000)
    return write


def json_writer(field: Field) -> Callable[[Any], str]:
    """Write a nested value as JSON text; raises Unfit for unions of several types."""
    try:
        return nested.writer(field.avro, field.names)
    except UsageError as exc:
        raise Unfit("a union of several types has no column; use null and one type") from exc


def _written_array(field: Field, column: ServerColumn) -> Written:
    if not (isinstance(field.avro, dict) and field.avro["type"] == "array"):
        raise Unfit(f"type {column.sql_type} does not hold every {field.kind}")
    items = field.avro["items"]
    inner = [each for each in (items if isinstance(items, list) else [items]) if each != "null"]
    if inner not in (["string"], ["int"], ["long"], ["boolean"], ["float"], ["double"]):
        raise Unfit("an array of this element type needs a jsonb column")
    sql = (
        "CASE WHEN {0} IS NOT NULL THEN ARRAY(SELECT e.v FROM"  # noqa: S608  # from the catalogue
        " pg_catalog.jsonb_array_elements_text({0}::pg_catalog.jsonb) WITH ORDINALITY AS e (v, o)"
        f" ORDER BY e.o)::{column.sql_type} END"
    )
    return Written(field=field, wire="text", sql=sql, convert=json_writer(field))


def bytes_of(value: Value) -> int:
    """About how much memory a value, or a row of them, takes."""
    match value:
        case str() | bytes():
            return len(value)
        case list():
            return sum(map(bytes_of, value))
        case dict():
            return sum(map(bytes_of, value.values()))
        case _:
            return 8
