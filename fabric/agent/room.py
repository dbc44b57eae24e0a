"""Room for what others write: so much in all, and so much of it for each writer. Pure.

A bound on the total alone is a gift to whoever fills it first: then everybody else is
refused. So each writer has a bound of its own, and each of its places another one. Where
the newest is what counts, a writer that has filled its own loses its oldest.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

from fabric.attest.shares import Shares
from fabric.model.errors import PeerError, Reason
from fabric.model.names import HostId


class Room:
    """Counts what is kept, by paths such as (writer, place).

    Args:
        what: is kept, for messages; in the plural.
        limits: in all, then for each first step of a path, then for each first two, and so on.
    """

    def __init__(self, what: str, limits: Sequence[int]) -> None:
        self._what = what
        self._limits = limits
        self._kept: Counter[tuple[Hashable, ...]] = Counter()

    def take(self, *path: Hashable) -> None:
        """One more is kept; raises PeerError TOO_LARGE, and counts nothing, when it is too many."""
        steps = self._steps(path)
        if any(self._kept[step] >= limit for step, limit in zip(steps, self._limits, strict=True)):
            raise PeerError(Reason.TOO_LARGE, f"more {self._what} than a view holds")
        self._kept.update(steps)

    def give_back(self, *path: Hashable) -> None:
        """One that was kept is forgotten."""
        for step in self._steps(path):
            self._kept[step] -= 1
            if not self._kept[step]:
                del self._kept[step]

    def _steps(self, path: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
        return [tuple(path[:depth]) for depth in range(len(self._limits))]


class NewestRoom:
    """Room for the newest: one too many costs its writer's oldest, in all that of who has most.

    Args:
        in_all: at most so many.
        each: of one writer at most so many.
    """

    def __init__(self, in_all: int, each: int) -> None:
        self._in_all = in_all
        self._each = each
        self._kept: dict[HostId, dict[bytes, None]] = {}
        self._shares = Shares()

    def take(self, writer: HostId, name: bytes) -> bytes | None:
        """One more, not here yet, is kept; the name of the one that has to go for it."""
        kept = self._kept.setdefault(writer, {})
        kept[name] = None
        self._shares.add(writer)
        if len(kept) <= self._each:
            if self._shares.total <= self._in_all:
                return None
            writer = self._shares.largest()
        oldest = next(iter(self._kept[writer]))
        self.give_back(writer, oldest)
        return oldest

    def give_back(self, writer: HostId, name: bytes) -> None:
        """One that was kept is forgotten."""
        del self._kept[writer][name]
        if not self._kept[writer]:
            del self._kept[writer]
        self._shares.drop(writer)
