"""From a source's runs to blocks, and from acknowledgements back to the source. Pure.

One machine for one capture. It splits runs to streams, cuts a stream's runs into
blocks by count, size and linger, keeps one block of a stream in flight, and says
when the source may let go. While a block is in flight, a full one may be cut ahead of
its turn, so that it can be packed meanwhile; it is sent after the other, never beside
it. The order of effects is the order of the commands:

    Captured, Reached ->  Store(block)       seal and append, in this order for each stream
    Stored            ->  Advance(position)  write heads and resume token, then release

A position may go only when every stream has acknowledged every change at or
before it. `(after, upto]` of consecutive blocks of a stream touch, whatever the
cause of the cut, so a block's range never has a hole.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from fabric.model import change as changes
from fabric.model.block import Block
from fabric.model.change import MARKS, ZERO, Run, end_of, steps_of
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Reason, UsageError
from fabric.model.limits import BLOCK_CHANGES_MAX, QUEUE_BYTES_MAX
from fabric.model.names import Origin, Stream, Topic
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema
from fabric.ports import Captured, Reached

_CHANGE_BYTES_GUESS = 512.0
_QUEUE_BLOCKS_MAX = 2
_SMOOTHING = 0.5
_AT_ONCE = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How blocks are cut: changes and plaintext bytes of one, seconds to wait, seconds of silence.

    Attributes:
        linger_s: how long a change may wait for others.
        silence_s: a sealed stream says at least this often how far it is, with an empty block.
    """

    changes_max: int
    bytes_max: int
    linger_s: float
    silence_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One dataset of the capture.

    Attributes:
        sealed: whether it has a chain, and therefore empty blocks.
    """

    topic: Topic
    schema: RowSchema
    partitions: int
    salt: bytes
    sealed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stream's block was acknowledged; plaintext bytes teach the next cut."""

    block: Block
    plaintext_bytes: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Seal and append this block after its stream's earlier ones; answer with Stored."""

    block: Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Write heads, then the resume token; then let the source go up to `position`."""

    position: int
    resume: str


Event: TypeAlias = Captured | Reached | Stored | Tick
Command: TypeAlias = Store | Advance


@dataclass(slots=True)
class _Work:
    """One stream's runs that are not yet acknowledged."""

    stream: Stream
    feed: Feed
    acked: ChangeSequence
    pending: deque[Run] = field(default_factory=deque)
    count: int = 0
    since: datetime | None = None
    in_flight: Block | None = None
    ahead: Block | None = None
    spoke_at: datetime | None = None

    def first_outstanding(self) -> int | None:
        """Position of the first change that is not acknowledged."""
        for block in (self.in_flight, self.ahead):
            if block is not None and block.runs:
                return block.runs[0].position
        return self.pending[0].position if self.pending else None

    @property
    def outstanding(self) -> int:
        """Changes that are not acknowledged, on their way or not."""
        sent = (block.count for block in (self.in_flight, self.ahead) if block is not None)
        return self.count + sum(sent)

    def hold_to(self, now: datetime) -> None:
        """Believe no moment after `now`: the wall clock was ahead then, and was set right."""
        self.since = self.since and min(self.since, now)
        self.spoke_at = self.spoke_at and min(self.spoke_at, now)

    def cut_upto(self) -> ChangeSequence:
        """Where the next block begins."""
        last = self.ahead or self.in_flight
        return self.acked if last is None else last.upto


