"""Schemas: what is taken, what is refused, and the codecs made of them."""

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.columns import pack_all, split
from fabric.model.errors import Malformed, UsageError
from fabric.model.schema import RowSchema

FIELDS: list[Any] = [
    {"name": "id", "type": "long"},
    {"name": "born", "type": {"type": "int", "logicalType": "date"}},
    {"name": "phone", "type": ["null", "string"], "default": None},
    {"name": "nothing", "type": "null"},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
    {"name": "again", "type": "Kind"},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9}},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "more", "type": {"type": "map", "values": ["null", "double"]}},
    {
        "name": "place",
        "type": {"type": "record", "name": "P", "fields": [{"name": "x", "type": "float"}]},
    },
]
ROW = {
    "id": 5,
    "born": 10_000,
    "phone": None,
    "nothing": None,
    "kind": "b",
    "again": "a",
    "hash": b"abcd",
    "amount": b"\x01",
    "tags": ["x"],
    "more": {"k": 1.5},
    "place": {"x": 0.5},
}


def text(fields: list[Any] = FIELDS, **extra: Any) -> str:
    return json.dumps({"type": "record", "name": "Row", "fields": fields, **extra})


def test_schema_is_taken_with_its_fields_and_key() -> None:
    schema = RowSchema.parse(text(), ("id", "born"))
    assert schema.key == ("id", "born")
    assert schema.fields[:3] == ("id", "born", "phone")
    with pytest.raises(UsageError):
        schema.type_of("other")


def test_row_goes_through_the_codec_in_physical_types() -> None:
    schema = RowSchema.parse(text(), ("id", "born"))
    key = {"id": 5, "born": 10_000}
    rows, nulls = split([ROW], schema.columns)
    keys, _ = split([key], schema.key_columns)
    packed = [pack_all(rows, schema.columns), pack_all(keys, schema.key_columns)]
    datum = {"runs": [], "nulls": nulls, "rows": packed[0], "keys": packed[1]}
    out = BytesIO()
    fastavro.schemaless_writer(out, schema.block_codec, datum)
    out.seek(0)
    assert fastavro.schemaless_reader(out, schema.block_codec, None) == datum
    change = {
        "origin": "G01/registry/db",
        "op": 0,
        "generation": 1,
        "position": 2,
        "ordinal": 3,
        "commit_us": 4,
        "absent": ["phone"],
        "row": ROW,
        "key": None,
    }
    out = BytesIO()
    fastavro.schemaless_writer(out, schema.change_codec, change)
    out.seek(0)
    assert fastavro.schemaless_reader(out, schema.change_codec, None) == change


def test_open_change_begins_with_its_origin() -> None:
    """The gateway compares these bytes without decoding the rest."""
    schema = RowSchema.parse(text(), ("id",))
    assert schema.change_declared["fields"][0] == {"name": "origin", "type": "string"}


def test_declared_schema_keeps_logical_types_for_other_tools() -> None:
    schema = RowSchema.parse(text(), ("id",))
    row = schema.change_declared["fields"][7]["type"][1]
    assert row["fields"][1]["type"]["logicalType"] == "date"
    fastavro.parse_schema(schema.change_declared, named_schemas={})


def test_fingerprint_is_of_the_content_and_not_of_its_white_space() -> None:
    loose = json.dumps(json.loads(text()), indent=3, sort_keys=True)
    one, two = RowSchema.parse(text(), ("id",)), RowSchema.parse(loose, ("id",))
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 32
    assert one == two
    assert hash(one) == hash(two)
    other = RowSchema.parse(text([*FIELDS, {"name": "z", "type": "int"}]), ("id",))
    assert other.fingerprint != one.fingerprint
    assert one != RowSchema.parse(text(), ("born",))
    assert one != "something"


@pytest.mark.parametrize(
    "key",
    [
        (),
        ("id", "id"),
        ("other",),
        ("phone",),
        ("nothing",),
        ("kind",),
        ("again",),
        ("hash",),
        ("tags",),
        ("more",),
        ("place",),
    ],
)
def test_key_that_is_missing_nullable_or_not_simple_is_refused(key: tuple[str, ...]) -> None:
    with pytest.raises(Malformed, match="key"):
        RowSchema.parse(text(), key)


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "null",
        "5",
        '"int"',
        "[]",
        '["null", "int"]',
        '{"type": "array", "items": "int"}',
        '{"type": "record"}',
        '{"type": "record", "name": "R"}',
        '{"type": "record", "name": "R", "fields": 5}',
        '{"type": "record", "name": "R", "fields": [5]}',
        '{"type": "record", "name": "R", "fields": []}',
        '{"type": "record", "name": 5, "fields": []}',
        '{"type": "record", "name": "R", "fields": [{"name": "id"}]}',
        '{"type": "record", "name": "R", "fields": [{"name": "id", "type": "what"}]}',
        '{"type": "record", "name": "R", "fields": [{"name": "id", "type": null}]}',
        '{"type": ["record"], "name": "R", "fields": []}',
        "[" * 100_000,
        " " * 300_000,
        b"\xff\xfe\xfd",
    ],
    ids=lambda s: str(s)[:60],
)
def test_what_is_no_record_schema_is_malformed_and_nothing_else(schema: str | bytes) -> None:
    with pytest.raises(Malformed):
        RowSchema.parse(schema, ("id",))


@pytest.mark.parametrize(
    "name", ["fabric.Rows", "fabric.Keys", "fabric.Key", "fabric.Change", "fabric.Run"]
)
def test_name_that_the_fabrics_own_records_use_is_refused(name: str) -> None:
    inner = {"type": "record", "name": name, "fields": [{"name": "x", "type": "int"}]}
    fields = [{"name": "id", "type": "long"}, {"name": "inner", "type": inner}]
    with pytest.raises(Malformed, match="fabric's own"):
        RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["record", "int", "R", "null", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_json_is_a_schema_or_malformed(type_: Any, whole: Any) -> None:
    field = {"name": "x", "type": type_}
    for value in (whole, {"type": "record", "name": "R", "fields": [FIELDS[0], field]}):
        try:
            RowSchema.parse(json.dumps(value), ("id",))
        except Malformed:
            continue


@pytest.mark.parametrize(
    "wrong",
    [
        text(doc="\ud800"),
        text().replace('"Row"', '"Row", "doc": 1e999'),
        text().replace('"Row"', '"Row", "doc": NaN'),
        text().replace('"name": "id"', '"name": "other", "name": "id"'),
        text().encode("utf-16"),
        b"\xff" + text().encode(),
    ],
    ids=["half a surrogate", "infinite", "no number", "key twice", "utf-16", "not utf-8"],
)
def test_text_that_readers_could_read_in_two_ways_or_not_write_is_malformed(
    wrong: str | bytes,
) -> None:
    with pytest.raises(Malformed):
        RowSchema.parse(wrong, ("id",))
