"""One snapshot chunk between its read and its high watermark. Pure.

A chunk row is stale when a transaction that the chunk's snapshot did not see changed
its key before the high mark; the stream carries the newer row, so the chunk's is
dropped. Visibility is asked of the snapshot itself (its xmin, xmax and running
transactions) and not of log positions: a commit is in the log before others see it.
"""

from dataclasses import dataclass
from typing import TypeAlias

from fabric.model.change import Row, Value
from fabric.model.errors import Malformed
from fabric.model.names import Topic

Key: TypeAlias = tuple[Value, ...]
XID_MASK = 0xFFFFFFFF
_XID_HALF = 0x80000000


def is_before(xid: int, other: int) -> bool:
    """Whether a transaction id is the older one; they go round after 32 bits."""
    return (xid - other) & XID_MASK >= _XID_HALF


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """A snapshot of the server (pg_current_snapshot), transaction ids cut to 32 bits."""

    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Visible":
        """Read `xmin:xmax:xip,...`; raises Malformed."""
        try:
            _, end, running = text.split(":")
            ids = frozenset(int(each) & XID_MASK for each in running.split(",") if each)
            return cls(end=int(end) & XID_MASK, running=ids)
        except ValueError as exc:
            raise Malformed("snapshot does not parse") from exc

    def saw(self, xid: int) -> bool:
        """Whether a committed transaction is in the snapshot."""
        return is_before(xid, self.end) and xid not in self.running


class Window:
    """The rows of one chunk by key, in key order, until the high mark.

    Attributes:
        ident: what the high mark is known by.
        is_last: the chunk reached the end of the table.
    """

    def __init__(self, topic: Topic, ident: str, visible: Visible) -> None:
        self.topic = topic
        self.ident = ident
        self.is_last = False
        self._visible = visible
        self._rows: dict[Key, Row | None] = {}
        self._torn: set[Key] = set()

    def add(self, key: Key, row: Row) -> None:
        """Take a row that the chunk read."""
        self._rows[key] = row

    def saw(self, xid: int) -> bool:
        """Whether the chunk was read after the transaction."""
        return self._visible.saw(xid)

    def touch(self, key: Key, is_partial: bool) -> None:
        """A transaction that the chunk did not see changed the row.

        Args:
            is_partial: the stream does not carry the whole row, so the chunk must read
                it again.
        """
        if key in self._rows:
            self._rows[key] = None
            if is_partial:
                self._torn.add(key)

    def clear(self) -> None:
        """The table was emptied after the chunk was read."""
        self._rows = dict.fromkeys(self._rows)
        self._torn.clear()

    def result(self) -> "Chunk":
        """The rows that still stand, up to the first row that must be read again."""
        rows: list[Row] = []
        last: Key | None = None
        for key, row in self._rows.items():
            if key in self._torn:
                return Chunk(rows=rows, last=last, is_cut=True, is_last=False)
            if row is not None:
                rows.append(row)
            last = key
        return Chunk(rows=rows, last=last, is_cut=False, is_last=self.is_last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What a window leaves.

    Attributes:
        last: key after which the next chunk starts; None when nothing is done.
        is_cut: a row after `last` must be read again.
        is_last: the table has no rows after `last`.
    """

    rows: list[Row]
    last: Key | None
    is_cut: bool
    is_last: bool

    def __repr__(self) -> str:  # rows are secret
        return f"Chunk(rows={len(self.rows)}, is_cut={self.is_cut}, is_last={self.is_last})"
