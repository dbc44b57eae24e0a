"""A reader's rules for one stream: what to do with the next envelope (design section 8).

A stream is one partition of one topic as one origin fills it; each has one
ChainState. The broker is not trusted, so it may drop, repeat, re-order and
restore. The sender is trusted, but it crashes: what it sent and never saw
acknowledged it sends again, in a new epoch that starts from the last head it
*knows*. H is the reader's high-water sequence. Every envelope meets these rules
in this order, and `judge` holds every one of them:

    same epoch as the last accepted envelope
      (a) counter = last + 1, `previous` fits, `after` <= H      accept
      (b) counter <= last, same hash or older than remembered    DUPLICATE
      (b) counter <= last, remembered with another hash          FORK
    another epoch
      (d) remembered as left                                     SUPERSEDED
      (r) counter 0, chain_reset, no head named, and a higher
          generation                                             accept, new chain
      (d) of the same sender, with a lower number                SUPERSEDED
      (c) counter 0, its start names a remembered head, `previous`
          is that head's hash, and `after` <= H                  accept, switch
    (e) anything else                                            GAP

Why each of them is right:

- (a) asks for `after` <= H as well as for the chain: a hole in the source's
  sequences is a loss even where no envelope is missing.
- (b) drops: two slow hops do give 5, 6, 7, 5. Beyond the remembered heads a
  repeat cannot be told from a fork; it is dropped either way, nothing is applied.
- (c) lets the head lie up to 64 before the last one, because the reader may have
  accepted what the sender never saw acknowledged. What it sent again in the new
  epoch begins at or before H, so the caller's `trim` drops what is known.
- The root. "No head" in a start means the beginning of the chain. A sender that
  crashed before its first acknowledgement names no head although the reader has
  accepted envelopes; so the beginning is remembered like a head (epoch, hash of 32
  zero bytes), and falls out of memory like one.
- (d) comes before (c), and numbers rise: a late envelope of an epoch that was
  never seen (its sender crashed, then opened the next one) still names a
  remembered head. Taking it would switch backwards and drop the newer epoch.
- Another sender of the same origin numbers on its own, so for it (c) asks for a
  head of the current epoch: two hosts that both go on from one head are a GAP,
  never a silent choice between them.
- (r) a lost state file costs the heads. A higher generation means that the source
  is read anew from its beginning (`after` lies before that generation), so nothing
  that the source holds can be lost by taking it; the caller marks the stream incomplete
  until a snapshot of that generation has ended. A lower or the same generation would
  be a replay. It comes before the look at numbers, because a lost state file may lose
  those too.
  A new generation with a kept state file needs no rule: the chain goes on.

First join: there is no state. Counter 0 of an epoch whose start names no head for
the stream begins a chain. Under `from_join` counter 0 of any epoch does: what came
before it is not the reader's to have. The caller marks that stream incomplete, and
has passed over the epochs from before it was named. Anything else means that the
log no longer holds, or never held, what came before: HISTORY_LOST. A caller may
read on to a reset.
"""

from dataclasses import dataclass
from enum import Enum, unique
from typing import NamedTuple

from fabric.model import canonical
from fabric.model.change import Sequence
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.limits import EPOCH_BLOCKS_MAX, HEADS_REMEMBERED, SUPERSEDED_REMEMBERED
from fabric.seal import fields
from fabric.seal.envelope import NO_PREVIOUS, Header
from fabric.seal.epoch import Head, VerifiedStart

_VERSION = 1
_FROM_JOIN = "from_join"
_HASH = 32
_COUNTER = 4
_LINK = 1 + _COUNTER + _HASH


class Accepted(NamedTuple):
    """An accepted envelope's place: epoch id, counter, hash."""

    epoch: bytes
    counter: int
    hash: bytes


ROOT = Accepted(bytes(32), 0, NO_PREVIOUS)
"""The place before the first envelope of a chain; no epoch has this id."""


