"""What fits an Avro type, at every depth."""

import math
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
_LARGE = 2**53 + 1


def _array(items: Any) -> Any:
    return {"type": "array", "items": items}


def _map(values: Any) -> Any:
    return {"type": "map", "values": values}


def _record(name: str, **fields: Any) -> Any:
    listed = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "fields": listed}


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
        ([_array("long"), _array("double")], [_LARGE]),
        ([_array("double"), _array("long")], [2**53]),
        ([_array("double"), _TEXTS], [_LARGE]),
        ([_array("float"), "double"], [0.1, math.nan]),
        ([_array("double"), _array("float")], [0.1, 1e39]),
        ([_array("double"), _array("string")], []),
        ([_record("A", x="double"), _map("long")], {"x": _LARGE}),
        ([_record("A", x="double"), _record("B", x="long", y="int")], {"x": _LARGE, "y": 1}),
        ([_record("A", x="double"), _record("B", x="long")], {"x": 1}),
        ([_map(["null", "long", "double"]), _record("B", x="long")], {"x": _LARGE}),
        ([_array("bytes"), _array(_INTS)], [b"a"]),
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
        (["long", "double"], ("double", _LARGE)),
        ([_array("double"), _array("long")], [1, _LARGE]),
        ([_array("float"), _array("double")], [0.1]),
        ([_array("float"), _array("double")], [1e39]),
        ([_array(_INTS), _array("bytes")], [b"a"]),
        ([_array(["double", "string"]), _array("long")], [_LARGE]),
        ([_map("double"), _map("long")], {"a": _LARGE}),
        ([_map("double"), _record("B", x="long")], {"x": _LARGE}),
        ([_record("A", x="double"), _record("B", x="long")], {"x": _LARGE}),
        ([_record("B", x="long"), _record("n.A", x="double")], ("n.A", {"x": _LARGE})),
        ([_record("A", x="double"), _record("B", x="long")], ("B", {"x": _LARGE})),
        ([_record("A", x="int"), "string"], {"x": 1, "y": 2}),
        (_record("A", x="int"), {"x": 1, "y": 2}),
        (["null", "string"], (1.0, 2.0)),
    ],
)
def test_another_value_does_not_and_is_not_quoted(avro: Any, value: object) -> None:
    with pytest.raises(ValueError, match=r"^$") as caught:
        checker(avro, {})(value)
    assert caught.value.__cause__ is None


_TYPES = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "float", "double", "string", "bytes"]),
    lambda inner: st.one_of(
        inner.map(_array),
        inner.map(_map),
        inner.map(lambda kind: _record("R", x=kind)),
        st.tuples(inner, inner).map(lambda pair: _record("R", x=pair[0], y=pair[1])),
    ),
    max_leaves=3,
)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, 2**24 + 1, _LARGE, 2**63 - 1, 0.5, 0.1, 1e39, math.inf]),
        st.sampled_from(["", "a", b"", b"a"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    ),
    max_leaves=3,
)


def _named(kind: Any, at: int) -> Any:
    """The type with names that no other branch has."""
    if isinstance(kind, str):
        return kind
    renamed = {key: _named(kind[key], at) for key in ("items", "values") if key in kind}
    if "fields" in kind:
        fields = [
            {**field, "type": _named(field["type"], at * 10 + number + 1)}
            for number, field in enumerate(kind["fields"])
        ]
        renamed = {"name": f"R{at}", "fields": fields}
    return {**kind, **renamed}


@given(kinds=st.lists(_TYPES, min_size=2, max_size=3), value=_VALUES)
def test_a_reader_gets_back_what_fits_a_union(kinds: list[Any], value: Any) -> None:
    """As one branch alone would keep it, where one would."""
    union = [_named(kind, at + 1) for at, kind in enumerate(kinds)]
    try:
        checker(union, {})(value)
    except ValueError:
        return
    back = _again(union, value)
    alone = [_again(kind, value) for kind in union if _takes(kind, value)]
    assert back == value or value not in alone


def _takes(kind: Any, value: Any) -> bool:
    try:
        checker(kind, {})(value)
    except ValueError:
        return False
    return True


def _again(kind: Any, value: Any) -> Any:
    codec: Any = fastavro.parse_schema(_record("Whole", v=kind), named_schemas={})
    out = BytesIO()
    fastavro.schemaless_writer(out, codec, {"v": value}, strict=True)
    out.seek(0)
    back: Any = fastavro.schemaless_reader(out, codec, None)
    return back["v"]


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
