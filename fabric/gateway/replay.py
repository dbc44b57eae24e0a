"""What one gateway remembers of envelopes it let through, to stop replays at the door.

Best effort and per gateway: readers decide. Per sender, epoch and partition the
last batch is kept, with its outcome, and what to go back to while that is unknown.
Bounded, also in bytes: of a batch its digest is kept; the least used is forgotten first.
Spec: design section 9.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple, TypeAlias

from fabric.model.errors import PeerError, Reason
from fabric.model.limits import REPLAYS_REMEMBERED

_UNRESOLVED_MAX = 4
"""Kept batches of one key. A sender has one unresolved; others may send on meanwhile."""

Key: TypeAlias = tuple[str, bytes, int]
"""Sender's SPIFFE id, epoch id, partition."""


class Mark(NamedTuple):
    """One envelope's place in its chain."""

    key: Key
    counter: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Outcome of a batch that a broker acknowledged; `answer` is told to whoever sends it again."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """One batch that was forwarded.

    Attributes:
        first, last: counters.
        digest: over its envelopes' hashes.
        times: how often it was forwarded and not taken back.
    """

    first: int
    last: int
    digest: bytes
    stored: Stored | None = None
    times: int = 1

    def is_of(self, other: "_Batch") -> bool:
        """Whether both are the same envelopes."""
        said = (self.first, self.last, self.digest)
        return said == (other.first, other.last, other.digest)


class Replays:
    """The memory: `check` first, `sent` when a batch is forwarded, then what became of it."""

    def __init__(self, size: int = REPLAYS_REMEMBERED) -> None:
        self._size = size
        self._kept: OrderedDict[Key, tuple[_Batch, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, marks: Sequence[Mark]) -> Stored | None:
        """Whether a batch's envelopes may be forwarded.

        Args:
            marks: of one batch for one partition, in order.

        Returns:
            The outcome to repeat when exactly this batch is stored already; None: forward.

        Raises:
            PeerError: REPLAYED, a counter is not above the last one, or has another hash.
        """
        answers: list[Stored | None] = []
        for key, group in _by_key(marks).items():
            newest = self._kept[key][-1] if key in self._kept else None
            if newest is not None and newest.is_of(_batch(group)):
                answers.append(newest.stored)
                continue
            last = -1 if newest is None else newest.last
            for mark in group:
                if mark.counter <= last:
                    raise PeerError(Reason.REPLAYED, "counter of this epoch was seen before")
                last = mark.counter
            answers.append(None)
        # An epoch change inside a batch makes two keys: a repeat of it is forwarded again.
        return answers[0] if len(answers) == 1 else None

    def sent(self, marks: Sequence[Mark]) -> None:
        """Remember a batch that is on its way; its outcome is unknown."""
        for key, group in _by_key(marks).items():
            batch, kept = _batch(group), self._kept.get(key, ())
            if kept and kept[-1].is_of(batch):  # the same again
                kept, batch = kept[:-1], replace(kept[-1], times=kept[-1].times + 1)
            self._put(key, (*kept, batch)[-_UNRESOLVED_MAX:])

    def forget(self, marks: Sequence[Mark]) -> None:
        """Take back a batch that was never sent; what was sent before stays as it is."""
        self._take_back(marks, lambda batch: replace(batch, times=batch.times - 1))

    def refused(self, marks: Sequence[Mark]) -> None:
        """Forget a batch that a broker refuses for good, however often it was sent."""
        self._take_back(marks, lambda batch: replace(batch, times=0))

    def _take_back(self, marks: Sequence[Mark], change: Callable[[_Batch], _Batch]) -> None:
        for key, group in _by_key(marks).items():
            batch = _batch(group)
            changed = (change(it) if it.is_of(batch) else it for it in self._kept.get(key, ()))
            left = tuple(it for it in changed if it.times > 0 or it.stored is not None)
            if left:
                self._kept[key] = left
            else:
                self._kept.pop(key, None)

    def stored(self, marks: Sequence[Mark], offset: int) -> None:
        """Remember the acknowledged outcome; there is no way back before it any more."""
        for key, group in _by_key(marks).items():
            batch, kept = _batch(group), self._kept.get(key, ())
            for at, found in enumerate(kept):
                if found.is_of(batch):
                    done = replace(found, stored=Stored(offset=offset))
                    self._put(key, (done, *kept[at + 1 :]))
                    break

    def _put(self, key: Key, kept: tuple[_Batch, ...]) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


def _batch(marks: Sequence[Mark]) -> _Batch:
    digest = sha256(b"".join(mark.hash for mark in marks)).digest()
    return _Batch(first=marks[0].counter, last=marks[-1].counter, digest=digest)


def _by_key(marks: Sequence[Mark]) -> dict[Key, list[Mark]]:
    grouped: dict[Key, list[Mark]] = {}
    for mark in marks:
        grouped.setdefault(mark.key, []).append(mark)
    return grouped