class PublishMachine:
    """The machine of one capture.

    Args:
        generation: of the opened source.
        upto: per stream, the sequence that earlier lives had acknowledged.
    """

    def __init__(
        self,
        origin: Origin,
        feeds: Sequence[Feed],
        *,
        generation: int,
        upto: Mapping[Stream, ChangeSequence],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._generation = generation
        self._feeds = {feed.topic: feed for feed in feeds}
        self._work = {
            stream: _Work(stream, feed, upto.get(stream, ZERO))
            for feed in feeds
            for stream in (Stream(origin, feed.topic, n) for n in range(feed.partitions))
        }
        self._origin = origin
        self._reached: deque[Reached] = deque()
        self._position = -1
        self._captured_since = False
        self._change_bytes = _CHANGE_BYTES_GUESS
        self._closed = False

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Every stream of the capture."""
        return tuple(self._work)

    @property
    def is_full(self) -> bool:
        """Whether the source must wait: memory is bounded here."""
        waiting = sum(work.count for work in self._work.values())
        too_many = waiting >= _QUEUE_BLOCKS_MAX * self._limits.changes_max
        return too_many or waiting * self._change_bytes >= QUEUE_BYTES_MAX

    @property
    def outstanding(self) -> int:
        """Changes that were taken in and are not acknowledged."""
        return sum(work.outstanding for work in self._work.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return all(work.in_flight is None for work in self._work.values())

    def close(self) -> None:
        """Cut nothing more; what is in flight may still be answered."""
        self._closed = True

    def step(self, event: Event, now: datetime) -> list[Command]:
        """Take one event; what is to be done, in order."""
        touched: Sequence[_Work] = list(self._work.values())
        match event:
            case Captured():
                touched = self._take(event, now)
            case Reached():
                self._reach(event)
            case Stored():
                touched = self._stored(event, now)
            case Tick():
                pass
        commands: list[Command] = [Store(block=b) for w in touched if (b := self._cut(w, now))]
        if isinstance(event, Reached | Stored):
            commands = [*self._advance(), *commands]
        return commands

    def next_at(self) -> datetime | None:
        """When a Tick will cut something, if nothing else happens before."""
        times = [at for work in self._work.values() if (at := self._due_at(work)) is not None]
        return min(times, default=None)

    # Taking in

    def _take(self, event: Captured, now: datetime) -> list[_Work]:
        feed = self._feeds.get(event.topic)
        if feed is None:
            raise UsageError(Reason.TOPIC_UNKNOWN, f"source gave a change of {event.topic}")
        self._captured_since = True
        touched = []
        for number, run in _split(event.run, feed):
            work = self._work[Stream(self._origin, feed.topic, number)]
            left = changes.after(run, self._generation, work.acked)
            if left is None:  # a restart reads again what was acknowledged
                continue
            work.pending.append(left)
            work.count += left.count
            work.since = work.since or now
            touched.append(work)
        return touched

    def _reach(self, event: Reached) -> None:
        self._position = event.position
        if self._reached and not self._captured_since:
            self._reached.pop()  # nothing lies between the two: the later one says it all
        self._reached.append(event)
        self._captured_since = False

    # Cutting

    def _cut(self, work: _Work, now: datetime) -> Block | None:
        work.hold_to(now)
        due = self._due_at(work)
        if due is None or due > now:
            return None
        after = work.cut_upto()
        runs = self._cut_runs(work)
        upto = self._upto(work, runs, after)
        work.since = now if work.pending else None
        block = Block(stream=work.stream, after=after, upto=upto, runs=runs)
        if work.in_flight is None:
            work.in_flight = block
        else:
            work.ahead = block
        return block

    def _due_at(self, work: _Work) -> datetime | None:
        """When the stream's next block is to be cut; None when nothing calls for one."""
        if self._closed or work.ahead is not None:
            return None
        if work.in_flight is not None:  # what is not full yet may still grow until its turn
            return _AT_ONCE if work.count >= self._changes_max() else None
        if work.pending:
            assert work.since is not None
            full = work.count >= self._changes_max()
            return work.since + timedelta(seconds=0 if full else self._limits.linger_s)
        if not work.feed.sealed or self._position < 0:
            return None
        if work.spoke_at is None:
            return _AT_ONCE
        return work.spoke_at + timedelta(seconds=self._limits.silence_s)

    def _changes_max(self) -> int:
        by_bytes = int(self._limits.bytes_max / self._change_bytes)
        return max(1, min(self._limits.changes_max, by_bytes, BLOCK_CHANGES_MAX))

    def _cut_runs(self, work: _Work) -> tuple[Run, ...]:
        room, runs = self._changes_max(), []
        while work.pending and room > 0:
            run = work.pending.popleft()
            if run.count > room:
                run, rest = _divide(run, room)
                work.pending.appendleft(rest)
            runs.append(run)
            room -= run.count
            work.count -= run.count
        return tuple(runs)

    def _upto(self, work: _Work, runs: Sequence[Run], after: ChangeSequence) -> ChangeSequence:
        """Everything up to here is in the block: the last change, or what the source reached."""
        last = after
        if runs:
            last = ChangeSequence(self._generation, runs[-1].position, runs[-1].last_ordinal)
        if work.pending or self._position < 0:
            return last
        return max(last, end_of(self._generation, self._position))

    # Letting go

    def _stored(self, event: Stored, now: datetime) -> list[_Work]:
        work = self._work[event.block.stream]
        if work.in_flight is None or event.block.upto != work.in_flight.upto:
            raise UsageError(Reason.INTERNAL, "a block was acknowledged that is not in flight")
        work.in_flight, work.ahead = work.ahead, None
        work.acked = event.block.upto
        work.spoke_at = now
        if event.block.count:
            measured = max(1.0, event.plaintext_bytes / event.block.count)
            self._change_bytes += (measured - self._change_bytes) * _SMOOTHING
        return [work]

    def _advance(self) -> list[Command]:
        outstanding = (work.first_outstanding() for work in self._work.values())
        floor = min((p for p in outstanding if p is not None), default=None)
        done: Reached | None = None
        while self._reached and (floor is None or self._reached[0].position < floor):
            done = self._reached.popleft()
        return [] if done is None else [Advance(position=done.position, resume=done.resume)]


def _split(run: Run, feed: Feed) -> Iterator[tuple[int, Run]]:
    """Give each partition its part of a run; marks go to all, as barriers."""
    if feed.partitions == 1:
        yield 0, run
        return
    if run.op in MARKS:
        for number in range(feed.partitions):
            yield number, run
        return
    places: list[list[int]] = [[] for _ in range(feed.partitions)]
    for at, row in enumerate(run.rows):
        number = partition_of(key_bytes(feed.schema, row), feed.salt, feed.partitions)
        places[number].append(at)
    ordinals = run.ordinals
    for number, mine in enumerate(places):
        if mine:
            found = [ordinals[at] for at in mine]
            rows = [run.rows[at] for at in mine]
            yield number, replace(run, ordinal=found[0], rows=rows, steps=steps_of(found))


def _divide(run: Run, count: int) -> tuple[Run, Run]:
    return run.part(0, count), run.part(count, run.count)


def halve(block: Block) -> tuple[Block, Block]:
    """Two blocks that together say what `block` says, when it was too large for one.

    Raises:
        UsageError: TOO_LARGE, one change alone is too large.
    """
    if block.count < 2:
        position = block.runs[0].position if block.runs else block.upto.position
        raise UsageError(
            Reason.TOO_LARGE,
            f"the change at {position} of {block.stream.topic} is too large for a block",
        )
    room, left, right = block.count // 2, [], []
    for run in block.runs:
        if room >= run.count:
            left.append(run)
            room -= run.count
        elif room > 0:
            first, rest = _divide(run, room)
            left.append(first)
            right.append(rest)
            room = 0
        else:
            right.append(run)
    last = left[-1]
    middle = ChangeSequence(block.generation, last.position, last.last_ordinal)
    return (
        replace(block, upto=middle, runs=tuple(left)),
        replace(block, after=middle, runs=tuple(right)),
    )
