"""A small schema must not stand for an endless or huge datum."""

import json
from typing import Any

import pytest

from fabric.model.errors import Malformed
from fabric.model.schema import RowSchema

ID = {"name": "id", "type": "long"}


def parse(*fields: Any, **extra: Any) -> RowSchema:
    record = {"type": "record", "name": "Row", "fields": [ID, *fields], **extra}
    return RowSchema.parse(json.dumps(record), ("id",))


def field(type_: Any, name: str = "f") -> dict[str, Any]:
    return {"name": name, "type": type_}


def record(name: str, *fields: Any, **extra: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **extra}


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ([field(["null", "Row"])], {}),
        ([field(["null", "x.Row"])], {"namespace": "x"}),
        ([field(["null", "Row"])], {"namespace": "x"}),
        ([field(record("B", field(["null", "B"])))], {}),
        ([field(record("B", field(["null", "x.B"])))], {"namespace": "x"}),
        ([field(record("B", field({"type": "array", "items": "Row"})))], {}),
        ([field(record("y.B", field({"type": "map", "values": "y.B"})))], {}),
    ],
)
def test_recursion_is_refused_however_the_name_is_written(fields: list[Any], extra: Any) -> None:
    with pytest.raises(Malformed, match="recursive"):
        parse(*fields, **extra)


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "null"},
        record("E"),
        record("E", field("null")),
        record("E", field(record("F", field("null")))),
        {"type": "fixed", "name": "Z", "size": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["array", "map"])
def test_items_of_zero_bytes_are_refused(items: Any, kind: str) -> None:
    inner = "items" if kind == "array" else "values"
    with pytest.raises(Malformed, match="array or map of nothing"):
        parse(field({"type": kind, inner: items}))


def test_items_that_take_a_byte_are_taken() -> None:
    for items in (["null"], ["null", "int"], {"type": "enum", "name": "E", "symbols": ["a"]}):
        assert parse(field({"type": "array", "items": items}))


def test_named_type_used_again_beside_itself_is_taken() -> None:
    assert parse(field(record("P", field("int"))), field("P", "g"), field(["null", "P"], "h"))


def test_names_that_double_at_each_step_are_refused() -> None:
    fields = [field(record("R0", field("int")), "f0")]
    for n in range(1, 30):
        again = record(f"R{n}", field(f"R{n - 1}", "a"), field(f"R{n - 1}", "b"))
        fields.append(field(again, f"f{n}"))
    with pytest.raises(Malformed, match="too large or nested too deep"):
        parse(*fields)


def test_names_that_lead_ever_deeper_are_refused() -> None:
    fields = [field(record("R0", field("int")), "f0")]
    for n in range(1, 100):
        fields.append(field(record(f"R{n}", field(f"R{n - 1}")), f"f{n}"))
    with pytest.raises(Malformed, match="too large or nested too deep"):
        parse(*fields)


def test_depth_as_written_is_bounded() -> None:
    type_: Any = "int"
    for _ in range(40):
        type_ = {"type": "array", "items": type_}
    with pytest.raises(Malformed, match="too deep"):
        parse(field(type_))


def test_wide_record_is_taken_until_the_bound() -> None:
    assert parse(*(field("int", f"c{n}") for n in range(1_600)))
    with pytest.raises(Malformed, match="too large"):
        parse(*(field("int", f"c{n}") for n in range(10_001)))


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", "tên", "a\n", "a" * 128, 5])
def test_field_name_outside_avros_grammar_is_refused(name: Any) -> None:
    with pytest.raises(Malformed):
        parse(field("int", name))


@pytest.mark.parametrize("name", ["int", "string", "a.null"])
def test_type_with_a_name_of_avros_own_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="Avro's own"):
        parse(field({"type": "fixed", "name": name, "size": 3}))
    with pytest.raises(Malformed, match="Avro's own"):
        parse(field(record(name, field("int"))))


@pytest.mark.parametrize("size", [-1, 2.0, True, "2"])
def test_fixed_type_of_no_whole_number_of_bytes_is_refused(size: Any) -> None:
    with pytest.raises(Malformed):
        parse(field({"type": "fixed", "name": "F", "size": size}))


def test_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(Malformed, match="twice"):
        parse(field("int"), field("long"))
    with pytest.raises(Malformed, match="twice"):
        parse(field(record("P", field("int"), field("long"))))


def test_type_that_we_do_not_know_is_refused() -> None:
    with pytest.raises(Malformed):
        parse(field({"type": "error", "name": "E", "fields": []}))
