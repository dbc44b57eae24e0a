"""Whether a target may lack rows that its source has, once it holds a block. Pure."""

from collections.abc import Sequence

from fabric.model.block import Block
from fabric.model.change import Op, Run
from fabric.ports import StreamState


def incomplete_after(before: StreamState | None, block: Block) -> bool:
    """Whether the target is incomplete after a block, which is trimmed.

    A higher generation says that its source is read anew, so until a snapshot that begins in
    it has ended, rows may lack. An outbox sends none by itself: what it had sent is gone.
    """
    if before is None:
        return _incomplete(False, block.runs)
    is_anew = 0 < before.high.generation < block.generation
    begins = any(run.op is Op.SNAPSHOT_BEGIN for run in block.runs)
    return (is_anew and not begins) or _incomplete(before.incomplete, block.runs)


def _incomplete(before: bool, runs: Sequence[Run]) -> bool:
    """Whether the target is incomplete after `runs`: a snapshot began and has not ended."""
    for run in runs:
        if run.op is Op.SNAPSHOT_BEGIN:
            before = True
        elif run.op is Op.SNAPSHOT_END:
            before = False
    return before
