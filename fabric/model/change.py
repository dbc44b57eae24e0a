"""What moves: runs of row operations, and the sequence that orders them.

A run is a stretch of changes of one dataset that share everything but their
rows and ordinals: same operation, same source position. Captures, blocks and
sinks work run by run, so nothing on the hot path is done per row but the
codec's own work. `Change` is the view of one row for people and the
Python API.
"""

from bisect import bisect_right
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from enum import IntEnum, unique
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

from fabric.model.names import Origin, Topic

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value] | None"
"""One column in Avro's own representation: days and microseconds are plain integers."""
Row: TypeAlias = dict[str, Value]

ORDINAL_MAX = 2**63 - 1
"""Ordinal that stands after every change of a position."""


@unique
class Op(IntEnum):
    """What a run does. Upserts hold whole rows, deletes hold keys, the rest hold nothing."""

    UPSERT = 0
    DELETE = 1
    TRUNCATE = 2
    SCHEMA = 3
    SNAPSHOT_BEGIN = 4
    SNAPSHOT_END = 5


MARKS = frozenset({Op.TRUNCATE, Op.SCHEMA, Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END})
"""Operations without rows; they go to every partition, as barriers."""


class Sequence(NamedTuple):
    """Place of a change in its source: sortable, and the same when the row is sent again."""

    generation: int
    position: int
    ordinal: int


ZERO = Sequence(0, 0, 0)
"""Before every change of every source."""


def end_of(generation: int, position: int) -> Sequence:
    """The sequence after every change that was committed at `position`."""
    return Sequence(generation, position, ORDINAL_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Changes of one dataset, in order, that differ in their rows and ordinals only.

    Attributes:
        op: what is done to each row.
        position: commit position in the source, 0..2^63-1 (PostgreSQL: commit LSN).
        ordinal: ordinal of the first change within its dataset and transaction, from 1.
        commit_us: commit time at the source, microseconds since 1970 UTC.
        rows: whole rows for UPSERT, key columns only for DELETE, empty for marks.
        absent: columns the source did not send (unchanged TOAST); they are None in
            the rows and a sink must leave them as they are.
        steps: from each ordinal to the next, at least 1, one less than there are rows;
            empty when every one is 1. A partition gets some of a dataset's rows.
    """

    op: Op
    position: int
    ordinal: int
    commit_us: int
    rows: Many[Row]
    absent: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Number of changes: one for a mark."""
        return 1 if self.op in MARKS else len(self.rows)

    @property
    def last_ordinal(self) -> int:
        """Ordinal of the last change."""
        return self.ordinal + (sum(self.steps) if self.steps else self.count - 1)

    @property
    def ordinals(self) -> Many[int]:
        """Ordinal of each change."""
        if self.steps:
            return [*accumulate(self.steps, initial=self.ordinal)]
        return range(self.ordinal, self.ordinal + self.count)

    def part(self, start: int, stop: int) -> "Run":
        """The changes of these places of `rows`, at least one; not of a mark."""
        return replace(
            self,
            ordinal=self.ordinal + (sum(self.steps[:start]) if self.steps else start),
            rows=self.rows[start:stop],
            steps=said(self.steps[start : stop - 1]),
        )

    def __repr__(self) -> str:  # rows are secret
        return f"Run({self.op.name}, position={self.position}, count={self.count})"


class Ordinals:
    """Ordinals of runs' changes, asked for one by one, as for rows that are parked.

    A run may leave places out, so that each ordinal is a sum over those before it: for
    thousands of parked rows they are counted once.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._ordinals: Many[int] = ()

    def at(self, run: Run, place: int) -> int:
        """Ordinal of the change at this place; quick while the run is the one asked of last."""
        if run is not self._run:
            self._run, self._ordinals = run, run.ordinals
        return self._ordinals[place]


class Change(NamedTuple):
    """One row operation, as `subscribe` and the quarantine show it.

    What a target does with it, by `op`. A stream is one origin's rows in one partition of
    the topic, as the change's position names it; the rows of a stream are those that it
    brought last.

    - UPSERT: insert the row or replace the one with its key, all but the columns `absent`.
    - DELETE: remove the row with this key, if there is one.
    - TRUNCATE: remove every row of the stream.
    - SNAPSHOT_BEGIN, SNAPSHOT_END: each row of the source comes in between, beside changes.
      At the end remove the stream's rows of which no UPSERT came since the begin. A begin
      starts the count anew; an end without one means nothing.
    - SCHEMA: nothing.

    Attributes:
        sequence: its place in its source; the same when it comes again.
        commit_us: commit time at the source, microseconds since 1970 UTC.
        row: the whole row for UPSERT, the key columns for DELETE, None for marks; in Avro's
            physical values (a date is days since 1970, a timestamp-micros an integer).
        absent: columns that the source did not send: None in `row`, though they may not be
            null. Leave them as they are.
    """

    topic: Topic
    origin: Origin
    op: Op
    sequence: Sequence
    commit_us: int
    row: Row | None
    absent: tuple[str, ...] = ()

    def __repr__(self) -> str:  # the row is secret
        return f"Change({self.op.name}, {self.topic}, sequence={tuple(self.sequence)})"


def said(steps: Many[int]) -> tuple[int, ...]:
    """Steps as a run says them: none when each is 1."""
    return tuple(steps) if any(step != 1 for step in steps) else ()


def steps_of(ordinals: Many[int]) -> tuple[int, ...]:
    """The steps of a run whose changes have these ordinals."""
    return said([b - a for a, b in pairwise(ordinals)])


def changes_of(run: Run, generation: int, topic: Topic, origin: Origin) -> Iterator[Change]:
    """View a run change by change, in order."""
    rows: Many[Row | None] = [None] if run.op in MARKS else run.rows
    # By position and bound once: this runs for every row that the Python API gives out.
    op, position, commit_us, absent = run.op, run.position, run.commit_us, run.absent
    for ordinal, row in zip(run.ordinals, rows, strict=True):
        sequence = Sequence(generation, position, ordinal)
        yield Change(topic, origin, op, sequence, commit_us, row, absent)


def after(run: Run, generation: int, high: Sequence) -> Run | None:
    """The part of `run` that lies after `high`, or None when nothing does."""
    if Sequence(generation, run.position, run.last_ordinal) <= high:
        return None
    if Sequence(generation, run.position, run.ordinal) > high:
        return run
    return run.part(bisect_right(run.ordinals, high.ordinal), run.count)
