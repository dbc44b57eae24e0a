"""An open record is counted before it is decoded."""

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest

from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import OPEN_VALUES_MAX
from fabric.model.open_count import OpenCount
from fabric.model.schema import RowSchema
from tests.unit.model.test_skim import count

LINE = {"type": "record", "name": "L", "fields": [{"name": "t", "type": "string"}]}
LINES = {"type": "array", "items": LINE}
START = count(1) + b"o" + count(0) + count(1) * 3 + b"\0"
"""Origin, operation, generation, position, ordinal and commit time."""
UPSERT = START + b"\0" + count(1) + count(7)
"""With nothing absent, the index of a row, and its number."""


def schema(*types: Any) -> RowSchema:
    fields = [{"name": "id", "type": "long"}]
    fields += [{"name": f"c{at}", "type": kind} for at, kind in enumerate(types)]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


def written(it: RowSchema, row: dict[str, Any] | None, *absent: str) -> bytes:
    datum = {"origin": "G01/r/main", "op": 0 if row else 1, "absent": absent, "row": row}
    datum |= {"generation": 2**40, "position": 2**50, "ordinal": 1, "commit_us": -1}
    out = BytesIO()
    key = None if row else {"id": 7}
    fastavro.schemaless_writer(out, it.change_codec, {**datum, "key": key})
    return out.getvalue()


def test_a_row_without_arrays_counts_what_its_type_can_have() -> None:
    """MUST-8.3: row, its fields, the longer branch of a union, key, its field, what is absent."""
    it = schema("string", ["null", LINE], ["int", "null"])
    row = {"id": 1, "c0": "a", "c1": None, "c2": 5}
    assert it.open_count.of(written(it, row), 0) == 1 + 1 + 1 + 2 + 1 + 2
    assert it.open_count.of(written(it, None, "c0", "c1"), 0) == 8 + 2


def test_values_in_arrays_and_maps_are_counted_each() -> None:
    it = schema(LINES, {"type": "map", "values": ["null", "int"]})
    row = {"id": 1, "c0": [{"t": "a"}, {"t": "b"}], "c1": {"k": None, "l": 3}}
    assert it.open_count.of(written(it, row), 0) == 1 + 1 + (1 + 2 * 2) + (1 + 2 * 2) + 1
    assert it.open_count.of(written(it, None), 0) == 1 + 2


def test_columns_are_absent_at_most_all_of_them() -> None:
    """MUST-8.2."""
    it = schema("int")
    row = {"id": 1, "c0": 0}
    it.open_count.of(written(it, row, "id", "c0"), 0)
    with pytest.raises(Malformed):
        it.open_count.of(written(it, row, "id", "c0", ""), 0)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\x80" * 11,
        START,
        START[:-2],
        START + b"\1\2\0\0" + UPSERT[-2:],
        START + count(1) + b"\0" + count(1) + b"\0\0" + UPSERT[-2:],
        START + b"\x80\0" + UPSERT[-2:],
        START + count(1) + count(99) + b"a",
        UPSERT,
        UPSERT + b"\1\2\0\0" + b"\0",
        UPSERT + count(1) + b"\0" + count(1) + b"\0\0" + b"\0",
        UPSERT + b"\x80\0" + b"\0",
        UPSERT + count(1) + count(99) + b"a",
        UPSERT[:-2] + b"\1" + b"\0",
        UPSERT[:-2] + b"\4" + b"\0",
    ],
)
def test_a_record_that_cannot_be_counted_is_malformed(wrong: bytes) -> None:
    """MUST-8.2."""
    with pytest.raises(Malformed):
        schema(LINES).open_count.of(wrong, 0)


def test_too_many_values_are_too_large() -> None:
    """MUST-8.3."""
    with pytest.raises(DeniedError) as caught:
        schema(LINES).open_count.of(UPSERT + count(OPEN_VALUES_MAX) + bytes(OPEN_VALUES_MAX), 0)
    assert caught.value.reason is Reason.TOO_LARGE


def test_no_record_has_more_values_than_its_bytes_can_be() -> None:
    """Whatever its bytes are spent for."""
    wide: dict[str, Any] = {"type": "record", "name": "W", "fields": [{"name": "n", "type": "int"}]}
    wide["fields"] = [*wide["fields"], *({"name": f"n{i}", "type": "null"} for i in range(100))]
    for kind in (LINES, {"type": "array", "items": wide}, {"type": "map", "values": LINE}):
        it = schema(kind).open_count
        data = UPSERT + count(1_000) + bytes(2_000) + b"\0\0"
        assert it.of(data, 0) < it.most(len(data)) < 10 * it.of(data, 0)


def test_a_recursive_change_has_no_count() -> None:
    row: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}
    fields = [{"name": "row", "type": ["null", row]}, {"name": "key", "type": ["null"]}]
    with pytest.raises(KeyError):
        OpenCount({"fields": fields})
