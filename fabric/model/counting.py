"""Events of many kinds that come without end, told in bounded lines and bounded memory. Pure.

Whoever is refused can be refused a thousand times a second. The first event of a kind is told
at once; of the others only how many there were, at every flush. A kind that rests is forgotten,
so that it is told again when it comes back.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

FLUSH_S = 30.0
"""Between two flushes of who counts what is written to an audit log."""
_IDLE_ROUNDS = 6
"""Flushes in a row without an event after which a kind is kept still."""
_K = TypeVar("_K", bound=Hashable)


@dataclass(slots=True)
class _Count:
    more: int = 0
    idle: int = 0


class Kinds(Generic[_K]):
    """Counts events by kind.

    Args:
        kinds_max: kinds that are kept apart; one `rest` of each that callers name comes on top.
    """

    def __init__(self, kinds_max: int) -> None:
        self._kinds_max = kinds_max
        self._counts: dict[_K, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, kind: _K) -> bool:
        return kind in self._counts

    def is_first(self, kind: _K, rest: _K) -> bool:
        """Count one event; True when it is the first of its kind: it is for the caller to tell.

        Args:
            rest: by what it is counted when no more kinds are kept apart. Which kinds they were
                is lost, that they came is not.
        """
        count = self._counts.get(kind)
        if count is None and len(self._counts) >= self._kinds_max:
            count = self._counts.setdefault(rest, _Count())
        if count is None:
            self._counts[kind] = _Count()
            return True
        count.more += 1
        return False

    def flush(self) -> tuple[list[tuple[_K, int]], list[_K]]:
        """What was counted since the last flush and not told, and the kinds that are forgotten."""
        counted: list[tuple[_K, int]] = []
        forgotten: list[_K] = []
        for kind, count in list(self._counts.items()):
            count.idle = 0 if count.more else count.idle + 1
            if count.more:
                counted.append((kind, count.more))
                count.more = 0
            elif count.idle > _IDLE_ROUNDS:
                del self._counts[kind]
                forgotten.append(kind)
        return counted, forgotten