@unique
class Verdict(Enum):
    """What a reader does with an envelope that raised nothing."""

    ACCEPT = "accept"
    """Open it, trim it to what lies after H, apply it together with the new state."""
    DUPLICATE = "duplicate"
    """Drop and count."""
    SUPERSEDED = "superseded"
    """Drop and count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """What a reader remembers of one stream's chain; stored beside the rows.

    Attributes:
        sender: SPIFFE id of the current epoch's sender.
        number: the current epoch's number.
        accepted: oldest first, the last one and up to HEADS_REMEMBERED before it.
        superseded: ids of epochs this stream has left, newest first.
    """

    sender: str
    number: int
    accepted: tuple[Accepted, ...]
    superseded: tuple[bytes, ...]

    @property
    def last(self) -> Accepted:
        """The last accepted envelope."""
        return self.accepted[-1]

    def encode(self) -> bytes:
        """Bytes for a sink to keep (at most 5 kB); private to this module.

        An accepted place is one byte for its epoch, counter and hash; the epochs stand
        once: the root, the current one, the superseded ones.
        """
        epochs = (ROOT.epoch, self.last.epoch, *self.superseded)
        index = {epoch: place.to_bytes() for place, epoch in enumerate(epochs)}
        links = (index[a.epoch] + a.counter.to_bytes(_COUNTER) + a.hash for a in self.accepted)
        return canonical.encode(
            [_VERSION, self.sender, self.number, b"".join(links), b"".join(epochs[1:])]
        )

    @classmethod
    def decode(cls, data: bytes) -> "ChainState":
        """Undo `encode`; raises Malformed."""
        match canonical.decode(data):
            case [int() as version, str() as sender, int() as number, bytes() as a, bytes() as s]:
                pass
            case _:
                raise Malformed("chain state has a wrong shape")
        if version != _VERSION or not a or len(a) % _LINK or not s or len(s) % _HASH:
            raise Malformed("chain state has a wrong version or length")
        epochs = (ROOT.epoch, *(s[i : i + _HASH] for i in range(0, len(s), _HASH)))
        accepted = tuple(_link(a[i : i + _LINK], epochs) for i in range(0, len(a), _LINK))
        if accepted[-1].epoch != epochs[1]:
            raise Malformed("chain state does not end in its current epoch")
        return cls(
            sender=sender,
            number=fields.uint(number, "epoch number"),
            accepted=accepted,
            superseded=epochs[2:],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A verdict, and the state that stands when its effects are done."""

    verdict: Verdict
    state: ChainState | None


def judge(
    state: ChainState | None,
    header: Header,
    digest: bytes,
    *,
    start: VerifiedStart,
    high: Sequence,
) -> Step:
    """Apply the rules above to one verified envelope of the stream.

    Args:
        state: None before the first accepted envelope.
        digest: the envelope's hash.
        start: the verified start of the header's epoch.
        high: H, the stream's high-water sequence; model.change.ZERO at first.

    Raises:
        PeerError: FORK or GAP: stop the stream, keep what led here as evidence;
            IDENTITY_MISMATCH: the header does not belong to this start.
        DeniedError: HISTORY_LOST, at a first join only.
    """
    check_epoch(header, start)
    here = Accepted(header.epoch_id, header.counter, digest)
    if state is not None and header.epoch_id == state.last.epoch:
        return _same_epoch(state, header, here, high)
    head = start.start.head_of(header.origin, header.partition)
    if state is None:
        return _first(header, here, head, start)
    if header.epoch_id in state.superseded:
        return Step(verdict=Verdict.SUPERSEDED, state=state)
    left = (state.last.epoch, *state.superseded)[:SUPERSEDED_REMEMBERED]
    if is_reset(header, start, high):
        return _accept(header, here, (ROOT,), left)
    if header.sender == state.sender and header.epoch_number < state.number:
        return Step(verdict=Verdict.SUPERSEDED, state=state)
    if header.counter == 0 and header.after <= high:
        known = _known_head(state, header, head)
        if known is not None and header.previous == known.hash:
            return _accept(header, here, state.accepted, left)
    raise PeerError(Reason.GAP, "new epoch does not go on from a known head")


