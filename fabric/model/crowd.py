"""Who has to go where places are few and strangers come from few addresses. Pure.

Whoever holds most places gives way first, its oldest one before its others: who crowds in
so pushes out its own, and whoever came alone keeps its place.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class Crowd(Generic[_T]):
    """Places by share (`share_of` an address). The caller bounds how many there are.

    Every step but `give_way` costs the same however many there are; that one looks at each
    share once.
    """

    def __init__(self) -> None:
        self._share: dict[_T, str] = {}
        self._held: dict[str, dict[_T, int]] = {}  # each oldest first, with its turn
        self._turn = 0

    def __len__(self) -> int:
        return len(self._share)

    def add(self, place: _T, share: str) -> None:
        """A place that is not here yet is taken, by whoever `share` stands for."""
        assert place not in self._share
        self._share[place] = share
        self._turn += 1
        self._held.setdefault(share, {})[place] = self._turn

    def drop(self, place: _T) -> str | None:
        """A place is free again; whose it was, None when it was free already."""
        share = self._share.pop(place, None)
        if share is not None:
            del self._held[share][place]
            if not self._held[share]:
                del self._held[share]
        return share

    def held(self, share: str) -> int:
        """How many places a share holds."""
        return len(self._held.get(share, ()))

    def give_way(self) -> _T:
        """Free the oldest place of who holds most, and say which; there is one.

        Of several that hold as many it is the oldest place of all of theirs.
        """
        largest = max(self._held.values(), key=lambda held: (len(held), -next(iter(held.values()))))
        oldest = next(iter(largest))
        self.drop(oldest)
        return oldest
