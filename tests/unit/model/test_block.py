"""Blocks: pack and unpack are inverses, trim cuts, and a lie in the bytes is refused."""

import json
import traceback
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from typing import Any

import fastavro
import pytest

from fabric.model.block import Block, pack, trim, unpack
from fabric.model.change import ZERO, Op, Run, Sequence, end_of
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import (
    BLOCK_CHANGES_MAX,
    BLOCK_NULLS_MAX,
    BLOCK_VALUES_MAX,
    QUICK_NULLS_MAX,
    QUICK_RUNS_MAX,
    QUICK_VALUES_MAX,
)
from fabric.model.names import Origin, Stream, Topic
from fabric.model.schema import RowSchema

STREAM = Stream(Origin.parse("G01/registry/db"), Topic.parse("secret.G01.residents"), 0)
SCHEMA = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Resident",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "name", "type": ["null", "string"]},
            ],
        }
    ),
    ("id",),
)


END = end_of(1, 9)


def upsert(position: int, ordinal: int, *ids: int) -> Run:
    rows: list[Any] = [{"id": n, "name": f"name {n}"} for n in ids]
    return Run(op=Op.UPSERT, position=position, ordinal=ordinal, commit_us=7, rows=rows)


RUNS = (
    Run(op=Op.SNAPSHOT_BEGIN, position=5, ordinal=1, commit_us=1, rows=[]),
    upsert(5, 2, 1, 2, 3),
    Run(op=Op.DELETE, position=6, ordinal=1, commit_us=2, rows=[{"id": 1}, {"id": 2}]),
    Run(
        op=Op.UPSERT,
        position=6,
        ordinal=3,
        commit_us=2,
        rows=[{"id": 9, "name": None}],
        absent=("name",),
    ),
    Run(op=Op.TRUNCATE, position=7, ordinal=1, commit_us=3, rows=[]),
)


def block(*runs: Run, after: Sequence = ZERO, upto: Sequence = END) -> Block:
    return Block(stream=STREAM, after=after, upto=upto, runs=runs)


def opened(data: bytes, given: Block) -> Block:
    return unpack(data, SCHEMA, stream=given.stream, after=given.after, upto=given.upto)


def longs(values: Iterable[int]) -> bytes:
    """A column of longs, as docs/format.md section 4 has it."""
    return b"".join(value.to_bytes(8, "little", signed=True) for value in values)


def datum(**changed: Any) -> bytes:
    """Plaintext of one run of two upserts, with parts of it changed."""
    run = {"op": 0, "position": 5, "ordinal": 1, "commit_us": 7, "count": 2, "absent": []}
    run.update({k: v for k, v in changed.items() if k in run})
    places = [*range(changed.get("rows", 2))]
    value = {
        "runs": [run] * changed.get("runs", 1),
        "nulls": changed.get("nulls", [places]),
        "rows": {"id": longs(places), "name": changed.get("names", "")},
        "keys": {"id": longs(range(changed.get("keys", 0)))},
    }
    out = BytesIO()
    fastavro.schemaless_writer(out, SCHEMA.block_codec, value)
    return out.getvalue()


def test_block_comes_back_as_it_was() -> None:
    given = block(*RUNS)
    assert (given.count, given.generation) == (8, 1)
    assert opened(pack(given, SCHEMA), given) == given


def test_empty_block_comes_back_too() -> None:
    given = block()
    assert given.count == 0
    assert opened(pack(given, SCHEMA), given) == given


@pytest.mark.parametrize(
    ("high", "count", "after"),
    [
        (ZERO, 8, ZERO),
        (Sequence(1, 5, 1), 7, Sequence(1, 5, 1)),
        (Sequence(1, 5, 3), 5, Sequence(1, 5, 3)),
        (end_of(1, 5), 4, end_of(1, 5)),
        (Sequence(1, 6, 1), 3, Sequence(1, 6, 1)),
        (Sequence(1, 7, 1), 0, Sequence(1, 7, 1)),
        (end_of(1, 9), 0, end_of(1, 9)),
        (end_of(2, 1), 0, end_of(1, 9)),
    ],
)
def test_trim_drops_what_a_reader_has(high: Sequence, count: int, after: Sequence) -> None:
    rest = trim(block(*RUNS), high)
    assert (rest.count, rest.after, rest.upto) == (count, after, end_of(1, 9))
    assert trim(rest, high) == rest


