"""What one gateway remembers of envelopes it let through, to stop replays at the door.

Best effort and per gateway: readers decide. Per sender, epoch and partition the
last batch is kept, with its outcome. Bounded, the least used is forgotten first.
Spec: design section 9.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from fabric.model.errors import PeerError, Reason
from fabric.model.limits import REPLAYS_REMEMBERED

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
class _Entry:
    marks: tuple[Mark, ...]
    stored: Stored | None
    before: "_Entry | None" = None  # what to go back to, as long as the outcome is unknown


class Replays:
    """The memory: `check` first, `sent` when a batch is forwarded, then what became of it."""

    def __init__(self, size: int = REPLAYS_REMEMBERED) -> None:
        self._size = size
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

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
        for key, batch in _by_key(marks).items():
            entry = self._entries.get(key)
            if entry is not None and entry.marks == batch:
                answers.append(entry.stored)
                continue
            last = -1 if entry is None else entry.marks[-1].counter
            for mark in batch:
                if mark.counter <= last:
                    raise PeerError(Reason.REPLAYED, "counter of this epoch was seen before")
                last = mark.counter
            answers.append(None)
        # An epoch change inside a batch makes two keys: a repeat of it is forwarded again.
        return answers[0] if len(answers) == 1 else None

    def sent(self, marks: Sequence[Mark]) -> None:
        """Remember a batch that is on its way; its outcome is unknown."""
        for key, batch in _by_key(marks).items():
            before = self._entries.get(key)
            if before is not None:
                before = replace(before, before=None)
            self._put(key, _Entry(marks=batch, stored=None, before=before))

    def forget(self, marks: Sequence[Mark]) -> None:
        """Take back a batch that is not stored, unless a later one has come since."""
        for key, batch in _by_key(marks).items():
            entry = self._entries.get(key)
            if entry is None or entry.marks != batch or entry.stored is not None:
                continue
            if entry.before is None:
                del self._entries[key]
            else:
                self._entries[key] = entry.before

    def stored(self, marks: Sequence[Mark], offset: int) -> None:
        """Remember the acknowledged outcome, unless a later batch has come since."""
        for key, batch in _by_key(marks).items():
            entry = self._entries.get(key)
            if entry is not None and entry.marks == batch:
                self._put(key, _Entry(marks=batch, stored=Stored(offset=offset)))

    def _put(self, key: Key, entry: _Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)


def _by_key(marks: Sequence[Mark]) -> dict[Key, tuple[Mark, ...]]:
    grouped: dict[Key, list[Mark]] = {}
    for mark in marks:
        grouped.setdefault(mark.key, []).append(mark)
    return {key: tuple(batch) for key, batch in grouped.items()}
