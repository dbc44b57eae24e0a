"""What a reader does with the next sealed record of one partition. Pure.

One record at a time, one command for one event:

    Came, Refused  ->  Drop | Pause | Search | Open | Stop
    Searched       ->  Drop | Open
    Opened         ->  Apply               NotOpened   ->  Drop | Pause | Stop
    Applied        ->  Done                NotApplied  ->  Reload | Pause | Stop

A record that admission refuses is garbage in the log: dropped, counted, audited,
and the stream goes on. A verified block that breaks the chain or does not open
stops its stream by name; a gap ends where the sender reads its source anew. What may
come later (a result, a policy or its renewal, an epoch start, a grant) pauses the
partition: the same record is looked at again, never skipped.

A block that its sender could have made up later (its result was over when we first
saw it) is taken only when it is anchored. Until then its stream is held: its records
are passed over, the hint of where to read on stays before the first of them, and
`held` says what to watch for; the shell reads them again once one is carried. A
block that is fresh and follows the last applied one ends the holding at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fabric.agent.anchor_machine import Cover
from fabric.agent.completeness import completeness_after, joins
from fabric.model.block import Block, trim
from fabric.model.change import ZERO
from fabric.model.errors import DeniedError, PeerError, Reason, ReasonClass, class_of
from fabric.model.limits import ANCHOR_WINDOW
from fabric.model.names import Stream
from fabric.ports import StreamState
from fabric.seal.chain import ChainState, Verdict, is_reset, judge
from fabric.seal.envelope import Header
from fabric.seal.epoch import VerifiedStart

BEGINNING = 0
"""A hint of nothing but the log: its beginning, wherever that is by now."""
_DUPLICATE = "duplicate"
_SUPERSEDED = "superseded"
_NOT_FOR_US = "before_join"
_ANEW_AFTER = (Reason.GAP, Reason.EPOCH_START_MISSING)
_STOPPED = "stopped"
_UNANCHORED = "unanchored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """A verified envelope; `start` is None while its epoch start is unknown.

    Attributes:
        before_join: under `from_join`, its epoch began before the first that serves us.
        is_live: its sender was trusted still when we saw it: it was not made up later.
        is_too_old: its epoch start had to make room for later ones: it comes no more.
    """

    offset: int
    header: Header
    digest: bytes
    start: VerifiedStart | None
    before_join: bool = False
    is_live: bool = True
    is_too_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A look ahead in the log for an anchor has ended."""

    cover: Cover


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Admission refused the record."""

    offset: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The record's block."""

    block: Block


@dataclass(frozen=True, slots=True, kw_only=True)
class NotOpened:
    """The record could not be opened: no grant, or a failure."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The sink holds the block's rows and this state."""

    state: StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplied:
    """The sink did not take the block."""

    reason: Reason


Event: TypeAlias = Came | Searched | Refused | Opened | NotOpened | Applied | NotApplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Count the record and go on.

    Attributes:
        reason: set when it is to be audited as refused.
        outcome: else what it was: duplicate, superseded, before_join, stopped, unanchored.
    """

    reason: Reason | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Search:
    """Look ahead in the log for an anchor of the record in hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Look at the same record again when the view or the database has changed."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Open:
    """Open the envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Write the trimmed block and `new`, if `expected` still stands."""

    block: Block
    expected: StreamState | None
    new: StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """Another writer moved the stream: read its state, give it to `load`, start over."""

    stream: Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The stream ends here until a person looks; other streams go on."""

    stream: Stream
    reason: Reason


@dataclass(frozen=True, slots=True)
class Done:
    """Go on to the next record."""


Command: TypeAlias = Drop | Pause | Search | Open | Apply | Reload | Stop | Done


@dataclass(slots=True)
class Held:
    """A stream whose blocks nobody vouches for (yet).

    Attributes:
        offset: of the first of them.
        seen: (sender, hash) of those that were passed over, as many as a window holds.
    """

    offset: int
    seen: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Which log the offsets belong to."""

    cluster: str
    topic_id: str