def test_row_that_does_not_fit_is_malformed_and_shows_no_value() -> None:
    wrong = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=0, rows=[{"id": "Nguyen"}])
    with pytest.raises(Malformed) as caught:
        pack(block(wrong), SCHEMA)
    assert "Nguyen" not in str(caught.value)


_SEVERAL = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "R",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "code", "type": {"type": "fixed", "name": "Code", "size": 2}},
                {"name": "old", "type": ["null", "Code"]},
                {"name": "count", "type": ["null", "int"]},
                {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
                {"name": "tags", "type": {"type": "array", "items": "string"}},
            ],
        }
    ),
    ("id",),
)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", None),
        ("id", b"secret"),
        ("code", b"secret"),
        ("old", b"secret"),
        ("count", 2**31),
        ("count", "secret"),
        ("kind", "secret"),
        ("tags", ["secret \ud800"]),
    ],
)
def test_row_that_does_not_fit_names_its_column_and_no_value(column: str, value: Any) -> None:
    good = {"id": "a", "code": b"ab", "old": None, "count": None, "kind": "A", "tags": []}
    rows = [good, {**good, "old": b"cd"}, {**good, column: value}]
    run = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=0, rows=rows)
    with pytest.raises(Malformed, match=f"column {column}: a value does not fit") as caught:
        pack(block(run), _SEVERAL)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_row_or_key_that_lacks_a_column_names_it() -> None:
    lacks = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=0, rows=[{"id": "a"}])
    with pytest.raises(Malformed, match="column code: "):
        pack(block(lacks), _SEVERAL)
    for key in ({}, {"id": 1}):
        wrong = Run(op=Op.DELETE, position=5, ordinal=1, commit_us=0, rows=[key])
        with pytest.raises(Malformed, match="column id: "):
            pack(block(wrong), _SEVERAL)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"op": 9}, "unknown operation"),
        ({"op": -1}, "unknown operation"),
        ({"op": 1}, "another number"),
        ({"op": 2}, "another number"),
        ({"count": 1}, "another number"),
        ({"count": 3}, "another number"),
        ({"count": 0}, "no changes"),
        ({"count": -1}, "no changes"),
        ({"count": BLOCK_CHANGES_MAX + 1}, "too many"),
        ({"ordinal": 0}, "no ordinal"),
        ({"ordinal": -5}, "no ordinal"),
        ({"rows": 3}, "another number"),
        ({"keys": 1}, "another number"),
        ({"runs": 2, "rows": 4}, "rising order"),
        ({"position": 10}, "after the block's end"),
        ({"position": -1}, "rising order"),
        ({"ordinal": 2**63 - 2}, "ordinal is out of range"),
        ({"ordinal": 2**63 - 1}, "ordinal is out of range"),
    ],
    ids=str,
)
def test_lie_in_the_plaintext_is_malformed(changed: dict[str, Any], why: str) -> None:
    given = block(after=ZERO, upto=Sequence(0, 9, 5))
    assert opened(datum(), given).count == 2
    with pytest.raises(Malformed, match=why):
        opened(datum(**changed), given)


def test_what_a_reader_would_count_as_too_much_is_not_packed() -> None:
    """MUST-10.1 of MUST-4.15: halves of it are."""
    kind = {"type": "array", "items": "int"}
    fields = [{"name": "id", "type": "long"}, {"name": "list", "type": kind}]
    lists = RowSchema.parse(
        json.dumps({"type": "record", "name": "Lists", "fields": fields}), ("id",)
    )
    items = [0] * (BLOCK_VALUES_MAX // 2)
    rows: list[Any] = [{"id": n, "list": items} for n in range(2)]

    def packed(*some: Any) -> bytes:
        run = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=7, rows=some)
        return pack(block(run), lists)

    with pytest.raises(DeniedError) as caught:
        packed(*rows)
    assert caught.value.reason is Reason.TOO_LARGE
    data = packed(rows[0])
    assert unpack(data, lists, stream=STREAM, after=ZERO, upto=END).count == 1


