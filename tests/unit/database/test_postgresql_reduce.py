"""fabric.database.postgresql_reduce"""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fabric.database.postgresql_reduce import Part, count, halves, reduce, whole
from fabric.model.change import Op, Row, Run, Value
from fabric.model.columns import Rows

KEY = ("id",)


def run(op: Op, *rows: Row, absent: tuple[str, ...] = ()) -> Run:
    return Run(op=op, position=1, ordinal=1, commit_us=0, rows=list(rows), absent=absent)


def up(*rows: Row, absent: tuple[str, ...] = ()) -> Part:
    return whole(run(Op.UPSERT, *rows, absent=absent))


def gone(*keys: int) -> Part:
    return whole(run(Op.DELETE, *({"id": key} for key in keys)))


def test_the_last_state_of_each_key_is_left() -> None:
    plan = reduce([up({"id": 1, "a": 1}, {"id": 2, "a": 1}, {"id": 1, "a": 2}), gone(2, 3)], KEY)
    assert plan.upserts == [{"id": 1, "a": 2}]
    assert plan.deletes == [{"id": 2}, {"id": 3}]


def test_a_row_that_comes_back_is_written() -> None:
    plan = reduce([gone(1), up({"id": 1, "a": 1})], KEY)
    assert (plan.upserts, plan.deletes) == ([{"id": 1, "a": 1}], [])


def test_absent_columns_are_taken_from_what_came_before() -> None:
    part = up({"id": 1, "a": 9, "b": None}, absent=("b",))
    merged = reduce([up({"id": 1, "a": 1, "b": 2}), part], KEY)
    assert merged.upserts == [{"id": 1, "a": 9, "b": 2}]
    alone = reduce([part, up({"id": 1, "a": None, "b": 5}, absent=("a",))], KEY)
    assert (alone.upserts, alone.partials) == ([{"id": 1, "a": 9, "b": 5}], {})
    same = reduce([part, part], KEY)
    assert same.partials == {("b",): [{"id": 1, "a": 9, "b": None}]}


def test_one_run_without_repeats_is_taken_as_it_is() -> None:
    rows: list[Row] = [{"id": n, "a": n} for n in range(5)]
    assert reduce([up(*rows)], KEY).upserts == rows


def test_runs_of_one_block_stay_in_columns_unless_a_key_is_there_twice() -> None:
    columns: dict[str, list[Value]] = {"id": [1, 2, 3, 2], "a": [1, 2, 3, 4]}
    rows = Rows(columns, 0, 4)

    def runs(*parts: slice) -> list[Part]:
        return [whole(replace(run(Op.UPSERT), rows=rows[part])) for part in parts]

    plan = reduce(runs(slice(0, 2), slice(2, 3)), KEY)
    assert isinstance(plan.upserts, Rows)
    assert plan.upserts == rows[:3]
    plan = reduce(runs(slice(0, 2), slice(2, 4)), KEY)
    assert plan.upserts == [{"id": 1, "a": 1}, {"id": 3, "a": 3}, {"id": 2, "a": 4}]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_halves_hold_every_change_in_order(sizes: list[int]) -> None:
    number = iter(range(100))
    parts = [up(*({"id": next(number)} for _ in range(size))) for size in sizes]
    if count(parts) < 2:
        return
    first, second = halves(parts)
    assert abs(count(first) - count(second)) <= 1
    ids = [row["id"] for part in [*first, *second] for row in part.rows()]
    assert ids == list(range(sum(sizes)))