class ReadMachine:
    """The machine of one partition: the states of its streams, and the record in hand."""

    def __init__(self, log: Log, states: Mapping[Stream, StreamState]) -> None:
        self._log = log
        self._states: dict[Stream, StreamState] = dict(states)
        self._stopped: dict[Stream, Reason] = {}
        self._held: dict[Stream, Held] = {}
        self._chains: dict[Stream, tuple[bytes, ChainState]] = {}
        self._came: Came | None = None
        self._next: ChainState | None = None
        self._abandoned: dict[Stream, bytes] = {}

    @property
    def stopped(self) -> Mapping[Stream, Reason]:
        """Streams that ended, and why."""
        return self._stopped

    @property
    def held(self) -> Mapping[Stream, Held]:
        """Streams whose blocks wait for an anchor."""
        return self._held

    def release(self) -> int | None:
        """End every holding; the offset to read again from, None when nothing was held."""
        first = min((held.offset for held in self._held.values()), default=None)
        self._held.clear()
        return first

    def state(self, stream: Stream) -> StreamState | None:
        """The state that the next block of `stream` must meet."""
        return self._states.get(stream)

    def load(self, stream: Stream, state: StreamState | None) -> None:
        """Take over what the sink says after a Reload."""
        if state is None:
            self._states.pop(stream, None)
        else:
            self._states[stream] = state

    def start_offset(self, first: int, end: int) -> int:
        """Where to read on: the smallest hint of this very log, else its beginning."""
        states = self._states.values()
        hints = [s.offset if self.is_hint(s, first, end) else first for s in states]
        return max(first, min(hints, default=first))

    def is_hint(self, state: StreamState, first: int, end: int) -> bool:
        """Whether a state's offset belongs to this very log, and lies in it."""
        is_ours = (state.cluster, state.topic_id) == (self._log.cluster, self._log.topic_id)
        return is_ours and (state.offset == BEGINNING or first <= state.offset <= end)

    def step(self, event: Event) -> Command:
        """Take one event; the one thing to do next."""
        match event:
            case Refused():
                return _refused(event.reason)
            case Came():
                return self._judge(event)
            case Searched():
                return self._searched(event.cover)
            case Opened():
                return self._opened(event.block)
            case NotOpened():
                return self._not_opened(event.reason)
            case Applied():
                self._states[self._stream] = event.state
                return Done()
            case NotApplied():
                return self._not_applied(event.reason)

    @property
    def _stream(self) -> Stream:
        assert self._came is not None
        return stream_of(self._came.header)

    def _judge(self, event: Came) -> Command:
        self._came = event
        stream = stream_of(event.header)
        if stream in self._stopped:
            if not self._begins_anew(stream, event):
                return Drop(reason=None, outcome=_STOPPED)
            del self._stopped[stream]
        if stream in self._held and not event.is_live:
            return self._hold(stream, event)
        if event.start is None:
            missing = Reason.EPOCH_START_MISSING
            return self._stop(missing) if event.is_too_old else Pause(reason=missing)
        state = self._states.get(stream)
        chain = self._chain(stream, state)
        high = ZERO if state is None else state.high
        if chain is None and event.before_join:
            return Drop(reason=None, outcome=_NOT_FOR_US)
        try:
            step = judge(chain, event.header, event.digest, start=event.start, high=high)
        except PeerError as exc:
            return self._broken(event, exc.reason)
        except DeniedError as exc:
            # The beginning is not in the log: what a reset brings later can still be taken.
            return Drop(reason=exc.reason, outcome="")
        if step.verdict is Verdict.DUPLICATE:
            return Drop(reason=None, outcome=_DUPLICATE)
        if step.verdict is Verdict.SUPERSEDED:
            return Drop(reason=None, outcome=_SUPERSEDED)
        self._next = step.state
        if not event.is_live:
            return Search()
        self._held.pop(stream, None)  # it goes on from what is applied: those are abandoned
        return Open()

    def _broken(self, event: Came, reason: Reason) -> Command:
        """What to do with a block that does not go on from the last applied one."""
        if self._stream in self._held:  # what it misses lies among what is held: no gap yet
            return self._hold(self._stream, event)
        follows = event.header.previous == self._abandoned.get(self._stream)
        if reason is not Reason.GAP or (event.is_live and not follows):
            return self._stop(reason)
        self._next = None  # its sender may have abandoned it with the one before: no gap then
        return Search()

    def _chain(self, stream: Stream, state: StreamState | None) -> ChainState | None:
        """What a state says of the chain; what we wrote last need not be read again."""
        if state is None or not state.chain:
            return None
        written, chain = self._chains.get(stream, (b"", None))
        return chain if written == state.chain else ChainState.decode(state.chain)

    def _begins_anew(self, stream: Stream, event: Came) -> bool:
        """Whether a stream goes on here that stopped for want of something: it is read anew.

        A fork stays stopped: one of two hosts is not what it says it is.
        """
        if self._stopped[stream] not in _ANEW_AFTER or event.start is None:
            return False
        state = self._states.get(stream)
        return is_reset(event.header, event.start, ZERO if state is None else state.high)

    def _searched(self, cover: Cover) -> Command:
        assert self._came is not None
        match cover:
            case Cover.COVERED:
                return self._stop(Reason.GAP) if self._next is None else Open()
            case Cover.ABANDONED:
                self._abandoned[self._stream] = self._came.digest
                return Drop(reason=Reason.SUPERSEDED, outcome="")
            case Cover.UNKNOWN:
                return self._hold(self._stream, self._came)

    def _hold(self, stream: Stream, event: Came) -> Drop:
        """Pass a record over and remember it."""
        held = self._held.setdefault(stream, Held(offset=event.offset, seen=[]))
        if len(held.seen) < ANCHOR_WINDOW:
            held.seen.append((event.header.sender, event.digest))
        return Drop(reason=None, outcome=_UNANCHORED)

    def _opened(self, block: Block) -> Command:
        assert self._came is not None
        assert self._came.start is not None
        assert self._next is not None
        before = self._states.get(self._stream)
        rest = trim(block, before.high) if before is not None else block
        high = block.upto if before is None else max(before.high, block.upto)
        chain = self._next.encode()
        self._chains[self._stream] = chain, self._next
        is_join = joins(before, self._came.header, self._came.start)
        whole = completeness_after(before, rest, joins=is_join)
        new = StreamState(
            high=high,
            chain=chain,
            offset=min([self._came.offset + 1, *(held.offset for held in self._held.values())]),
            cluster=self._log.cluster,
            topic_id=self._log.topic_id,
            incomplete=whole.incomplete,
            in_snapshot=whole.in_snapshot,
        )
        return Apply(block=rest, expected=before, new=new)

    def _not_opened(self, reason: Reason) -> Command:
        if class_of(reason) is ReasonClass.WAIT:
            return Pause(reason=reason)
        return self._stop(reason)

    def _not_applied(self, reason: Reason) -> Command:
        if reason is Reason.OVERLOADED:
            return Reload(stream=self._stream)
        if class_of(reason) is ReasonClass.WAIT:
            return Pause(reason=reason)
        return self._stop(reason)

    def _stop(self, reason: Reason) -> Command:
        self._stopped[self._stream] = reason
        return Stop(stream=self._stream, reason=reason)


def _refused(reason: Reason) -> Command:
    # A sender that has the renewed policy already goes on: dropping its blocks until we have
    # it too would be a gap. Admission says this only of what a trusted sender has signed.
    if reason is Reason.POLICY_EXPIRED or class_of(reason) is ReasonClass.WAIT:
        return Pause(reason=reason)
    return Drop(reason=reason, outcome="")


def stream_of(header: Header) -> Stream:
    """The stream an envelope belongs to."""
    return Stream(header.origin, header.topic, header.partition)