def test_more_nulls_than_a_reader_takes_are_not_packed() -> None:
    """MUST-10.1 of MUST-4.16."""
    names = [f"c{at}" for at in range(BLOCK_NULLS_MAX // BLOCK_CHANGES_MAX)]
    fields = [{"name": name, "type": ["null", "int"]} for name in names]
    wide = RowSchema.parse(
        json.dumps(
            {"type": "record", "name": "W", "fields": [{"name": "id", "type": "long"}, *fields]}
        ),
        ("id",),
    )
    rows: list[Any] = [{"id": at, **dict.fromkeys(names)} for at in range(BLOCK_CHANGES_MAX)]

    def packed(some: Any, schema: RowSchema) -> bytes:
        run = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=7, rows=some)
        return pack(block(run), schema)

    assert packed(rows, wide)
    more = {**wide.declared, "fields": [*wide.declared["fields"], {**fields[0], "name": "more"}]}
    wider = RowSchema.parse(json.dumps(more), ("id",))
    with pytest.raises(DeniedError) as caught:
        packed(rows, wider)
    assert caught.value.reason is Reason.TOO_LARGE
    assert packed(rows[: len(rows) // 2], wider)


def test_more_names_of_absent_columns_than_a_reader_takes_are_not_packed() -> None:
    many = BLOCK_VALUES_MAX // 100 + 1
    run = Run(
        op=Op.UPSERT,
        position=5,
        ordinal=1,
        commit_us=2,
        rows=[{"id": 9, "name": None}],
        absent=("name",) * 100,
    )
    runs = [replace(run, ordinal=1 + at) for at in range(many)]
    assert pack(block(*runs[1:]), SCHEMA)
    with pytest.raises(DeniedError) as caught:
        pack(block(*runs), SCHEMA)
    assert caught.value.reason is Reason.TOO_LARGE


def test_what_is_decoded_quickly_has_few_runs_nulls_names_and_values_in_arrays() -> None:
    kind = {"type": "array", "items": "int"}
    fields = [{"name": "id", "type": "long"}, {"name": "list", "type": ["null", kind]}]
    lists = RowSchema.parse(
        json.dumps({"type": "record", "name": "Lists", "fields": fields}), ("id",)
    )

    def taken(runs: Iterable[Run], is_quick: bool) -> int:
        data = pack(block(*runs), lists)
        found = unpack(data, lists, stream=STREAM, after=ZERO, upto=END, is_quick=is_quick)
        return found.count

    def of(*values: Any, ordinal: int = 1, absent: tuple[str, ...] = ()) -> Run:
        rows = [{"id": 1, "list": value} for value in values]
        return Run(op=Op.UPSERT, position=5, ordinal=ordinal, commit_us=7, rows=rows, absent=absent)

    runs = [of(None, ordinal=1 + n) for n in range(QUICK_RUNS_MAX + 1)]
    list_ = [0] * (QUICK_VALUES_MAX - 1)
    for few, many in (
        (runs[1:], runs),
        ([of(*[None] * QUICK_NULLS_MAX)], [of(*[None] * (QUICK_NULLS_MAX + 1))]),
        ([of(list_)], [of([*list_, 0])]),
        ([of(list_)], [of(list_, absent=("list",))]),
    ):
        assert taken(few, is_quick=True) == taken(few, is_quick=False)
        assert taken(many, is_quick=False)
        with pytest.raises(Malformed):
            taken(many, is_quick=True)


def test_change_at_the_blocks_bounds_is_inside_after_and_upto() -> None:
    data = pack(block(upsert(5, 2, 1, 2)), SCHEMA)
    good = block(after=Sequence(1, 5, 1), upto=Sequence(1, 5, 3))
    assert opened(data, good).count == 2
    with pytest.raises(Malformed):
        opened(data, block(after=Sequence(1, 5, 2), upto=Sequence(1, 5, 3)))
    with pytest.raises(Malformed):
        opened(data, block(after=Sequence(1, 5, 1), upto=Sequence(1, 5, 2)))


def test_bytes_left_over_or_missing_are_malformed() -> None:
    given = block(*RUNS)
    data = pack(given, SCHEMA)
    for wrong in (data + b"\x00", data[:-1], b"", data[1:]):
        with pytest.raises(Malformed):
            opened(wrong, given)
