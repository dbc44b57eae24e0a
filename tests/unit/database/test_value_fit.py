"""What fits an Avro type, at every depth."""

import math
from typing import Any

import pytest

from fabric.database.value_fit import checker, resolve

_FIXED = {"type": "fixed", "name": "x.F", "size": 2}
_ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
_INTS = {"type": "array", "items": "int"}
_TEXTS = {"type": "array", "items": "string"}
_ITEM: dict[str, Any] = {
    "type": "record",
    "name": "x.Item",
    "fields": [
        {"name": "flag", "type": "boolean"},
        {"name": "tags", "type": {"type": "map", "values": ["null", "int"]}},
    ],
}


@pytest.mark.parametrize(
    ("avro", "value"),
    [
        ("null", None),
        ("boolean", True),
        ("int", -(2**31)),
        ("int", 2**31 - 1),
        ("long", 2**63 - 1),
        ("float", 3.4e38),
        ("float", math.inf),
        ("float", math.nan),
        ("float", 1),
        ("double", 1e300),
        ("double", 2**70),
        ("string", "chữ\0"),
        ("bytes", bytearray(b"a")),
        (_FIXED, b"ab"),
        (_ENUM, "B"),
        ({"type": "int", "logicalType": "date"}, 1),
        ({"type": "array", "items": _FIXED}, [b"ab"]),
        ({"type": "array", "items": "float"}, (1.0, 2.0)),
        (_ITEM, {"flag": False, "tags": {"a": None, "b": 1}}),
        (["null", "int", "string"], "x"),
        (["null", _ITEM], ("x.Item", {"flag": True, "tags": {}})),
        ([_INTS, "bytes"], [97]),
        (["bytes", _INTS], b"a"),
        ([_TEXTS, "bytes"], b"a"),
        (["double", "long"], 2**53),
        (["int", "long"], ("long", 2**31)),
        (["long", "double"], 2**53 + 1),
        (["float", "long", "double"], 2**24 + 1),
        (["float", "double"], 0.1),
        (["double", "string"], 2**53 + 1),
    ],
)
def test_a_value_of_the_type_fits(avro: Any, value: object) -> None:
    checker(avro, {})(value)


@pytest.mark.parametrize(
    ("avro", "value"),
    [
        ("null", 0),
        ("boolean", 1),
        ("int", 2**31),
        ("int", True),
        ("int", 1.0),
        ("long", -(2**63) - 1),
        ("float", 1e39),
        ("float", -1e39),
        ("float", 2**200),
        ("float", 10**400),
        ("float", "NaN"),
        ("float", True),
        ("double", 10**400),
        ("double", False),
        ("string", "\ud800"),
        ("string", b"x"),
        ("bytes", "x"),
        (_FIXED, b"abc"),
        (_FIXED, "ab"),
        (_ENUM, "C"),
        (_ENUM, []),
        ({"type": "array", "items": "float"}, [1.0, 1e39]),
        ({"type": "array", "items": "string"}, "abc"),
        ({"type": "map", "values": "int"}, {"\ud800": 1}),
        ({"type": "map", "values": "int"}, [1]),
        (_ITEM, {"flag": True}),
        (_ITEM, {"flag": 2, "tags": {}}),
        (_ITEM, {"flag": True, "tags": {"a": 2**31}}),
        (_ITEM, [True, {}]),
        (["null", "float"], 1e39),
        (["null", "float"], ("float", 1e39)),
        (["float", "double"], ("float", 1e39)),
        (["int", "long"], ("int", 2**31)),
        ([_INTS, "bytes"], b"a"),
        ([_INTS, "bytes"], ("bytes", b"a")),
        (["double", "long"], ("long", 2**53 + 1)),
        ([_INTS, _FIXED], b"ab"),
        ([_TEXTS, "bytes"], bytearray()),
        (["double", "long"], 2**53 + 1),
        (["float", "null", "int"], 2**24 + 1),
    ],
)
def test_another_value_does_not_and_is_not_quoted(avro: Any, value: object) -> None:
    with pytest.raises(ValueError, match=r"^$") as caught:
        checker(avro, {})(value)
    assert caught.value.__cause__ is None


def test_a_name_stands_for_its_definition() -> None:
    avro = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "a", "type": _FIXED}, {"name": "b", "type": ["null", "x.F"]}],
    }
    check = checker(avro, {})
    check({"a": b"ab", "b": b"cd"})
    with pytest.raises(ValueError, match=r"^$"):
        check({"a": b"ab", "b": b"c"})


def test_a_name_is_followed_to_its_definition() -> None:
    names: dict[str, Any] = {}
    resolve({"type": "array", "items": _ITEM}, names)
    assert resolve("x.Item", names) == _ITEM
    assert resolve("Item", names) == _ITEM
    assert resolve({"type": {"type": "string"}}, names) == {"type": "string"}
