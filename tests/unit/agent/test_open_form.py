"""The open form: one record a change, and back."""

import json
import tracemalloc
from dataclasses import replace
from io import BytesIO
from itertools import count as numbers
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.agent.open_form import Placed, decode, encode, gather, try_decode
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence, changes_of
from fabric.model.errors import FabricError, Reason
from fabric.model.limits import OPEN_VALUES_MAX
from fabric.model.names import Origin, Stream
from fabric.model.schema import RowSchema
from fabric.policy.types import Dataset
from tests.fakes.platform import OPEN, ORIGIN, dataset
from tests.unit.model.test_skim import count

WARDS = dataset(OPEN)
STREAM = Stream(ORIGIN, OPEN, 0)


def run(op: Op, position: int, *ids: int, ordinal: int = 1) -> Run:
    rows = [{"id": i, "text": f"note {i}"} if op is Op.UPSERT else {"id": i} for i in ids]
    return Run(op=op, position=position, ordinal=ordinal, commit_us=7, rows=rows)


def block(*runs: Run) -> Block:
    last = runs[-1]
    upto = Sequence(3, last.position, last.last_ordinal)
    return Block(stream=STREAM, after=ZERO, upto=upto, runs=runs)


MIXED = block(
    run(Op.SNAPSHOT_BEGIN, 10),
    run(Op.UPSERT, 10, 1, 2, 3, ordinal=2),
    run(Op.DELETE, 11, 2),
    run(Op.TRUNCATE, 12),
)


def test_changes_survive_the_way_there_and_back() -> None:
    values = encode(MIXED, WARDS)
    sent = [c for r in MIXED.runs for c in changes_of(r, 3, OPEN, ORIGIN)]
    assert [decode(value, WARDS) for value in values] == sent
    good, bad = try_decode(enumerate(values), WARDS)
    assert bad == []
    (gathered,) = gather(good, OPEN, 0)
    assert gathered.block.runs == MIXED.runs
    assert gathered.offset == len(values) - 1


def test_any_avro_tool_reads_a_record_by_the_registrys_schema() -> None:
    value = encode(MIXED, WARDS)[1]
    assert value[:5] == b"\x00" + WARDS.schema_id.to_bytes(4)
    schema = fastavro.parse_schema(WARDS.schema.change_declared, named_schemas={})
    datum = fastavro.schemaless_reader(BytesIO(value[5:]), schema, None)
    assert datum["origin"] == str(ORIGIN)
    assert datum["row"]["text"] == "note 1"


def test_a_new_stream_a_repeat_or_a_new_generation_begins_a_new_block() -> None:
    changes = [decode(value, WARDS) for value in encode(MIXED, WARDS)]
    other = Origin.parse("G01/registry/other")
    newer = changes[2]._replace(sequence=Sequence(4, 1, 1))
    series = [changes[1], changes[2], changes[1], changes[2]._replace(origin=other), newer]
    placed = [Placed(change=change, offset=n) for n, change in enumerate(series)]
    found = list(gather(placed, OPEN, 0))
    assert [g.offset for g in found] == [1, 2, 3, 4]


def _refused(value: bytes) -> Reason:
    with pytest.raises(FabricError) as caught:
        decode(value, WARDS)
    return caught.value.reason


def test_foreign_records_are_refused_each_for_its_reason() -> None:
    good = encode(MIXED, WARDS)[1]
    assert _refused(b"") is Reason.MALFORMED
    assert _refused(b"{}      ") is Reason.MALFORMED
    assert _refused(b"\x00" + (9).to_bytes(4) + good[5:]) is Reason.SCHEMA_UNKNOWN
    assert _refused(good + b"\x00") is Reason.MALFORMED
    assert _refused(good[:-1]) is Reason.MALFORMED
    assert _refused(bytes(300_000)) is Reason.TOO_LARGE
    foreign = replace(WARDS, producers=(Origin.parse("G02/health/x"),))
    with pytest.raises(FabricError) as caught:
        decode(good, foreign)
    assert caught.value.reason is Reason.NOT_A_PRODUCER


def test_a_row_that_does_not_fit_the_operation_is_refused() -> None:
    def with_(**changes: object) -> bytes:
        datum = {
            "origin": str(ORIGIN), "op": 0, "generation": 1, "position": 1, "ordinal": 1,
            "commit_us": 0, "absent": [], "row": {"id": 1, "text": "x"}, "key": None, **changes,
        }  # fmt: skip
        out = BytesIO()
        fastavro.schemaless_writer(out, WARDS.schema.change_codec, datum)
        return b"\x00" + WARDS.schema_id.to_bytes(4) + out.getvalue()

    decode(with_(), WARDS)
    for changes in (
        {"row": None},
        {"key": {"id": 1}},
        {"op": 1},
        {"op": 2},
        {"op": 99},
        {"ordinal": 0},
        {"position": -1},
        {"generation": -1},
    ):
        assert _refused(with_(**changes)) is Reason.MALFORMED


