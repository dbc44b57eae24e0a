from typing import Any

import pytest

from fabric.database.sqlite_nested import reader, writer
from fabric.model.errors import UsageError

_ITEM: dict[str, Any] = {
    "type": "record",
    "name": "x.Item",
    "fields": [
        {"name": "data", "type": "bytes"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "weights", "type": {"type": "map", "values": "double"}},
    ],
}
_NOTHING: dict[str, Any] = {"type": "record", "name": "x.Nothing", "fields": []}


def test_records_in_arrays_survive_as_json() -> None:
    avro = {"type": "array", "items": _ITEM}
    value = [{"data": b"\x00\xff", "note": None, "weights": {"a": 1.5, "ê": 2.0}}]
    text = writer(avro, {})(value)
    assert text.startswith('[{"data"')
    assert reader(avro, {})(text) == value


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"data": "a"}]', "[" * 10_000, "null"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        reader({"type": "array", "items": _ITEM}, {})(text)


@pytest.mark.parametrize(
    ("avro", "text"),
    [
        ({"type": "map", "values": "int"}, '{"a":5000000000}'),
        ({"type": "map", "values": "int"}, '{"\\ud800":1}'),
        ({"type": "array", "items": "int"}, "[1.5]"),
        ({"type": "array", "items": "int"}, "[2147483648.0]"),
        ({"type": "array", "items": "long"}, "[1e16]"),
        ({"type": "array", "items": "long"}, "[1e400]"),
        ({"type": "array", "items": "int"}, "[true]"),
        ({"type": "array", "items": ["null", "int"]}, "[null, 2147483648]"),
        ({"type": "array", "items": "long"}, "[9223372036854775808]"),
        ({"type": "array", "items": "boolean"}, "[2]"),
        ({"type": "array", "items": "boolean"}, '["1"]'),
        ({"type": "array", "items": ["null", "boolean"]}, "[0.5]"),
        ({"type": "array", "items": "float"}, "[1e39]"),
        ({"type": "array", "items": "double"}, "[NaN]"),
        ({"type": "array", "items": "double"}, "[true]"),
        ({"type": "array", "items": "double"}, f"[1{'0' * 400}]"),
        ({"type": "array", "items": "string"}, '["\\ud800"]'),
        ({"type": "array", "items": "string"}, '"abc"'),
        ({"type": "array", "items": "string"}, '{"a":1}'),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 2}}, '["abc"]'),
        ({"type": "array", "items": {"type": "enum", "name": "E", "symbols": ["A"]}}, '["B"]'),
        ({"type": "array", "items": "bytes"}, '["\u0100"]'),
    ],
)
def test_what_a_block_cannot_hold_is_refused(avro: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        reader(avro, {})(text)


@pytest.mark.parametrize(
    ("avro", "text"),
    [
        (_ITEM, '{"data": "a", "note": null, "weights": {}, "more": 1}'),
        (_ITEM, '{"data": "a", "note": null, "weights": {}, "note": "b"}'),
        (_ITEM, '{"data": "a", "note": null, "weights": {"a": 1, "a": 2}}'),
        ({"type": "map", "values": "int"}, '{"a": 1, "a": 1}'),
        ({"type": "array", "items": ["null", _ITEM]}, "[{}]"),
        (_NOTHING, '{"more": 1}'),
        (_NOTHING, "[]"),
        (_NOTHING, '""'),
    ],
)
def test_an_object_with_more_than_the_schema_or_a_key_twice_is_refused(
    avro: Any, text: str
) -> None:
    """What a reader would not get back may not be left out in silence."""
    with pytest.raises((ValueError, TypeError)):
        reader(avro, {})(text)


def test_a_field_that_lacks_is_null_where_it_may_be() -> None:
    """Rows from before the schema had the field, as PostgreSQL's log keeps them."""
    read = reader({"type": "array", "items": _ITEM}, {})
    assert read('[{"data": "a", "weights": {}}]') == [{"data": b"a", "note": None, "weights": {}}]
    for text in ('[{"note": "a", "weights": {}}]', '[{"data": "a", "weights": {}, "nota": "b"}]'):
        with pytest.raises((ValueError, TypeError)):
            read(text)


def test_a_record_of_nothing_is_an_empty_object() -> None:
    assert reader(_NOTHING, {})("{}") == {}


def test_whole_numbers_are_doubles_too() -> None:
    found = reader({"type": "array", "items": "double"}, {})("[1, 0.5]")
    assert [type(number) for number in found] == [float, float]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("boolean", "[0, 1, true, false]", [False, True, True, False]),
        (["null", "boolean"], "[null, 1]", [None, True]),
        ("int", "[1.0, -2]", [1, -2]),
        ("long", "[-9007199254740992.0, 9007199254740993]", [-(2**53), 2**53 + 1]),
    ],
)
def test_what_sqlite_writes_for_a_boolean_or_a_whole_number_is_one(
    kind: Any, text: str, value: list[object]
) -> None:
    """Its json_object knows no boolean but 0 and 1, and says 1.0 where a column is REAL."""
    found = reader({"type": "array", "items": kind}, {})(text)
    assert [(type(item), item) for item in found] == [(type(item), item) for item in value]


def test_infinity_is_not_written() -> None:
    with pytest.raises((ValueError, TypeError)):
        writer({"type": "array", "items": "double"}, {})([float("inf")])


def test_a_nested_union_of_several_types_is_refused() -> None:
    with pytest.raises(UsageError):
        writer({"type": "array", "items": ["int", "string"]}, {})
