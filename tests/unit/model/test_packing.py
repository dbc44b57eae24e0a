"""One column of a block: what is packed comes back, and what does not fit is refused."""

import math
import struct
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.errors import Malformed
from fabric.model.packing import pack, type_of, unpack

WIDTHS = {"boolean": 1, "int": 4, "long": 8, "float": 4, "double": 8}
NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def through_avro(item: Any, values: list[Any]) -> Any:
    """The column as a reader gets it, with nothing known but its Avro type."""
    codec = fastavro.parse_schema(
        {"type": "record", "name": "C", "fields": [{"name": "c", "type": type_of(item)}]},
        named_schemas={},
    )
    out = BytesIO()
    fastavro.schemaless_writer(out, codec, {"c": pack(item, values)})
    out.seek(0)
    read: Any = fastavro.schemaless_reader(out, codec, None)
    assert out.read() == b""
    return read["c"]


@pytest.mark.parametrize("item", [*NUMBERS])
@given(data=st.data())
def test_numbers_come_back(item: str, data: st.DataObject) -> None:
    """MUST-4.13."""
    values = data.draw(st.lists(NUMBERS[item], max_size=20))
    packed = through_avro(item, values)
    assert len(packed) == WIDTHS[item] * len(values)
    assert unpack(item, packed, len(values)) == values


def test_a_float_that_is_no_number_comes_back() -> None:
    [value] = unpack("double", pack("double", [math.nan]), 1)
    assert isinstance(value, float)
    assert math.isnan(value)


@given(st.lists(TEXTS, max_size=20))
def test_texts_come_back(values: list[Any]) -> None:
    """MUST-4.14."""
    packed = through_avro("string", values)
    assert isinstance(packed, str) != any("\0" in value for value in values)
    assert unpack("string", packed, len(values)) == values


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_other_values_stand_in_an_array(values: list[Any]) -> None:
    assert unpack("bytes", through_avro("bytes", values), len(values)) == values


@pytest.mark.parametrize("item", [["int"], {"type": "enum", "name": "E", "symbols": ["A"]}])
def test_only_plain_numbers_and_texts_are_packed(item: Any) -> None:
    assert type_of(item) == {"type": "array", "items": item}


@pytest.mark.parametrize("item", [*WIDTHS])
def test_numbers_of_another_length_are_malformed(item: str) -> None:
    two = pack(item, [1, 0])
    assert isinstance(two, bytes)
    for packed, count in ((two[:-1], 2), (two + b"\0", 2), (two, 1), (two, 3), (two, 0), (b"", 1)):
        if len(packed) != WIDTHS[item] * count:
            with pytest.raises(Malformed, match="another number"):
                unpack(item, packed, count)
    assert len(unpack(item, two, 2)) == 2


def test_a_boolean_is_0_or_1() -> None:
    assert unpack("boolean", b"\0\1", 2) == [False, True]
    with pytest.raises(Malformed, match="neither"):
        unpack("boolean", b"\0\2\1", 3)


@pytest.mark.parametrize(
    ("packed", "count"),
    [("a\0b", 1), ("a\0b", 3), ("a", 0), ("", 2), ("\0", 0), ("\0" * 10, 3)],
)
def test_texts_of_another_number_are_malformed(packed: str, count: int) -> None:
    with pytest.raises(Malformed, match="another number"):
        unpack("string", packed, count)


@pytest.mark.parametrize("packed", [[], ["a", "b"]])
def test_texts_in_an_array_that_need_none_are_malformed(packed: list[str]) -> None:
    with pytest.raises(Malformed, match="one text"):
        unpack("string", packed, len(packed))


def test_no_text_and_one_empty_text_are_told_apart_by_the_count() -> None:
    assert pack("string", []) == pack("string", [""]) == ""
    assert unpack("string", "", 0) == []
    assert unpack("string", "", 1) == [""]


def test_an_array_of_another_length_is_malformed() -> None:
    with pytest.raises(Malformed, match="another number"):
        unpack("bytes", [b"a"], 2)


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("long", [2**63]),
        ("int", [2**31]),
        ("int", ["1"]),
        ("long", [None]),
        ("double", ["x"]),
        ("float", [1e300]),
        ("boolean", [None]),
        ("boolean", [2]),
        ("boolean", ["x"]),
        ("string", [1]),
        ("string", [None]),
    ],
)
def test_a_value_of_another_type_is_not_packed(item: str, values: list[Any]) -> None:
    with pytest.raises((struct.error, TypeError, OverflowError)):
        pack(item, values)
