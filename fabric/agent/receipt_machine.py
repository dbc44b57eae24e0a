"""What is to be acknowledged next of one partition's streams. Pure.

Applied blocks gather until the next receipt of their stream is due. A receipt that
could not be sent leaves its range to the next one: what it said is never lost, only
the list of its envelopes. After a restart everything after the last acknowledged
receipt is said again, which is harmless: a receipt said twice is true twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fabric.model import canonical
from fabric.model.change import ZERO
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Malformed
from fabric.model.limits import RECEIPT_BLOCKS_MAX
from fabric.model.names import Stream
from fabric.ports import StreamState
from fabric.seal.chain import ROOT, ChainState
from fabric.seal.receipt import Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a stream is acknowledged: its last receipt's `upto` and last envelope."""

    upto: ChangeSequence
    hash: bytes

    def encode(self) -> bytes:
        """For the state file."""
        return canonical.encode([list(self.upto), self.hash])

    @classmethod
    def decode(cls, data: bytes | None) -> "Mark | None":
        """Undo `encode`; None for nothing, or for what is no mark."""
        try:
            match canonical.decode(data or b""):
                case [
                    [int() as generation, int() as position, int() as ordinal],
                    bytes() as digest,
                ]:
                    return cls(upto=ChangeSequence(generation, position, ordinal), hash=digest)
        except Malformed:
            pass
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a stream's next receipt."""

    stream: Stream
    after: ChangeSequence
    upto: ChangeSequence
    blocks: tuple[Received, ...]
    applied: datetime

    @property
    def mark(self) -> Mark:
        """What to remember once it is acknowledged."""
        return Mark(upto=self.upto, hash=self.blocks[-1].hash)


class ReceiptMachine:
    """Drafts by stream."""

    def __init__(self) -> None:
        self._waiting: dict[Stream, Draft] = {}
        self._upto: dict[Stream, ChangeSequence] = {}

    @property
    def waiting(self) -> Sequence[Stream]:
        """Streams with something to acknowledge."""
        return [*self._waiting]

    def resume(
        self, states: Mapping[Stream, StreamState], marks: Mapping[Stream, Mark], now: datetime
    ) -> None:
        """Take over what an earlier life applied and did not acknowledge."""
        for stream, state in states.items():
            mark = marks.get(stream)
            if mark is not None:
                self._upto[stream] = mark.upto
            blocks = _unacknowledged(state, mark)
            if blocks:
                self._waiting[stream] = Draft(
                    stream=stream,
                    after=min(mark.upto, state.high) if mark else state.high,
                    upto=state.high,
                    blocks=blocks,
                    applied=now,
                )

    def applied(
        self,
        stream: Stream,
        block: Received,
        *,
        after: ChangeSequence,
        upto: ChangeSequence,
        now: datetime,
    ) -> None:
        """One block is in the target; (after, upto] is its range."""
        before = self._waiting.get(stream)
        if before is None:
            known = self._upto.get(stream, after)
            self._waiting[stream] = Draft(
                stream=stream, after=min(known, upto), upto=upto, blocks=(block,), applied=now
            )
            return
        self._waiting[stream] = replace(
            before,
            upto=max(before.upto, upto),
            blocks=(*before.blocks, block)[-RECEIPT_BLOCKS_MAX:],
            applied=now,
        )

    def take(self, stream: Stream) -> Draft:
        """What to say now; what is applied from here on waits for the next receipt."""
        draft = self._waiting.pop(stream)
        self._upto[stream] = draft.upto
        return draft

    def lost(self, draft: Draft) -> None:
        """The receipt was not taken: the next one begins where it began."""
        waiting = self._waiting.get(draft.stream)
        if waiting is not None:
            self._waiting[draft.stream] = replace(waiting, after=min(draft.after, waiting.after))
        self._upto[draft.stream] = draft.after


def _unacknowledged(state: StreamState, mark: Mark | None) -> tuple[Received, ...]:
    if not state.chain or state.high == ZERO:
        return ()
    accepted = [a for a in ChainState.decode(state.chain).accepted if a != ROOT]
    hashes = [a.hash for a in accepted]
    start = hashes.index(mark.hash) + 1 if mark is not None and mark.hash in hashes else 0
    return tuple(
        Received(epoch_id=a.epoch, counter=a.counter, hash=a.hash) for a in accepted[start:]
    )