def is_reset(header: Header, start: VerifiedStart, high: Sequence) -> bool:
    """Whether an envelope begins a new chain by rule (r): its source is read anew."""
    head = start.start.head_of(header.origin, header.partition)
    rises = header.after.generation < header.generation and header.generation > high.generation
    return start.start.chain_reset and head is None and rises and _begins(header)


def is_join(header: Header, start: VerifiedStart) -> bool:
    """Whether an envelope begins a reader's chain in its middle, as `from_join` allows."""
    head = start.start.head_of(header.origin, header.partition)
    follows = head is not None and header.counter == 0 and header.previous == head.hash
    return follows and start.start.history == _FROM_JOIN


def _first(header: Header, here: Accepted, head: Head | None, start: VerifiedStart) -> Step:
    if head is None and _begins(header):
        return _accept(header, here, (ROOT,), ())
    if is_join(header, start):
        return _accept(header, here, (), ())
    raise DeniedError(Reason.HISTORY_LOST, "the stream's beginning is not in the log")


def check_epoch(header: Header, start: VerifiedStart) -> None:
    """Hold a header against its epoch's start; raises PeerError IDENTITY_MISMATCH."""
    said, opened = header, start.start
    same = (
        (said.start_hash, start.hash),
        (said.epoch_id, opened.id),
        (said.epoch_number, opened.number),
        (said.sender, opened.sender_id),
        (said.topic, opened.topic),
        (said.label, opened.label),
        (said.suite, opened.suite),
    )
    if any(left != right for left, right in same):
        raise PeerError(Reason.IDENTITY_MISMATCH, "envelope does not belong to its epoch start")


def _same_epoch(state: ChainState, header: Header, here: Accepted, high: Sequence) -> Step:
    last = state.last
    if here.counter > last.counter:
        fits = here.counter == last.counter + 1 and header.previous == last.hash
        if not fits or header.after > high:
            raise PeerError(Reason.GAP, "envelope does not follow the last accepted one")
        return _accept(header, here, state.accepted, state.superseded)
    for known in state.accepted:
        if known[:2] == here[:2] and known.hash != here.hash:
            raise PeerError(Reason.FORK, "another envelope stood at this place")
    return Step(verdict=Verdict.DUPLICATE, state=state)


def _accept(
    header: Header,
    here: Accepted,
    before: tuple[Accepted, ...],
    superseded: tuple[bytes, ...],
) -> Step:
    """The only place where a chain's state moves."""
    state = ChainState(
        sender=header.sender,
        number=header.epoch_number,
        accepted=(*before[-HEADS_REMEMBERED:], here),
        superseded=superseded,
    )
    return Step(verdict=Verdict.ACCEPT, state=state)


def _begins(header: Header) -> bool:
    return header.counter == 0 and header.previous == NO_PREVIOUS


def _known_head(state: ChainState, header: Header, head: Head | None) -> Accepted | None:
    """The remembered place a new epoch goes on from; None when it may not or is not known."""
    named = ROOT if head is None else Accepted(head.epoch, head.counter, head.hash)
    if named not in state.accepted:
        return None
    if header.sender == state.sender:
        return named if header.epoch_number > state.number else None
    return named if named.epoch == state.last.epoch else None


def _link(data: bytes, epochs: tuple[bytes, ...]) -> Accepted:
    counter = int.from_bytes(data[1:-_HASH])
    if data[0] >= len(epochs) or counter >= EPOCH_BLOCKS_MAX:
        raise Malformed("chain state holds an unknown epoch or a wrong counter")
    return Accepted(epochs[data[0]], counter, data[-_HASH:])
