"""The Python API as a target: blocks go to a queue, positions to the state file.

Implements what a reader needs of ports.ChangeSink. A change is delivered at least
once: until its position is acknowledged, a restart delivers it again.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from fabric.agent.completeness import completeness_after, completeness_at
from fabric.agent.identity import Identity
from fabric.agent.read_machine import BEGINNING
from fabric.model.block import Block
from fabric.model.change import Change, Sequence, changes_of
from fabric.model.errors import Reason, UnavailableError
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, StreamState

_QUEUE_BLOCKS_MAX = 4


class Position(NamedTuple):
    """Where a subscriber stands. Give it to `ack` when the change is dealt with.

    All but `stream` is opaque.
    """

    stream: Stream
    """Origin, topic and partition of the change."""
    after: StreamState
    """What stands when the whole block is dealt with."""
    inside: tuple[Sequence, StreamState | None, tuple[bool, bool]] | None = None
    """Of a change that is not its block's last: its high-water, what stood before the block, and
    the state's `incomplete` and `in_snapshot` once the change is dealt with."""

    @property
    def state(self) -> StreamState:
        """What `ack` remembers; made when asked for, because most positions never are."""
        if self.inside is None:
            return self.after
        high, before, (incomplete, in_snapshot) = self.inside
        # The chain has not moved, nor has the hint: a block of an open dataset may be many
        # records, so a restart reads on from before it, and drops up to here.
        chain = b"" if before is None else before.chain
        return replace(
            self.after,
            high=high,
            chain=chain,
            offset=self._offset(before),
            incomplete=incomplete,
            in_snapshot=in_snapshot,
        )

    def _offset(self, before: StreamState | None) -> int:
        """The hint from before the block; the log's beginning where it is none of this log."""
        if before is None or before.offset >= self.after.offset:
            return BEGINNING
        is_same = (before.cluster, before.topic_id) == (self.after.cluster, self.after.topic_id)
        return before.offset if is_same else BEGINNING

    def __repr__(self) -> str:
        return f"Position({self.stream}, {tuple(self.state.high)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A block as a subscriber gets it: verified, opened, in order, and not given before.

    It may hold no change: then it says how far its source is.

    Attributes:
        block: its `runs` hold the rows; a row is made when it is asked for.
        before: what stood before the block; None at the stream's first.
        after: what stands once the block is dealt with. While it is `incomplete`, rows of
            the stream are missing that a snapshot brings.
    """

    block: Block
    before: StreamState | None
    after: StreamState

    @property
    def position(self) -> Position:
        """Give it to `ack` when the whole block is dealt with."""
        return Position(self.block.stream, self.after)

    def changes(self) -> Iterator[tuple[Change, Position]]:
        """Each change with its position; only the last one's moves the chain."""
        left = self.block.count
        stream = self.block.stream
        stands = completeness_at(self.before, self.block, joins=self._may_join())
        for run in self.block.runs:
            stands = stands.after(run.op)
            for change in changes_of(run, self.block.generation, stream.topic, stream.origin):
                left -= 1
                inside = (change.sequence, self.before, stands) if left else None
                yield change, Position(stream, self.after, inside)

    def _may_join(self) -> bool:
        """Whether the stream may begin here in its middle, by what stands after the block.

        Where a snapshot in the block makes both come to the same, it is to come yet, and ends
        what is said of the changes before it.
        """
        if self.before is not None:
            return False
        return completeness_after(None, self.block, joins=True).incomplete is self.after.incomplete


class Subscription:
    """One subscriber of one topic."""

    def __init__(self, identity: Identity, topic: Topic) -> None:
        self._identity = identity
        self._topic = topic
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue(_QUEUE_BLOCKS_MAX)
        self._given: dict[Stream, StreamState] = {}
        self._is_between = False
        self._is_closed = False

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Where to go on: what was delivered in this life, else what was acknowledged."""
        stored = await asyncio.to_thread(self._identity.state.positions, topic)
        return {**stored, **self._given}

    async def state(self, stream: Stream) -> StreamState | None:
        """As `streams`, for one."""
        return (await self.streams(stream.topic)).get(stream)

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Queue the block; waits while the subscriber is busy, and once it has ended for ever.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, the life that read the block has ended.
        """
        await self._demand_life()
        await self._queue.put(Delivery(block=block, before=expected, after=new))
        await self._demand_life()
        self._given[block.stream] = new
        return Applied(state=new, applied=block.count, quarantined=0)

    async def _demand_life(self) -> None:
        if self._is_closed:
            # The reader is about to be cancelled. An error would be shown and tried again, and
            # one that meets the cancellation in a task group takes its place.
            await asyncio.Event().wait()
        if self._is_between:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "subscription is between two lives")

    def forget(self) -> None:
        """Go on from what was acknowledged, once another life begins.

        What waits here was verified under other trust anchors: it is read and verified anew.
        Nothing is taken until `begin`: readers of the old life may end later than this.
        """
        self._is_between = True
        self._given.clear()
        while not self._queue.empty():
            self._queue.get_nowait()
        if self._is_closed:
            self._queue.put_nowait(None)

    def begin(self) -> None:
        """Another life reads from now on; every reader of the one before has ended."""
        self.forget()
        self._is_between = False

    def close(self) -> None:
        """The agent ends; whoever waits for a block is told."""
        self._is_closed = True
        self.forget()

    async def next(self) -> Delivery | None:
        """The next block; None when the agent has ended."""
        while not self._is_closed:
            delivery = await self._queue.get()
            if not self._is_between:
                return delivery
        return None
