"""Whether a target may lack rows that its source has, once it holds a block. Pure."""

from typing import NamedTuple

from fabric.model.block import Block
from fabric.model.change import Op
from fabric.ports import StreamState
from fabric.seal.chain import is_join
from fabric.seal.envelope import Header
from fabric.seal.epoch import VerifiedStart


class Completeness(NamedTuple):
    """What a StreamState says of it, under the same names."""

    incomplete: bool
    in_snapshot: bool

    def after(self, op: Op) -> "Completeness":
        """What stands after one more run."""
        if op is Op.SNAPSHOT_BEGIN:
            return Completeness(True, True)
        if op is Op.SNAPSHOT_END and self.in_snapshot:
            return Completeness(False, False)
        return self


def completeness_after(
    before: StreamState | None, block: Block, *, joins: bool = False
) -> Completeness:
    """What stands after a block, which is trimmed; the sinks come to the same by the rows.

    Args:
        joins: the stream begins here in its middle.
    """
    stands = completeness_at(before, block, joins=joins)
    for run in block.runs:
        stands = stands.after(run.op)
    return stands


def completeness_at(
    before: StreamState | None, block: Block, *, joins: bool = False
) -> Completeness:
    """What stands as a block begins, before its first run.

    A higher generation says that its source is read anew, so until a snapshot that begins in
    it has ended, rows may lack. An outbox sends none by itself: what it had sent is gone.
    The end of a snapshot that began elsewhere says nothing: its first rows may be lost.
    """
    is_anew = before is not None and before.high.generation < block.generation
    lacks_old = is_anew and before is not None and before.high.generation > 0
    incomplete = joins or lacks_old or (before is not None and before.incomplete)
    in_snapshot = not is_anew and before is not None and before.in_snapshot
    return Completeness(incomplete, in_snapshot)


def joins(before: StreamState | None, header: Header, start: VerifiedStart) -> bool:
    """Whether a stream begins here in its middle, because this host was named late."""
    if before is not None and (before.chain or header.after < before.high <= header.upto):
        return False  # a subscriber stands inside its first block, and knows what it lacks
    return is_join(header, start)