@given(st.binary(max_size=200))
def test_garbage_raises_ours_and_nothing_else(data: bytes) -> None:
    for value in (data, b"\x00" + WARDS.schema_id.to_bytes(4) + data):
        good, bad = try_decode([(0, value)], WARDS)
        assert len(good) + len(bad) == 1


def test_a_record_without_a_value_is_refused() -> None:
    assert try_decode([(3, None)], WARDS) == ([], [(3, Reason.MALFORMED)])


EMPTY: dict[str, Any] = {"type": "record", "name": "L", "fields": [{"name": "t", "type": "string"}]}
EMPTY["fields"] = [*EMPTY["fields"], *({"name": f"n{i}", "type": "null"} for i in range(100))]


def of_lines(lines: Any) -> Dataset:
    """A dataset of rows with a number and lines."""
    fields = [{"name": "id", "type": "long"}, {"name": "lines", "type": lines}]
    declared = {"type": "record", "name": "R", "fields": fields}
    return dataset(OPEN, schema=RowSchema.parse(json.dumps(declared), ("id",)))


def record(it: Dataset, lines: bytes, *, absent: bytes = b"\0") -> bytes:
    """An upsert whose lines are these bytes."""
    origin = str(ORIGIN).encode()
    start = b"\0" + it.schema_id.to_bytes(4) + count(len(origin)) + origin
    return start + b"\0" + count(1) * 3 + b"\0" + absent + count(1) + count(7) + lines + b"\0"


def empty(many: int) -> bytes:
    return count(many) + bytes(many) + b"\0"


WIDE = of_lines({"type": "array", "items": EMPTY})
BOOLEANS = of_lines({"type": "array", "items": "boolean"})


def some_at_a_time(
    rest: list[tuple[int, bytes | None]],
) -> tuple[list[Placed], list[tuple[int, Reason]]]:
    """What a reader gets of them, coming again with the rest."""
    good: list[Placed] = []
    bad: list[tuple[int, Reason]] = []
    while rest:
        taken, refused = try_decode(rest, WIDE)
        good, bad, rest = good + taken, bad + refused, rest[len(taken) + len(refused) :]
    return good, bad


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (record(WIDE, empty(5_000)), Reason.TOO_LARGE),
        (record(WIDE, b"\1\2\0\0"), Reason.MALFORMED),
        (record(WIDE, count(1) + b"\0" + empty(5_000)), Reason.MALFORMED),
        (record(WIDE, b"\x80\0"), Reason.MALFORMED),
        (record(WIDE, empty(1), absent=empty(200_000)), Reason.MALFORMED),
        (record(WIDE, empty(1), absent=count(1) + b"\0" + empty(100_000)), Reason.MALFORMED),
    ],
    ids=["records", "negative", "pieces", "long", "absent", "absent in pieces"],
)
def test_a_record_of_very_many_values_is_refused_before_they_are_made(
    value: bytes, reason: Reason
) -> None:
    """MUST-8.2, MUST-8.3: what comes before and after it in a poll is taken."""
    good = record(WIDE, empty(3), absent=count(2) + b"\2a\2b\0")
    tracemalloc.start()
    try:
        taken, bad = some_at_a_time([(4, good), (5, value), (6, good)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [item.offset for item in taken] == [4, 6]
    assert bad == [(5, reason)]
    assert peak < 2**20


def test_a_record_has_as_many_values_as_it_may_and_no_more() -> None:
    """MUST-8.3: row, number, list, what is in it, and no key; writer and reader count."""
    for many in (OPEN_VALUES_MAX - 4, OPEN_VALUES_MAX - 3):
        rows: list[Any] = [{"id": 7, "lines": [False] * many}]
        upsert = block(Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=0, rows=rows))
        if many == OPEN_VALUES_MAX - 4:
            [value] = encode(upsert, BOOLEANS)
            assert decode(value, BOOLEANS).row == rows[0]
            continue
        with pytest.raises(FabricError) as caught:
            encode(upsert, BOOLEANS)
        assert caught.value.reason is Reason.TOO_LARGE
        assert try_decode([(1, record(BOOLEANS, empty(many)))], BOOLEANS) == (
            [],
            [(1, Reason.TOO_LARGE)],
        )


def test_many_rich_records_are_decoded_some_at_a_time_and_all_of_them() -> None:
    """Else a poll of records, each within its bound, would be hundreds of megabytes."""
    rest = list(zip(numbers(), [record(WIDE, empty(1_000))] * 9, strict=False))
    found = []
    while rest:
        good, bad = try_decode(rest, WIDE)
        found.append(len(good))
        assert not bad
        rest = rest[len(good) :]
    assert found == [3, 3, 3]


def test_refused_records_count_as_what_they_may_have_cost() -> None:
    """Else a poll of them would be one long step that nothing ends."""
    value = record(WIDE, empty(5_000))
    assert try_decode([(1, value), (2, value)], WIDE) == ([], [(1, Reason.TOO_LARGE)])
