"""A block: every change of one stream in a range of sequences, and its plaintext bytes.

`pack` and `unpack` are inverses. The plaintext is one Avro datum: the runs, then
all rows of upserts in order, then all keys of deletes in order, both by column. Where
ordinals leave places out, as in each of several partitions, the steps follow.
Spec: docs/format.md section 4.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import repeat
from typing import Any

import fastavro

from fabric.model.change import MARKS, ORDINAL_MAX, Op, Row, Run, Sequence, after, said
from fabric.model.columns import Field, Rows, counts_of, join, pack_all, split, unpack_all
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import (
    BLOCK_CHANGES_MAX,
    BLOCK_NULLS_MAX,
    BLOCK_VALUES_MAX,
    QUICK_VALUES_MAX,
)
from fabric.model.names import Stream
from fabric.model.packing import Column
from fabric.model.schema import FRONT_CODEC, RowSchema
from fabric.model.skim import check_counts, check_steps
from fabric.model.walk import TooManyValues, walk_columns

_STEPS = fastavro.parse_schema({"type": "array", "items": "long"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Changes of one stream in `(after, upto]`, complete and in order; may be empty.

    Attributes:
        stream: origin, topic and partition.
        generation: life of the source; the same for every run.
        after: sequence that the previous block of the stream ended with.
        upto: this block holds every change of the stream up to here.
        runs: in rising order of (position, ordinal).
    """

    stream: Stream
    after: Sequence
    upto: Sequence
    runs: tuple[Run, ...]

    @property
    def generation(self) -> int:
        """Life of the source that all runs belong to."""
        return self.upto.generation

    @property
    def count(self) -> int:
        """Number of changes."""
        return sum(run.count for run in self.runs)


def trim(block: Block, high: Sequence) -> Block:
    """Drop every change at or before `high`, a reader's high-water sequence."""
    if block.after >= high:
        return block
    kept = (after(run, block.generation, high) for run in block.runs)
    start = min(high, block.upto)
    return replace(block, after=start, runs=tuple(run for run in kept if run is not None))


def pack(block: Block, schema: RowSchema) -> bytes:
    """Write a block's plaintext.

    Raises:
        Malformed: a row does not fit the schema; names the column.
        DeniedError: TOO_LARGE, more values stand in arrays, or are null, than a reader takes.
    """
    runs: list[dict[str, Any]] = []
    rows: list[Row] = []
    keys: list[Row] = []
    named = 0
    for run in block.runs:
        runs.append(_run_datum(run))
        if run.op is Op.UPSERT:
            rows.extend(run.rows)
        elif run.op is Op.DELETE:
            keys.extend(run.rows)
        if run.absent:
            named += len(run.absent)
    out = BytesIO()
    try:
        columns, nulls = split(rows, schema.columns)
        if sum(map(len, nulls)) > BLOCK_NULLS_MAX:
            raise TooManyValues("block has too many nulls")
        key_columns, _ = split(keys, schema.key_columns)
        front, has_arrays = _write(out, schema, runs, nulls, columns, key_columns)
        if named or has_arrays:
            due, left = _due(schema, nulls, len(rows), len(keys)), BLOCK_VALUES_MAX - named
            walk_columns(out.getvalue(), front, left=left, strides=schema.strides, counts=due)
        if any(run.steps for run in block.runs):
            fastavro.schemaless_writer(out, _STEPS, [*_all_steps(block.runs)])
    except TooManyValues as exc:
        raise DeniedError(Reason.TOO_LARGE, str(exc.args[0])) from None
    except Exception:  # noqa: BLE001  # fastavro raises whatever the value raised, and quotes it
        raise Malformed(_misfit(rows, keys, schema)) from None
    return out.getvalue()


def _write(
    out: BytesIO,
    schema: RowSchema,
    runs: list[dict[str, Any]],
    nulls: list[Any],
    columns: Mapping[str, Column],
    keys: Mapping[str, Column],
) -> tuple[int, bool]:
    """Write all but the steps: where the columns begin, and whether one of them is an array."""
    fastavro.schemaless_writer(out, FRONT_CODEC, {"runs": runs, "nulls": nulls})
    front = out.tell()
    packed, packed_keys = pack_all(columns, schema.columns), pack_all(keys, schema.key_columns)
    fastavro.schemaless_writer(out, schema.rows_codec, packed)
    fastavro.schemaless_writer(out, schema.keys_codec, packed_keys)
    whole = (*packed.values(), *packed_keys.values())
    return front, any(isinstance(column, list) for column in whole)


def _misfit(rows: list[Row], keys: list[Row], schema: RowSchema) -> str:
    """Which column does not fit, found by writing each alone."""
    for field in schema.columns:
        if not _fits(rows, field, schema, is_key=False):
            return f"column {field.name}: a value does not fit the schema"
    for field in schema.key_columns:
        if not _fits(keys, field, schema, is_key=True):
            return f"column {field.name}: a value of a key does not fit the schema"
    return "row does not fit the schema"


def _fits(rows: list[Row], field: Field, schema: RowSchema, *, is_key: bool) -> bool:
    empty: dict[str, Column] = {each.name: [] for each in schema.columns}
    try:
        column, _ = split(rows, [field])
        whole, keys = ({}, column) if is_key else (column, {})
        _write(BytesIO(), schema, [], [], {**empty, **whole}, {**empty, **keys})
    except Exception:  # noqa: BLE001  # as in `pack`
        return False
    return True


def _all_steps(runs: Many[Run]) -> Iterator[int]:
    """The steps of every run, also where each is 1."""
    for run in runs:
        yield from run.steps or repeat(1, run.count - 1)


