"""fabric.database.postgresql_columns"""

import json
from dataclasses import replace
from typing import Any

import pytest

from fabric.database.postgresql_columns import (
    ROUNDING,
    SPELLED,
    bytes_of,
    demand_exact_key,
    quoted,
    rows_of,
    selected,
    split_table,
    table_sql,
    written,
)
from fabric.database.postgresql_types import (
    Field,
    ServerColumn,
    TypeInfo,
    Unfit,
    fields_of,
    reader_of,
    server_column,
)
from fabric.model.change import Row
from fabric.model.schema import RowSchema

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
STAMP = {"type": "long", "logicalType": "timestamp-micros"}


def field(avro: Any) -> Field:
    fields = [{"name": "id", "type": "long"}, {"name": "x", "type": avro}]
    text = json.dumps({"type": "record", "name": "R", "fields": fields})
    return fields_of(RowSchema.parse(text, ("id",)))[1]


def column(base: str, sql_type: str = "", *, typmod: int = -1, element: str = "") -> ServerColumn:
    info = TypeInfo(base=base, element=element, sql_type=sql_type or base, typmod=-1)
    return server_column("x", 1, typmod, {1: info})


def numeric(precision: int, scale: int) -> ServerColumn:
    return column("numeric", typmod=(precision << 16 | scale & 0x7FF) + 4)


def test_names_are_quoted_whatever_they_hold() -> None:
    assert quoted('a"b') == '"a""b"'
    assert split_table("people") == ("public", "people")
    assert table_sql('reg.My "table".x') == '"reg"."My ""table"".x"'


def test_numbers_and_text_are_sent_as_they_are() -> None:
    for avro, base in (
        ("int", "int8"),
        ("long", "int8"),
        ("string", "varchar"),
        ("bytes", "bytea"),
    ):
        sent = written(field(avro), column(base))
        assert (sent.sql, sent.convert) == ("{}", None)


def test_what_is_not_text_is_cast_by_the_server() -> None:
    assert written(field("string"), column("inet")).sql == "{}::inet"
    uuid = {"type": "string", "logicalType": "uuid"}
    assert written(field(uuid), column("uuid")).sql == "{}::uuid"
    nested = written(field({"type": "map", "values": "int"}), column("jsonb"))
    assert nested.convert is not None
    assert (nested.sql, nested.convert({"a": 1})) == ("{}::jsonb", '{"a":1}')


@pytest.mark.parametrize(
    ("avro", "target"),
    [
        ("long", column("int4")),
        ("double", column("float4")),
        (DECIMAL, numeric(9, 1)),
        (DECIMAL, numeric(8, 2)),
        (STAMP, column("timestamptz", typmod=3)),
        (STAMP, column("timestamp")),
        ("boolean", column("int4")),
        ("string", column("int8")),
        ("string", column("bytea")),
        ({"type": "map", "values": "int"}, column("_int4", element="int4")),
        ({"type": "array", "items": "bytes"}, column("_bytea", element="bytea")),
        ({"type": "array", "items": ["null", "int", "string"]}, column("jsonb")),
    ],
)
def test_a_column_that_would_round_or_overflow_is_unfit(avro: Any, target: ServerColumn) -> None:
    with pytest.raises(Unfit):
        written(field(avro), target)


def test_a_string_key_needs_a_type_that_neither_rounds_nor_cuts_nor_folds() -> None:
    for base in ROUNDING:
        with pytest.raises(Unfit, match="make the column text"):
            demand_exact_key(field("string"), column(base), ROUNDING)
    for avro, base in ((DECIMAL, "numeric"), (STAMP, "timestamptz"), ("string", "inet")):
        demand_exact_key(field(avro), column(base), ROUNDING)


@pytest.mark.parametrize("base", ["uuid", "inet", "cidr", "macaddr", "bpchar"])
def test_a_type_that_spells_a_value_in_one_way_holds_the_string_keys_of_its_like(base: str) -> None:
    demand_exact_key(field("string"), column(base), ROUNDING)
    demand_exact_key(field("string"), column(base), SPELLED)


@pytest.mark.parametrize("avro", ["string", {"type": "enum", "name": "E", "symbols": ["a", "A"]}])
def test_a_key_whose_collation_folds_texts_is_unfit(avro: Any) -> None:
    with pytest.raises(Unfit, match="not deterministic"):
        demand_exact_key(field(avro), replace(column("text"), is_folding=True), SPELLED)


def test_a_wider_decimal_column_fits() -> None:
    for target in (numeric(9, 2), numeric(12, 4), column("numeric")):
        assert written(field(DECIMAL), target).wire == "numeric"


def test_an_array_column_is_made_from_json() -> None:
    sent = written(
        field({"type": "array", "items": "string"}), column("_text", "text[]", element="text")
    )
    assert "jsonb_array_elements_text" in sent.sql.format("v.c1")
    assert sent.sql.format("v.c1").endswith("::text[] END")


def test_a_selected_value_is_converted_and_a_bad_one_names_its_field() -> None:
    target = column("numeric")
    chosen = selected(field(DECIMAL), target, reader_of(field(DECIMAL), target))
    raw = bytes.fromhex("0001000000000000") + b"\x00\x03"
    assert chosen.sql == 't."x"::pg_catalog.numeric'
    assert rows_of([chosen], [(raw,), (None,)]) == [{"x": b"\x01\x2c"}, {"x": None}]
    with pytest.raises(ValueError, match="x"):
        rows_of([chosen], [(bytes.fromhex("00000000c0000000"),)])


def test_types_without_a_form_of_ours_are_selected_as_text() -> None:
    target = column("inet")
    assert selected(field("string"), target, reader_of(field("string"), target)).sql == (
        """CASE WHEN t."x" IS NOT NULL THEN pg_catalog.format('%s', t."x") END"""
    )
    enum = field({"type": "enum", "name": "E", "symbols": ["a"]})
    plain = selected(enum, column("text"), reader_of(enum, column("text")))
    with pytest.raises(ValueError, match="x"):
        rows_of([plain], [("b",)])


def test_a_rows_size_is_that_of_all_it_holds() -> None:
    row: Row = {"a": "x" * 1000, "b": [b"y" * 500, None], "c": {"k": "z" * 300}, "d": 1}
    assert bytes_of(row) == 1000 + 500 + 8 + 300 + 8
