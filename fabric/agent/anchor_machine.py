"""Which of the envelopes that lie ahead are anchored: a reader's look into the log. Pure.

A late reader takes only what its sender can not have made up later. Envelopes link
backwards by hash, so one head that the authority carried vouches for all before it:
the reader looks ahead, keeps nothing but hashes, and when it meets a carried head
it walks back from there. Nothing is applied on the way.

    COVERED    it leads to a carried head
    ABANDONED  a later envelope of its sender and stream is carried by a result, and goes
               back past it: the sender never saw it acknowledged and sent its changes
               again, or it is made up
    UNKNOWN    nothing carried lies behind it, as far as was looked

Signatures are not looked at here: a hash that leads to a carried head cannot be
anybody else's. Spec: docs/format.md section 9, docs/adr/0015.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum, unique

from fabric.attest.anchors import Anchor
from fabric.model.limits import ANCHOR_WINDOW
from fabric.model.names import HostId, Stream

Find = Callable[[HostId, bytes], Anchor | None]


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
        self.carried: dict[HostId, int] = {}  # offset of each sender's last carried head


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
        self, stream: Stream, host: HostId, offset: int, *, digest: bytes, previous: bytes
    ) -> None:
        """Take in the next envelope; a full window takes none.

        Args:
            host: its sender, as its header says.
            digest: the envelope's hash.
            previous: the hash of the one before it, as its header says.
        """
        if self.is_full:
            return
        line = self._lines.setdefault(stream, _Line())
        if digest not in line.previous:
            self.count += 1
            line.previous[digest] = previous
        anchor = self._find(host, digest)
        if anchor is None:
            return
        self._cover(line, digest, anchor)
        if anchor.noticed is None:  # heads of a changed host must not make others abandoned
            line.carried[host] = offset

    def _cover(self, line: _Line, digest: bytes, anchor: Anchor) -> None:
        """Walk back from a carried head; each envelope is walked over once per better anchor."""
        at = digest
        while at in line.previous:
            known = line.covered.get(at)
            if known is not None and (known.noticed is None or anchor.noticed is not None):
                return
            line.covered[at] = anchor
            at = line.previous[at]

    def cover(
        self, stream: Stream, offset: int, digest: bytes, *, host: HostId, expires: datetime
    ) -> Cover:
        """What the look ahead says of an envelope.

        Args:
            host: its sender.
            expires: end of the result that it names.
        """
        line = self._lines.get(stream)
        if line is None:
            return Cover.UNKNOWN
        anchor = line.covered.get(digest)
        if anchor is not None:
            return Cover.COVERED if anchor.covers(host, expires) else Cover.UNKNOWN
        return Cover.ABANDONED if offset < line.carried.get(host, -1) else Cover.UNKNOWN
