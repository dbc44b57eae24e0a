"""Which transactions went by in the stream and may not be visible yet. Pure.

A commit is in the log before others see it, and one that waits for a synchronous standby
stays so as long as the standby is away. A table read without such a transaction and given
out behind it would put older rows over newer ones. So no read counts before all that went
by are visible.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from fabric.database.postgresql_window import Visible, is_before

Span: TypeAlias = tuple[int, int]
"""Lowest and highest transaction id, both of 32 bits and both in it."""
_UNCHECKED_MAX = 4096
_IDS_MAX = 64
"""A token is written often and must stay small: more ids are told by their span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a stream hands on to the next one, for its resume token.

    Attributes:
        ids: transactions that went by and may not be visible yet.
        span: further ones lie in it, among others that never went by.
    """

    ids: frozenset[int] = frozenset()
    span: Span | None = None

    def among(self, under_way: Iterable[int]) -> frozenset[int]:
        """Those that may not be visible yet.

        Args:
            under_way: all transactions that are not visible. So a span holds up nothing that
                began since, and what is handed on again are ids.
        """
        return frozenset(xid for xid in under_way if xid in self.ids or self._spans(xid))

    def _spans(self, xid: int) -> bool:
        if self.span is None:
            return False
        low, high = self.span
        return not (is_before(xid, low) or is_before(high, xid))


class Unseen:
    """What went by and no snapshot of the server is known to have seen.

    Args:
        past: what went by in earlier streams.
    """

    def __init__(self, past: Iterable[int] = ()) -> None:
        self._kept = frozenset(past)
        self._new: set[int] = set()
        self._span: Span | None = None

    @property
    def is_full(self) -> bool:
        """Whether it is time for `settle`."""
        return len(self._new) >= _UNCHECKED_MAX

    @property
    def kept(self) -> frozenset[int]:
        """What the last snapshot did not see."""
        return self._kept

    @property
    def past(self) -> Past:
        """For the resume token."""
        if len(self._kept) + len(self._new) <= _IDS_MAX:
            return Past(ids=self._kept | self._new)
        if len(self._kept) <= _IDS_MAX:
            return Past(ids=self._kept, span=self._span)
        span = self._span
        for xid in self._kept:
            span = _widened(span, xid)
        return Past(span=span)

    def passed(self, xid: int) -> None:
        """A transaction goes by."""
        self._new.add(xid)
        self._span = _widened(self._span, xid)

    def settle(self, visible: Visible) -> bool:
        """Forget what a snapshot saw; whether that is everything."""
        self._kept = frozenset(xid for xid in self._kept | self._new if not visible.saw(xid))
        self._new.clear()
        self._span = None
        return not self._kept


def _widened(span: Span | None, xid: int) -> Span:
    if span is None:
        return xid, xid
    low, high = span
    return (xid if is_before(xid, low) else low), (xid if is_before(high, xid) else high)
