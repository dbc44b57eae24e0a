"""Room for what others write: so much in all, and so much of it for each writer. Pure.

A bound on the total alone is a gift to whoever fills it first: then everybody else is
refused. So each writer has a bound of its own, and each of its places another one.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

from fabric.model.errors import PeerError, Reason


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
