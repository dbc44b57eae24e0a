"""The model under any input: inverses are inverses, and garbage is a PeerError, no more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model import canonical
from fabric.model.block import Block, pack, trim, unpack
from fabric.model.change import MARKS, Op, Run, Sequence, after, changes_of, said
from fabric.model.errors import PeerError
from fabric.model.label import Label
from fabric.model.limits import CBOR_ITEMS_MAX
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema

STREAM = Stream(Origin.parse("G01/registry/db"), Topic.parse("secret.G01.residents"), 0)
SCHEMA = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Row",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "code", "type": "string"},
                {"name": "flag", "type": ["null", "boolean"]},
                {"name": "score", "type": "double"},
                {"name": "data", "type": "bytes"},
                {"name": "list", "type": {"type": "array", "items": ["null", "string"]}},
            ],
        }
    ),
    ("id", "code"),
)
LONGS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8)
KEYS = st.fixed_dictionaries({"id": LONGS, "code": TEXT})
ROWS = st.fixed_dictionaries(
    {
        "id": LONGS,
        "code": TEXT,
        "flag": st.none() | st.booleans(),
        "score": st.floats(allow_nan=False),
        "data": st.binary(max_size=8),
        "list": st.lists(st.none() | TEXT, max_size=3),
    }
)
VALUES = st.recursive(
    st.integers(-(2**17), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-(2**17), 2**16), inner, max_size=4)
    ),
    max_leaves=20,
).filter(lambda value: _depth(value) <= 8)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 1


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any block that keeps the rules."""
    generation = draw(st.integers(1, 2**40))
    position, ordinal = draw(st.integers(0, 2**40)), draw(st.integers(0, 5))
    start = Sequence(generation, position, ordinal)
    runs: list[Run] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            position, ordinal = position + draw(st.integers(1, 100)), 0
        op = draw(st.sampled_from(Op))
        rows: list[Any] = []
        if op not in MARKS:
            kind = ROWS if op is Op.UPSERT else KEYS
            rows = draw(st.lists(kind, min_size=1, max_size=4))
        first = ordinal + draw(st.integers(1, 3))
        absent = tuple(draw(st.lists(st.sampled_from(SCHEMA.fields), max_size=2)))
        commit_us = draw(st.integers(0, 2**50))
        steps = [draw(st.integers(1, 2**40)) for _ in rows[1:]] if draw(st.booleans()) else []
        made = Run(
            op=op,
            position=position,
            ordinal=first,
            commit_us=commit_us,
            rows=rows,
            absent=absent,
            steps=said(steps),
        )
        ordinal = made.last_ordinal
        runs.append(made)
    end = Sequence(generation, position, ordinal + draw(st.integers(0, 5)))
    return Block(stream=STREAM, after=start, upto=end, runs=tuple(runs))


def sequences(block: Block) -> list[Sequence]:
    return [
        change.sequence
        for run in block.runs
        for change in changes_of(run, block.generation, STREAM.topic, STREAM.origin)
    ]


@given(VALUES)
def test_canonical_values_come_back(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data, items_max=CBOR_ITEMS_MAX) == value
    assert canonical.encode(canonical.decode(data, items_max=CBOR_ITEMS_MAX)) == data


@given(st.binary(max_size=300))
def test_bytes_are_one_value_or_malformed(data: bytes) -> None:
    try:
        value = canonical.decode(data, items_max=CBOR_ITEMS_MAX)
    except PeerError:
        return
    assert canonical.encode(value) == data


@given(VALUES, st.data())
def test_changed_bytes_are_another_value_or_malformed(value: Any, data: st.DataObject) -> None:
    good = canonical.encode(value)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    try:
        other = canonical.decode(bytes(bad), items_max=CBOR_ITEMS_MAX)
    except PeerError:
        return
    assert other != value


@given(blocks())
def test_blocks_come_back(block: Block) -> None:
    data = pack(block, SCHEMA)
    assert unpack(data, SCHEMA, stream=STREAM, after=block.after, upto=block.upto) == block
    assert len(sequences(block)) == block.count


@given(blocks(), st.binary(max_size=200), st.data())
def test_garbage_is_a_block_or_a_peer_error(
    block: Block, garbage: bytes, data: st.DataObject
) -> None:
    good = bytearray(pack(block, SCHEMA))
    if good:
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] ^= data.draw(st.integers(1, 255))
    for wrong in (garbage, bytes(good)):
        try:
            opened = unpack(wrong, SCHEMA, stream=STREAM, after=block.after, upto=block.upto)
        except PeerError:
            continue
        found = sequences(opened)
        assert found == sorted(set(found))
        assert all(block.after < one <= block.upto for one in found)


@given(blocks(), st.data())
def test_trim_keeps_exactly_what_lies_after(block: Block, data: st.DataObject) -> None:
    every = sequences(block)
    marks = [block.after, block.upto, Sequence(0, 0, 0), Sequence(2**41, 0, 0), *every]
    high = data.draw(st.sampled_from(marks))
    rest = trim(block, high)
    assert sequences(rest) == [one for one in every if one > high]
    assert rest.upto == block.upto
    assert rest.after == min(max(block.after, high), block.upto)
    again = unpack(pack(rest, SCHEMA), SCHEMA, stream=STREAM, after=rest.after, upto=rest.upto)
    assert again == rest


@given(blocks(), st.data())
def test_after_cuts_a_run_between_two_changes(block: Block, data: st.DataObject) -> None:
    for run in block.runs:
        first = Sequence(block.generation, run.position, run.ordinal)
        near = data.draw(st.sampled_from(run.ordinals)) + data.draw(st.integers(-1, 1))
        high = first._replace(ordinal=near)
        rest = after(run, block.generation, high)
        kept = [ordinal for ordinal in run.ordinals if ordinal > near]
        assert ([] if rest is None else [*rest.ordinals]) == kept
        if rest is not None and run.op not in MARKS:
            assert [*rest.rows] == [*run.rows][-len(kept) :]


@given(ROWS, st.binary(min_size=32, max_size=32), st.integers(1, 64))
def test_partition_is_a_function_of_the_key_alone(row: Any, salt: bytes, number: int) -> None:
    key = key_bytes(SCHEMA, row)
    assert key == key_bytes(SCHEMA, {"id": row["id"], "code": row["code"]})
    assert 0 <= partition_of(key, salt, number) < number


@given(st.text(max_size=60) | st.text(alphabet="G01/a-.+z", max_size=20))
def test_any_text_is_a_name_that_is_written_the_same_or_malformed(text: str) -> None:
    for kind in (HostId, Origin, Topic, Label):
        try:
            assert str(kind.parse(text)) == text
        except PeerError:
            continue


def test_row_with_a_number_too_large_does_not_travel() -> None:
    row: Any = {"id": 2**63, "code": "", "flag": None, "score": 0.0, "data": b"", "list": []}
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=0, rows=[row])
    block = Block(stream=STREAM, after=Sequence(1, 0, 0), upto=Sequence(1, 2, 0), runs=(run,))
    with pytest.raises(PeerError):
        pack(block, SCHEMA)
