from dataclasses import replace

import pytest

from fabric.agent.completeness import incomplete_after
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.ports import StreamState
from tests.fakes.sealing import block

STATE = StreamState(
    high=Sequence(1, 900, 1), chain=b"", offset=4, cluster="c", topic_id="t", incomplete=False
)
LACKING = replace(STATE, incomplete=True)


def marks(*ops: Op, generation: int) -> Block:
    runs = [Run(op=o, position=1, ordinal=n, commit_us=0, rows=[]) for n, o in enumerate(ops, 1)]
    return replace(block(), upto=Sequence(generation, 1000, 9), runs=tuple(runs))


@pytest.mark.parametrize(
    ("before", "ops", "after"),
    [
        (None, (), False),
        (None, (Op.SNAPSHOT_BEGIN,), True),
        (STATE, (Op.SNAPSHOT_BEGIN,), True),
        (STATE, (Op.TRUNCATE,), False),
        (LACKING, (), True),
        (LACKING, (Op.SNAPSHOT_END,), False),
        (LACKING, (Op.SNAPSHOT_END, Op.SNAPSHOT_BEGIN), True),
    ],
)
def test_a_snapshot_makes_the_target_incomplete_until_it_ends(
    before: StreamState | None, ops: tuple[Op, ...], after: bool
) -> None:
    assert incomplete_after(before, marks(*ops, generation=1)) is after


@pytest.mark.parametrize(
    ("before", "ops", "after"),
    [
        (STATE, (), True),
        (STATE, (Op.SNAPSHOT_END,), True),
        (STATE, (Op.SNAPSHOT_END, Op.SNAPSHOT_BEGIN), True),
        (STATE, (Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END), False),
        (replace(STATE, high=ZERO), (), False),
        (None, (), False),
    ],
)
def test_a_new_generation_is_incomplete_until_a_snapshot_that_begins_in_it_ends(
    before: StreamState | None, ops: tuple[Op, ...], after: bool
) -> None:
    """What an outbox had sent is gone: its new generation brings no snapshot by itself."""
    assert incomplete_after(before, marks(*ops, generation=2)) is after
