from dataclasses import replace

import pytest

from fabric.agent.completeness import completeness_after, completeness_at
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.ports import StreamState
from tests.fakes.sealing import block

STATE = StreamState(
    high=Sequence(1, 900, 1), chain=b"", offset=4, cluster="c", topic_id="t", incomplete=False
)
LACKING = replace(STATE, incomplete=True)
COPYING = replace(LACKING, in_snapshot=True)
BEGIN, END = Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END


def marks(*ops: Op, generation: int) -> Block:
    runs = [Run(op=o, position=1, ordinal=n, commit_us=0, rows=[]) for n, o in enumerate(ops, 1)]
    return replace(block(), upto=Sequence(generation, 1000, 9), runs=tuple(runs))


@pytest.mark.parametrize(
    ("before", "ops", "after"),
    [
        (None, (), (False, False)),
        (None, (BEGIN,), (True, True)),
        (None, (END,), (False, False)),
        (STATE, (BEGIN,), (True, True)),
        (STATE, (Op.TRUNCATE,), (False, False)),
        (COPYING, (), (True, True)),
        (COPYING, (END,), (False, False)),
        (COPYING, (END, BEGIN), (True, True)),
        (LACKING, (), (True, False)),
        (LACKING, (END,), (True, False)),
        (LACKING, (END, BEGIN), (True, True)),
        (LACKING, (BEGIN, END), (False, False)),
    ],
)
def test_a_snapshot_makes_the_target_incomplete_until_it_ends(
    before: StreamState | None, ops: tuple[Op, ...], after: tuple[bool, bool]
) -> None:
    assert completeness_after(before, marks(*ops, generation=1)) == after


@pytest.mark.parametrize(
    ("before", "ops", "after"),
    [
        (STATE, (), (True, False)),
        (STATE, (END,), (True, False)),
        (STATE, (END, BEGIN), (True, True)),
        (STATE, (BEGIN, END), (False, False)),
        (COPYING, (), (True, False)),
        (COPYING, (END,), (True, False)),
        (replace(STATE, high=ZERO), (), (False, False)),
        (None, (), (False, False)),
    ],
)
def test_a_new_generation_is_incomplete_until_a_snapshot_that_begins_in_it_ends(
    before: StreamState | None, ops: tuple[Op, ...], after: tuple[bool, bool]
) -> None:
    """What an outbox had sent is gone: its new generation brings no snapshot by itself."""
    assert completeness_after(before, marks(*ops, generation=2)) == after


def test_an_end_in_a_later_block_of_a_generation_ends_no_snapshot_of_an_earlier_one() -> None:
    """An outbox that had BEGIN acknowledged, lost its state, and sends END as its second block."""
    first = completeness_after(COPYING, marks(Op.UPSERT, generation=2))
    state = replace(COPYING, high=Sequence(2, 1, 1), **first._asdict())
    assert completeness_after(state, marks(END, generation=2)).incomplete


@pytest.mark.parametrize(
    ("ops", "after"), [((), True), ((END,), True), ((BEGIN,), True), ((BEGIN, END), False)]
)
def test_who_joins_in_the_middle_is_incomplete_until_a_whole_snapshot_has_come(
    ops: tuple[Op, ...], after: bool
) -> None:
    assert completeness_after(None, marks(*ops, generation=2), joins=True).incomplete is after


@pytest.mark.parametrize("before", [None, STATE, LACKING, COPYING])
@pytest.mark.parametrize("generation", [1, 2])
def test_run_by_run_comes_to_the_same_as_the_whole_block(
    before: StreamState | None, generation: int
) -> None:
    whole = marks(Op.TRUNCATE, END, BEGIN, Op.TRUNCATE, END, BEGIN, generation=generation)
    stands = completeness_at(before, whole)
    for count, run in enumerate(whole.runs, 1):
        stands = stands.after(run.op)
        assert stands == completeness_after(before, replace(whole, runs=whole.runs[:count]))
