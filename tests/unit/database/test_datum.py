import json

import pytest

from fabric.database.datum import decode_change, encode_change, written
from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import Malformed
from fabric.model.names import Origin
from fabric.model.schema import RowSchema
from fabric.policy.compatible import why_not
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE_SCHEMA, note

ORIGIN = Origin("G01", "registry", "main")


def change(op: Op, row: "dict[str, object] | None", absent: tuple[str, ...] = ()) -> Change:
    return Change(
        topic=NOTES,
        origin=ORIGIN,
        op=op,
        sequence=Sequence(1, 2**62, 3),
        commit_us=5,
        row=row,  # type: ignore[arg-type]  # tests pass plain values
        absent=absent,
    )


@pytest.mark.parametrize(
    "one",
    [
        change(Op.UPSERT, note("a", 1, None), ("body",)),
        change(Op.UPSERT, note("a", -1, "x")),
        change(Op.DELETE, {"region": "a", "number": 1}),
        change(Op.TRUNCATE, None),
    ],
    ids=lambda one: one.op.name,
)
def test_a_change_survives_bytes(one: Change) -> None:
    assert decode_change(encode_change(one, NOTES_SCHEMA), NOTES_SCHEMA, NOTES) == one


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Malformed) as caught:
        encode_change(change(Op.UPSERT, {"region": 7, "number": "x"}), NOTES_SCHEMA)
    assert "7" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40])
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_change(data, PEOPLE_SCHEMA, NOTES)


FIELDS: list[dict[str, object]] = [
    {"name": "id", "type": "long"},
    {"name": "full_name", "type": "string"},
    {"name": "address", "type": "string"},
]
ROW: dict[str, object] = {"id": 1, "full_name": "An", "address": "Hanoi"}


def items(*fields: dict[str, object]) -> RowSchema:
    text = json.dumps({"type": "record", "name": "Item", "fields": list(fields)})
    return RowSchema.parse(text, ("id",))


def read_by(old: RowSchema, new: RowSchema, one: Change) -> Change:
    """What comes back of a change of one schema under another that the policy would allow."""
    assert why_not(old, new) is None
    return decode_change(encode_change(one, old), new, NOTES, by=written(old).text)


def test_what_is_exact_has_its_fields_and_no_others_at_every_depth() -> None:
    inner = {"type": "record", "name": "In", "fields": [{"name": "a", "type": ["null", "int"]}]}
    schema = items(*FIELDS, {"name": "inner", "type": inner})
    good = change(Op.UPSERT, {**ROW, "inner": {"a": None}})
    assert encode_change(good, schema, exact=True) == encode_change(good, schema)
    for wrong in ({}, {"a": 1, "b": 2}):
        with pytest.raises(Malformed):
            encode_change(change(Op.UPSERT, {**ROW, "inner": wrong}), schema, exact=True)


def test_fields_in_another_order_are_read_by_their_names() -> None:
    old, new = items(*FIELDS), items(*reversed(FIELDS))
    one = change(Op.UPSERT, ROW, ("address",))
    assert read_by(old, new, one) == one
    gone = change(Op.DELETE, {"id": 1})
    assert read_by(old, new, gone) == gone


def test_new_fields_get_their_defaults_and_fields_that_are_gone_go() -> None:
    inner = {"name": "mark", "type": "bytes", "default": "\u00fe"}
    fixed = {"type": "fixed", "name": "Two", "size": 2}
    record = {"type": "record", "name": "Inner", "fields": [inner, {"name": "two", "type": "Two"}]}
    day = {"type": "int", "logicalType": "date"}
    new = items(
        FIELDS[1],
        {"name": "phone", "type": ["null", "string"], "default": None},
        {"name": "photo", "type": ["bytes", "null"], "default": "\u00ff"},
        {"name": "two", "type": fixed, "default": "ab"},
        {"name": "inner", "type": record, "default": {"two": "cd"}},
        {"name": "list", "type": {"type": "array", "items": "bytes"}, "default": ["x"]},
        {"name": "map", "type": {"type": "map", "values": "long"}, "default": {"a": 1}},
        {"name": "born", "type": ["null", day]},
        FIELDS[0],
    )
    old = items(*FIELDS, {"name": "born", "type": day})
    found = read_by(old, new, change(Op.UPSERT, {**ROW, "born": 7}, ("address", "born")))
    assert found.row == {
        "full_name": "An",
        "phone": None,
        "photo": b"\xff",
        "two": b"ab",
        "inner": {"mark": b"\xfe", "two": b"cd"},
        "list": [b"x"],
        "map": {"a": 1},
        "born": 7,
        "id": 1,
    }
    assert found.absent == ("born",)


def test_a_renamed_field_stays_absent() -> None:
    new = items(*FIELDS[:2], {"name": "home", "type": "string", "aliases": ["address"]})
    found = read_by(items(*FIELDS), new, change(Op.UPSERT, ROW, ("address",)))
    assert (found.row, found.absent) == ({"id": 1, "full_name": "An", "home": "Hanoi"}, ("home",))


def test_a_schema_that_cannot_read_it_says_so() -> None:
    old, new = items(*FIELDS), items(*FIELDS, {"name": "more", "type": "string"})
    data = encode_change(change(Op.UPSERT, ROW), old)
    for by in (written(old).text, None, "", "{}"):
        with pytest.raises(Malformed):
            decode_change(data, new, NOTES, by=by)


def test_bytes_left_over_are_refused() -> None:
    old, new = items(*FIELDS, {"name": "more", "type": ["null", "string"]}), items(*FIELDS)
    data = encode_change(change(Op.UPSERT, {**ROW, "more": "Ba"}), old)
    with pytest.raises(Malformed, match="left over"):
        decode_change(data + b"\x00", old, NOTES, by=written(old).text)
    with pytest.raises(Malformed):
        decode_change(data, new, NOTES)


def test_what_is_kept_tells_schemas_and_keys_apart() -> None:
    one = written(NOTES_SCHEMA)
    same = RowSchema.parse(json.dumps(NOTES_SCHEMA.declared), NOTES_SCHEMA.key)
    other = RowSchema.parse(json.dumps(NOTES_SCHEMA.declared), NOTES_SCHEMA.key[::-1])
    assert written(same) == one
    assert len({one.id, written(other).id, written(PEOPLE_SCHEMA).id}) == 3
