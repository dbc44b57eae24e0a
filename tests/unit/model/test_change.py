"""Runs, sequences and what lies after one."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fabric.model.change import (
    MARKS,
    ORDINAL_MAX,
    ZERO,
    Op,
    Ordinals,
    Run,
    Sequence,
    after,
    changes_of,
    end_of,
    steps_of,
)
from fabric.model.names import Origin, Topic

TOPIC, ORIGIN = Topic.parse("secret.G01.residents"), Origin.parse("G01/registry/db")


def run(ordinal: int = 3, count: int = 4, op: Op = Op.UPSERT) -> Run:
    rows = [] if op in MARKS else [{"id": ordinal + n} for n in range(count)]
    return Run(op=op, position=10, ordinal=ordinal, commit_us=5, rows=rows, absent=("phone",))


def test_sequences_order_by_generation_then_position_then_ordinal() -> None:
    ordered = [
        ZERO,
        Sequence(1, 5, 1),
        Sequence(1, 5, 2),
        end_of(1, 5),
        Sequence(1, 6, 1),
        Sequence(2, 0, 0),
    ]
    assert sorted([ordered[3], *ordered[4:], *ordered[:3]]) == ordered
    assert end_of(1, 5) == (1, 5, ORDINAL_MAX)


def test_run_counts_its_rows_and_a_mark_counts_one() -> None:
    assert (run().count, run().last_ordinal) == (4, 6)
    for op in MARKS:
        assert (run(op=op).count, run(op=op).last_ordinal) == (1, 3)


@pytest.mark.parametrize(
    ("high", "ordinals"),
    [
        (ZERO, [3, 4, 5, 6]),
        (Sequence(2, 9, ORDINAL_MAX), [3, 4, 5, 6]),
        (Sequence(2, 10, 2), [3, 4, 5, 6]),
        (Sequence(2, 10, 3), [4, 5, 6]),
        (Sequence(2, 10, 5), [6]),
        (Sequence(2, 10, 6), []),
        (Sequence(2, 10, ORDINAL_MAX), []),
        (Sequence(2, 11, 0), []),
        (Sequence(1, 99, 99), [3, 4, 5, 6]),
        (Sequence(3, 0, 0), []),
    ],
)
def test_what_lies_after_a_sequence_remains(high: Sequence, ordinals: list[int]) -> None:
    rest = after(run(), 2, high)
    assert ([] if rest is None else [row["id"] for row in rest.rows]) == ordinals
    if rest is not None:
        assert rest.ordinal == ordinals[0]
        assert (rest.position, rest.commit_us, rest.absent) == (10, 5, ("phone",))


def test_a_run_with_places_left_out_is_cut_between_its_own_ordinals() -> None:
    rows = [{"id": n} for n in (3, 7, 8, 9)]
    some = Run(op=Op.UPSERT, position=10, ordinal=3, commit_us=5, rows=rows, steps=(4, 1, 1))
    assert ([*some.ordinals], some.last_ordinal) == ([3, 7, 8, 9], 9)
    rest = after(some, 2, Sequence(2, 10, 5))
    assert rest == Run(op=Op.UPSERT, position=10, ordinal=7, commit_us=5, rows=rows[1:])
    assert some.part(0, 2) == replace(some, rows=rows[:2], steps=(4,))
    seen = [change.sequence.ordinal for change in changes_of(some, 2, TOPIC, ORIGIN)]
    assert seen == [3, 7, 8, 9]
    assert (steps_of([3, 7, 8, 9]), steps_of([4, 5, 6]), steps_of([4])) == ((4, 1, 1), (), ())


class Counted(tuple[int, ...]):
    """Steps that know how often somebody went through them."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return super().__iter__()


def test_ordinals_that_are_asked_for_one_by_one_are_counted_once_for_each_run() -> None:
    steps = Counted((4, 1, 1))
    some, ordinals = replace(run(), steps=steps), Ordinals()
    assert [ordinals.at(some, place) for place in range(4)] == [3, 7, 8, 9]
    assert steps.times == 1
    assert ordinals.at(run(ordinal=5), 1) == 6
    assert ordinals.at(some, 3) == 9


def test_mark_is_before_or_after_as_a_whole() -> None:
    mark = run(op=Op.TRUNCATE)
    assert after(mark, 2, Sequence(2, 10, 2)) is mark
    assert after(mark, 2, Sequence(2, 10, 3)) is None


def test_changes_have_rising_sequences_and_the_runs_own_rows() -> None:
    changes = list(changes_of(run(), 2, TOPIC, ORIGIN))
    assert [change.sequence for change in changes] == [Sequence(2, 10, n) for n in (3, 4, 5, 6)]
    assert [change.row for change in changes] == run().rows
    assert {change.absent for change in changes} == {("phone",)}
    (mark,) = changes_of(run(op=Op.SNAPSHOT_END), 2, TOPIC, ORIGIN)
    assert (mark.row, mark.sequence) == (None, Sequence(2, 10, 3))


def test_no_row_shows_in_a_text() -> None:
    secret = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=0, rows=[{"name": "Nguyen"}])
    (change,) = changes_of(secret, 1, TOPIC, ORIGIN)
    assert "Nguyen" not in repr(secret) + repr(change) + str(change)
