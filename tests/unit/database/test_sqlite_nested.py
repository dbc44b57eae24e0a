from typing import Any

import pytest

from fabric.database.sqlite_nested import reader, resolve, writer
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


def test_records_in_arrays_survive_as_json() -> None:
    avro = {"type": "array", "items": _ITEM}
    value = [{"data": b"\x00\xff", "note": None, "weights": {"a": 1.5, "ê": 2.0}}]
    text = writer(avro, {})(value)
    assert text.startswith('[{"data"')
    assert reader(avro, {})(text) == value


def test_a_name_is_followed_to_its_definition() -> None:
    names: dict[str, Any] = {}
    resolve({"type": "array", "items": _ITEM}, names)
    assert resolve("x.Item", names) == _ITEM
    assert resolve("Item", names) == _ITEM
    assert resolve({"type": {"type": "string"}}, names) == {"type": "string"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"data": "a"}]', "[" * 10_000, "null"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        reader({"type": "array", "items": _ITEM}, {})(text)


def test_infinity_is_not_written() -> None:
    with pytest.raises((ValueError, TypeError)):
        writer({"type": "array", "items": "double"}, {})([float("inf")])


def test_a_nested_union_of_several_types_is_refused() -> None:
    with pytest.raises(UsageError):
        writer({"type": "array", "items": ["int", "string"]}, {})