def _run_datum(run: Run) -> dict[str, Any]:
    return {
        "op": int(run.op),
        "position": run.position,
        "ordinal": run.ordinal,
        "commit_us": run.commit_us,
        "count": run.count,
        "absent": run.absent,
    }


def unpack(
    data: bytes,
    schema: RowSchema,
    *,
    stream: Stream,
    after: Sequence,
    upto: Sequence,
    is_quick: bool = False,
) -> Block:
    """Read a block's plaintext, which its sender authenticated.

    Args:
        is_quick: only a block of few runs, nulls, and values that stand in arrays. What has
            more is Malformed, before it is decoded.

    Raises:
        Malformed: there are more runs, nulls, steps or values than a block may have, bytes are
            left over, runs, rows and steps do not add up, a change lies outside `(after, upto]`, or
            the order does not rise.
    """
    nullable = sum(column.nullable for column in schema.columns)
    named = check_counts(data, len(schema.columns), nullable, is_quick=is_quick)
    values_max = QUICK_VALUES_MAX if is_quick else BLOCK_VALUES_MAX
    buffer = BytesIO(data)
    try:
        datum: Any = fastavro.schemaless_reader(buffer, FRONT_CODEC, None)
        counts = _claimed(datum["runs"])
        due, left = _due(schema, datum["nulls"], *counts), values_max - named
        walk_columns(data, buffer.tell(), left=left, strides=schema.strides, counts=due)
        datum["rows"] = fastavro.schemaless_reader(buffer, schema.rows_codec, None)
        datum["keys"] = fastavro.schemaless_reader(buffer, schema.keys_codec, None)
        steps = _read_steps(buffer.read())
    except Malformed:
        raise
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("block is not Avro of its schema") from exc
    runs = _runs(datum, steps, *_rows(datum, schema, *counts))
    _check_order(runs, after, upto)
    return Block(stream=stream, after=after, upto=upto, runs=runs)


def _read_steps(data: bytes) -> list[int]:
    """What stands after the columns; empty where no ordinal leaves a place out."""
    if not data:
        return []
    check_steps(data)
    steps: Any = fastavro.schemaless_reader(BytesIO(data), _STEPS, None)
    if min(steps) < 1 or max(steps) == 1:
        raise Malformed("steps do not rise, or say nothing")
    return list(steps)


def _claimed(runs: Many[Any]) -> tuple[int, int]:
    """How many rows and keys the runs are of."""
    counts = {Op.UPSERT: 0, Op.DELETE: 0}
    total = 0
    for item in runs:
        total += item["count"]
        if item["count"] < 1 or total > BLOCK_CHANGES_MAX or item["ordinal"] < 1:
            raise Malformed("run has no changes, too many, or no ordinal")
        op = _op(item["op"])
        if op in counts:
            counts[op] += item["count"]
    return counts[Op.UPSERT], counts[Op.DELETE]


def _due(schema: RowSchema, nulls: Many[Many[int]], rows: int, keys: int) -> list[int]:
    """How many values each column of rows has, and then each of keys."""
    return [*counts_of(nulls, schema.columns, rows), *repeat(keys, len(schema.key_columns))]


def _rows(datum: Any, schema: RowSchema, rows: int, keys: int) -> tuple[Rows, Rows]:
    """Whole rows and keys, exactly as many as the runs claim."""
    return (
        _joined(datum["rows"], datum["nulls"], schema.columns, rows),
        _joined(datum["keys"], (), schema.key_columns, keys),
    )


def _joined(packed: Any, nulls: Many[list[int]], fields: Many[Field], count: int) -> Rows:
    return join(unpack_all(packed, nulls, fields, count), nulls, fields, count)


def _runs(datum: Any, steps: list[int], rows: Rows, keys: Rows) -> tuple[Run, ...]:
    if steps and len(steps) != sum(item["count"] - 1 for item in datum["runs"]):
        raise Malformed("runs and steps do not add up")
    row_at = key_at = step_at = 0
    runs: list[Run] = []
    for item in datum["runs"]:
        count = item["count"]
        op = _op(item["op"])
        part: Many[Row] = []
        if op is Op.UPSERT:
            part, row_at = rows[row_at : row_at + count], row_at + count
        elif op is Op.DELETE:
            part, key_at = keys[key_at : key_at + count], key_at + count
        run = Run(
            op=op,
            position=item["position"],
            ordinal=item["ordinal"],
            commit_us=item["commit_us"],
            rows=part,
            absent=tuple(item["absent"]),
            steps=said(steps[step_at : step_at + count - 1]),
        )
        if run.count != count:
            raise Malformed("runs and rows do not add up")
        step_at += count - 1
        runs.append(run)
    return tuple(runs)


def _op(number: int) -> Op:
    try:
        return Op(number)
    except ValueError as exc:
        raise Malformed("run has an unknown operation") from exc


def _check_order(runs: tuple[Run, ...], after: Sequence, upto: Sequence) -> None:
    last = after
    for run in runs:
        first = Sequence(upto.generation, run.position, run.ordinal)
        if first <= last:
            raise Malformed("changes are not in rising order after the block's start")
        last = Sequence(upto.generation, run.position, run.last_ordinal)
        if run.last_ordinal >= ORDINAL_MAX:  # would stand after the end of its own position
            raise Malformed("ordinal is out of range")
    if last > upto:
        raise Malformed("a change lies after the block's end")


__all__ = ["MARKS", "Block", "pack", "trim", "unpack"]
