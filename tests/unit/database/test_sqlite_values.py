import json
import math
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database.sqlite_thread import UNREADABLE
from fabric.database.sqlite_values import RowReader, affinity, columns_of, row_tuple
from fabric.model.errors import UsageError
from fabric.model.schema import RowSchema

_ENUM = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
_DATE = {"type": "int", "logicalType": "date"}
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}


def schema_of(**fields: Any) -> RowSchema:
    listed = [{"name": "id", "type": "long"}]
    listed += [{"name": name, "type": avro} for name, avro in fields.items()]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": listed}), ("id",))


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("INTEGER", "INTEGER"),
        ("bigint", "INTEGER"),
        ("FLOATING POINT", "INTEGER"),
        ("VARCHAR(20)", "TEXT"),
        ("clob", "TEXT"),
        ("", "BLOB"),
        ("BLOB", "BLOB"),
        ("double precision", "REAL"),
        ("NUMERIC(10,2)", "NUMERIC"),
        ("DATE", "NUMERIC"),
        ("BOOLEAN", "NUMERIC"),
    ],
)
def test_affinity_follows_the_rules_of_sqlite(declared: str, expected: str) -> None:
    assert affinity(declared) == expected


@given(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "flag": st.booleans(),
            "real": st.none() | st.floats(),
            "text": st.text(st.characters(exclude_categories=("Cs",))),
            "data": st.none() | st.binary(),
            "colour": st.sampled_from(["RED", "BLUE"]),
            "price": st.none()
            | st.integers(1 - 10**12, 10**12 - 1).map(
                lambda n: n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True)
            ),
            "tags": st.lists(st.text(st.characters(exclude_categories=("Cs",)))),
        }
    )
)
def test_a_row_survives_a_table_that_we_made(row: dict[str, Any]) -> None:
    schema = schema_of(
        flag="boolean",
        real=["null", "double"],
        text="string",
        data=["null", "bytes"],
        colour=_ENUM,
        price=["null", _DECIMAL],
        tags={"type": "array", "items": "string"},
    )
    columns = columns_of(schema, {})
    connection = sqlite3.connect(":memory:")
    made = ", ".join(f"{column.name} {column.sql_type}" for column in columns)
    connection.execute(f"CREATE TABLE t ({made})")
    marks = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO t VALUES ({marks})", row_tuple(columns)(row))
    back = RowReader(columns).row(connection.execute("SELECT * FROM t").fetchone())
    connection.close()
    if row["real"] is not None and math.isnan(row["real"]):
        real = back.pop("real")
        assert isinstance(real, float)
        assert math.isnan(real)
        row = {name: value for name, value in row.items() if name != "real"}
    assert back == row


def test_dates_are_text_where_the_column_is() -> None:
    schema = schema_of(born={"type": "int", "logicalType": "date"})
    for declared in ("TEXT", "DATE", "VARCHAR(10)"):
        write = columns_of(schema, {"born": declared})[1].write
        assert write is not None
        assert write(1) == "1970-01-02"
    assert columns_of(schema, {"born": "INTEGER"})[1].write is None


@pytest.mark.parametrize(
    ("avro", "value"),
    [
        ("long", "1"),
        ("long", 1.0),
        ("long", None),
        ("boolean", 2),
        ("boolean", None),
        ("boolean", "x"),
        ("string", 1),
        ("string", b"x"),
        ("bytes", "x"),
        ("double", "x"),
        ("double", b""),
        (_DECIMAL, "1.001"),
        ("int", 2**31),
        ("int", -(2**31) - 1),
        (["null", "int"], 2**31),
        (_DATE, 5_000_000_000),
        ({"type": "int", "logicalType": "time-millis"}, 5_000_000_000),
        ("float", 1e39),
        ("string", UNREADABLE),
        ("bytes", UNREADABLE),
        ("boolean", UNREADABLE),
        ("double", UNREADABLE),
        (_DECIMAL, UNREADABLE),
        (_DATE, UNREADABLE),
        ({"type": "array", "items": "string"}, UNREADABLE),
        (_ENUM, "GREEN"),
        ({"type": "fixed", "name": "F", "size": 2}, b"abc"),
        ({"type": "map", "values": "int"}, '{"a":5000000000}'),
        ({"type": "array", "items": "boolean"}, "[2]"),
        ({"type": "array", "items": "string"}, '["\\ud800"]'),
    ],
)
def test_a_value_of_another_type_is_refused_without_showing_it(avro: Any, value: object) -> None:
    reader = RowReader(columns_of(schema_of(field=avro), {}))
    with pytest.raises(ValueError, match=r"^field$") as caught:
        reader.row((1, value))
    assert caught.value.__cause__ is None


def test_the_widest_numbers_of_a_type_are_read() -> None:
    reader = RowReader(columns_of(schema_of(a="int", b="float", c="float", d=_DATE), {}))
    for number in (-(2**31), 2**31 - 1):
        row = {"id": 1, "a": number, "b": math.inf, "c": 3.4e38, "d": number}
        assert reader.row((*row.values(),)) == row


def test_a_union_of_several_types_has_no_column() -> None:
    with pytest.raises(UsageError, match="field"):
        columns_of(schema_of(field=["int", "string"]), {})


def test_a_decimal_that_numeric_would_round_needs_text() -> None:
    wide = {**_DECIMAL, "precision": 20}
    assert "NUMERIC" in columns_of(schema_of(field=_DECIMAL), {})[1].affinities
    assert "NUMERIC" not in columns_of(schema_of(field=wide), {})[1].affinities
