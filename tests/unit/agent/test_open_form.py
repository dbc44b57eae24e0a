"""The open form: one record a change, and back."""

from dataclasses import replace
from io import BytesIO

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.agent.open_form import Placed, decode, encode, gather, try_decode
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence, changes_of
from fabric.model.errors import FabricError, Reason
from fabric.model.names import Origin, Stream
from tests.fakes.platform import OPEN, ORIGIN, dataset

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
