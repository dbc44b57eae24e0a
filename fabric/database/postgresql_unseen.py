"""Which transactions went by in the stream and may not be visible yet. Pure.

A commit is in the log before others see it, and one that waits for a synchronous standby
stays so as long as the standby is away. A table read without such a transaction and given
out behind it would put older rows over newer ones. So no read counts before all that went
by are visible. Those of earlier streams are known by the span of ids in which they lie.
"""

from collections.abc import Sequence
from typing import TypeAlias

from fabric.database.postgresql_window import Visible, is_before

Span: TypeAlias = tuple[int, int]
"""Lowest and highest transaction id, both of 32 bits and both in it."""
_UNCHECKED_MAX = 4096


class Unseen:
    """What went by and no snapshot of the server is known to have seen.

    Args:
        past: the span in which what went by in earlier streams lies; empty when all of it is
            visible.
    """

    def __init__(self, past: Sequence[int] = ()) -> None:
        self._past: Span | None = (past[0], past[1]) if past else None
        self._xids: set[int] = set()
        self._kept = 0
        self.span = self._past

    @property
    def is_full(self) -> bool:
        """Whether it is time for `settle`."""
        return len(self._xids) - self._kept >= _UNCHECKED_MAX

    def passed(self, xid: int) -> None:
        """A transaction goes by."""
        self._xids.add(xid)
        self.span = _widened(self.span, xid)

    def settle(self, visible: Visible) -> bool:
        """Forget what a snapshot saw; whether that is everything."""
        self._xids = {xid for xid in self._xids if not visible.saw(xid)}
        self._kept = len(self._xids)
        if self._past is not None and self._saw(visible, self._past):
            self._past = None
        self.span = self._past
        for xid in self._xids:
            self.span = _widened(self.span, xid)
        return self.span is None

    def _saw(self, visible: Visible, past: Span) -> bool:
        """Whether a snapshot saw all that went by before.

        Its running transactions name only ids below its end. The highest of the span did
        go by, so once the end is above it, none hides there. What went by in this stream
        cannot have gone by before; anything else that runs may have.
        """
        low, high = past
        if not is_before(high, visible.end):
            return False
        running = visible.running - self._xids
        return all(is_before(xid, low) or is_before(high, xid) for xid in running)


def _widened(span: Span | None, xid: int) -> Span:
    if span is None:
        return xid, xid
    low, high = span
    return (xid if is_before(xid, low) else low), (xid if is_before(high, xid) else high)
