import json
from typing import Any

import pytest

from fabric.database.digest import TableDigest, table_digest
from fabric.model.change import Row
from fabric.model.errors import ConfigInvalid, UsageError
from fabric.model.schema import RowSchema
from tests.contract.worlds import PEOPLE_SCHEMA, person


def digest_of(schema: RowSchema, *rows: Row) -> tuple[int, str]:
    digest = TableDigest(schema)
    for row in rows:
        digest.add(row)
    return digest.count, digest.value


def schema_of(*types: Any) -> RowSchema:
    fields = [{"name": "id", "type": "long"}]
    fields += [{"name": f"f{n}", "type": avro} for n, avro in enumerate(types)]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


def test_order_does_not_count_and_repetition_does() -> None:
    rows = [person(n) for n in range(5)]
    assert digest_of(PEOPLE_SCHEMA, *rows) == digest_of(PEOPLE_SCHEMA, *reversed(rows))
    assert digest_of(PEOPLE_SCHEMA, *rows) != digest_of(PEOPLE_SCHEMA, *rows, rows[0])
    assert digest_of(PEOPLE_SCHEMA) == (0, "0" * 64)


@pytest.mark.parametrize(
    "change",
    [{"name": "other"}, {"born": 0}, {"active": True}, {"score": None}, {"photo": b""}, {"id": 2}],
)
def test_every_column_counts(change: dict[str, object]) -> None:
    before = person(1)
    assert digest_of(PEOPLE_SCHEMA, before) != digest_of(PEOPLE_SCHEMA, {**before, **change})  # type: ignore[arg-type]  # plain values


@pytest.mark.parametrize(
    ("types", "one", "other"),
    [
        (("string", "string"), ("a\x1f", "b"), ("a", "\x1fb")),
        (("string", "string"), ("1:a", ""), ("", "1:a")),
        ((["null", "string"],), (None,), ("~",)),
        ((["null", "bytes"],), (None,), (b"~",)),
        (({"type": "array", "items": "string"},), (["a,b"],), (["a", "b"],)),
        (({"type": "array", "items": "string"},), ([],), ([""],)),
    ],
)
def test_rows_that_read_alike_differ(types: Any, one: Any, other: Any) -> None:
    schema = schema_of(*types)
    rows: list[Row] = [
        {"id": 1, **{f"f{n}": value for n, value in enumerate(values)}} for values in (one, other)
    ]
    assert digest_of(schema, rows[0]) != digest_of(schema, rows[1])


@pytest.mark.parametrize(
    ("avro", "one", "other"),
    [
        ("double", 0.0, -0.0),
        ("double", 1, 1.0),
        ("double", float("nan"), float("nan")),
        ("float", 0.1, 0.10000000149011612),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            b"\x05",
            b"\x00\x00\x05",
        ),
        ({"type": "string", "logicalType": "uuid"}, "AB", "ab"),
        ("boolean", True, 1),
        ({"type": "map", "values": "int"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_values_that_mean_the_same_are_the_same(avro: Any, one: Any, other: Any) -> None:
    schema = schema_of(avro)
    assert digest_of(schema, {"id": 1, "f0": one}) == digest_of(schema, {"id": 1, "f0": other})


def test_nested_types_and_names_are_followed() -> None:
    inner = {"type": "record", "name": "In", "fields": [{"name": "x", "type": "int"}]}
    fixed = {"type": "fixed", "name": "F", "size": 2}
    schema = schema_of(inner, "In", ["null", fixed])
    row: Row = {"id": 1, "f0": {"x": 1}, "f1": {"x": 2}, "f2": b"ab"}
    swapped: Row = {**row, "f0": {"x": 2}, "f1": {"x": 1}}
    assert digest_of(schema, row) != digest_of(schema, swapped)


@pytest.mark.parametrize("value", ["1", None, 1.5, b"1"])
def test_a_value_of_another_type_is_refused_without_showing_it(value: Any) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        digest_of(schema_of("long"), {"id": 1, "f0": value})


def test_a_union_of_several_types_cannot_be_compared() -> None:
    with pytest.raises(UsageError):
        TableDigest(schema_of(["int", "string"]))


async def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        await table_digest("oracle", "x", "t", PEOPLE_SCHEMA)
