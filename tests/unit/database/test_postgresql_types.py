"""fabric.database.postgresql_types"""

import json
import struct
from typing import Any

import pytest

from fabric.database.postgresql_types import (
    ServerColumn,
    TypeInfo,
    Unfit,
    demand_text,
    fields_of,
    made_type,
    reader_of,
    server_column,
)
from fabric.model.schema import RowSchema

ENUM = {"type": "enum", "name": "Mood", "symbols": ["good", "bad"]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


def schema(avro: Any) -> RowSchema:
    fields = [{"name": "id", "type": "long"}, {"name": "x", "type": avro}]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


def column(base: str, *, typmod: int = -1, element: str = "") -> ServerColumn:
    info = {1: TypeInfo(base=base, element=element, sql_type=base, typmod=-1)}
    return server_column("x", 1, typmod, info)


@pytest.mark.parametrize(
    ("avro", "base", "raw", "text", "value"),
    [
        ("boolean", "bool", b"\1", "t", True),
        ("int", "int2", b"\xff\xfe", "-2", -2),
        ("long", "int8", struct.pack(">q", -5), "-5", -5),
        ("float", "float4", struct.pack(">f", 0.5), "0.5", 0.5),
        ("double", "float8", struct.pack(">d", 0.1), "0.1", 0.1),
        ("bytes", "bytea", b"\0\1", "\\x0001", b"\0\1"),
        ("string", "text", "Ánh".encode(), "Ánh", "Ánh"),
        ("string", "jsonb", b'\x01{"a": 1}', '{"a": 1}', '{"a": 1}'),
        (logical("string", "uuid"), "uuid", bytes(16), f"{0:08}-0000-0000-0000-{0:012}", None),
        (ENUM, "enum", b"good", "good", "good"),
        (logical("int", "date"), "date", struct.pack(">i", 1), "2000-01-02", 10_958),
        (logical("long", "time-micros"), "time", struct.pack(">q", 7), "00:00:00.000007", 7),
        (DECIMAL, "numeric", struct.pack(">hhHHh", 1, 0, 0, 0, 3), "3", b"\x01\x2c"),
        (
            {"type": "array", "items": "int"},
            "jsonb",
            b"\x01[1, 2]",
            "[1, 2]",
            [1, 2],
        ),
        ({"type": "fixed", "name": "F", "size": 2}, "bytea", b"ab", "\\x6162", b"ab"),
    ],
)
def test_both_forms_give_the_same_value(
    avro: Any, base: str, raw: bytes, text: str, value: object
) -> None:
    reader = reader_of(fields_of(schema(avro))[1], column(base))
    assert reader.binary is not None
    expected = text if value is None else value
    assert reader.binary(raw) == expected
    assert reader.text(text) == expected


def test_milliseconds_need_a_column_that_has_no_more() -> None:
    field = fields_of(schema(logical("long", "timestamp-millis")))[1]
    reader = reader_of(field, column("timestamptz", typmod=3))
    assert reader.text("1970-01-01 00:00:01.5+00") == 1500
    with pytest.raises(Unfit, match="micros"):
        reader_of(field, column("timestamptz"))
    with pytest.raises(ValueError, match="infinity"):
        reader.text("infinity")


@pytest.mark.parametrize(
    ("avro", "base"),
    [
        ("int", "int8"),
        ("boolean", "text"),
        (logical("long", "timestamp-micros"), "timestamp"),
        (logical("long", "local-timestamp-micros"), "timestamptz"),
        (DECIMAL, "int4"),
        ("null", "text"),
        (["null", "int", "string"], "jsonb"),
    ],
)
def test_a_column_that_holds_something_else_is_unfit(avro: Any, base: str) -> None:
    with pytest.raises(Unfit):
        reader_of(fields_of(schema(avro))[1], column(base))


def test_a_string_reads_any_type_through_its_text() -> None:
    reader = reader_of(fields_of(schema("string"))[1], column("inet"))
    assert reader.binary is None
    assert reader.text("10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize(
    ("base", "own"),
    [
        ("bool", "boolean"),
        ("int2", "int"),
        ("int4", "int"),
        ("int8", "long"),
        ("float4", "float"),
        ("float8", "double"),
        ("bytea", "bytes"),
    ],
)
def test_a_string_over_a_column_of_another_kind_is_unfit(base: str, own: str) -> None:
    with pytest.raises(Unfit, match=f"declare the field {own}"):
        demand_text(column(base))
    demand_text(column(f"_{base}", element=base))  # an array crosses as text, whatever is in it


def test_an_array_column_is_read_by_its_elements() -> None:
    avro = {"type": "array", "items": ["null", logical("int", "date")]}
    field = fields_of(schema(avro))[1]
    reader = reader_of(field, column("_date", element="date"))
    assert reader.binary is None
    assert reader.text("{1970-01-02,NULL}") == [1, None]
    with pytest.raises(Unfit):
        reader_of(
            fields_of(schema({"type": "map", "values": "int"}))[1], column("_int4", element="int4")
        )


def test_values_outside_the_schema_are_refused() -> None:
    mood = reader_of(fields_of(schema(ENUM))[1], column("text"))
    with pytest.raises(ValueError, match="symbols"):
        mood.text("worse")
    fixed = reader_of(
        fields_of(schema({"type": "fixed", "name": "F", "size": 2}))[1], column("bytea")
    )
    with pytest.raises(ValueError, match="fixed size"):
        fixed.text("\\x00")
    nested = reader_of(fields_of(schema({"type": "map", "values": "bytes"}))[1], column("json"))
    with pytest.raises(ValueError, match="JSON"):
        nested.text("5")


@pytest.mark.parametrize(
    ("avro", "made"),
    [
        ("int", "integer"),
        (["null", "string"], "text"),
        (DECIMAL, "numeric(9, 2)"),
        (logical("string", "uuid"), "uuid"),
        (logical("long", "timestamp-micros"), "timestamptz"),
        ({"type": "array", "items": "int"}, "json"),
        (logical("string", "made-up"), "text"),
    ],
)
def test_tables_we_make_have_types_that_fit(avro: Any, made: str) -> None:
    assert made_type(fields_of(schema(avro))[1]) == made


def test_a_domain_brings_its_length_when_the_column_has_none() -> None:
    info = {1: TypeInfo(base="numeric", element="", sql_type="numeric", typmod=655_366)}
    assert server_column("x", 1, -1, info).typmod == 655_366
    assert server_column("x", 1, 5, info).typmod == 5
