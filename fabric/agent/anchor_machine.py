"""Which of the envelopes that lie ahead are anchored: a reader's look into the log. Pure.

A late reader takes only what its sender can not have made up later. Envelopes link
backwards by hash, so one head that the authority carried vouches for all before it:
the reader looks ahead, keeps nothing but hashes, and when it meets a carried head
it walks back from there. Nothing is applied on the way.

    COVERED    it leads to a carried head
    ABANDONED  an envelope of its sender and stream at its turn or a later one is carried by
               a result, and does not lead back to it: the sender never saw it acknowledged
               and sent its changes again, or it is made up
    UNKNOWN    nothing carried lies behind it, as far as was looked

Signatures are not looked at here: a hash that leads to a carried head cannot be
anybody else's. Nor does it matter where in the log an envelope stands: the broker can
append a copy of any, and so a turn is read from the header, which the hash covers.
Spec: docs/format.md section 9, docs/adr/0015.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum, unique
from typing import TypeAlias

from fabric.attest.anchors import Anchor
from fabric.model.limits import ANCHOR_WINDOW
from fabric.model.names import HostId, Stream
from fabric.seal.envelope import Header

Find = Callable[[HostId, bytes], Anchor | None]
Turn: TypeAlias = tuple[int, int, int]
"""Generation, epoch number, counter: rises along all that one sender sends of one stream.

Within an epoch the counter rises; a sender's next epoch has a greater number, also when the
last one's blocks were never acknowledged; and after a lost state file, should the numbers
fall, the generation is greater. Senders of one origin, and streams, number on their own:
their turns are never held against each other. Two that go on from one envelope decide
nothing: a sender whose state file was restored from a copy goes on from an older head.
"""


def turn_of(header: Header) -> Turn:
    """An envelope's turn in what its sender sends of its stream."""
    return header.generation, header.epoch_number, header.counter


@unique
class Cover(Enum):
    """What a look ahead says of one envelope."""

    COVERED = "covered"
    ABANDONED = "abandoned"
    UNKNOWN = "unknown"


class _Line:
    """One stream's envelopes in the window."""

    def __init__(self) -> None:
        self.previous: dict[bytes, bytes] = {}
        self.covered: dict[bytes, Anchor] = {}
        self.awaited: dict[bytes, Anchor] = {}  # what covered ones go on from, not met yet
        self.carried: dict[HostId, Turn] = {}  # each sender's last carried head


class AnchorWindow:
    """Envelopes of one partition from `first` on, hashes only.

    Args:
        first: offset of the envelope that somebody wants an anchor for.
        find: says who carried a hash as a head of a host's.
    """

    def __init__(self, first: int, find: Find) -> None:
        self._find = find
        self._lines: dict[Stream, _Line] = {}
        self.first = first
        self.count = 0
        """Envelopes in the window."""
        self.until = first
        """Offset after the last record that was looked at."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be added."""
        return self.count >= ANCHOR_WINDOW

    def add(
        self, stream: Stream, host: HostId, turn: Turn, *, digest: bytes, previous: bytes
    ) -> None:
        """Take in the next envelope; a full window takes none.

        Args:
            host: its sender, as its header says.
            turn: as its header says.
            digest: the envelope's hash.
            previous: the hash of the one before it, as its header says.
        """
        if self.is_full:
            return
        line = self._lines.setdefault(stream, _Line())
        if digest not in line.previous:
            self.count += 1
            line.previous[digest] = previous
        awaited = line.awaited.pop(digest, None)
        if awaited is not None:
            self._cover(line, digest, awaited)
        anchor = self._find(host, digest)
        if anchor is None:
            return
        self._cover(line, digest, anchor)
        if anchor.noticed is None:  # heads of a changed host must not make others abandoned
            # The greatest, not the last met: an old head's copy abandons nothing after it.
            line.carried[host] = max(turn, line.carried.get(host, turn))

    def _cover(self, line: _Line, digest: bytes, anchor: Anchor) -> None:
        """Walk back from a carried head; each envelope is walked over once per better anchor."""
        at = digest
        while at in line.previous:
            if not _is_better(anchor, line.covered.get(at)):
                return
            line.covered[at] = anchor
            at = line.previous[at]
        if _is_better(anchor, line.awaited.get(at)):  # a copy may stand before its forerunners
            line.awaited[at] = anchor

    def cover(
        self, stream: Stream, turn: Turn, digest: bytes, *, host: HostId, expires: datetime
    ) -> Cover:
        """What the look ahead says of an envelope.

        Args:
            turn: as its header says.
            host: its sender.
            expires: end of the result that it names.
        """
        line = self._lines.get(stream)
        if line is None:
            return Cover.UNKNOWN
        anchor = line.covered.get(digest)
        if anchor is not None:
            return Cover.COVERED if anchor.covers(host, expires) else Cover.UNKNOWN
        carried = line.carried.get(host)
        # At the very turn another one is carried, and an honest sender has one for each turn.
        return Cover.UNKNOWN if carried is None or turn > carried else Cover.ABANDONED


def _is_better(anchor: Anchor, known: Anchor | None) -> bool:
    return known is None or (known.noticed is not None and anchor.noticed is None)
