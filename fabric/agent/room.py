"""Room for what others write: so much in all, and so much of it for each writer. Pure.

A bound on the total alone is a gift to whoever fills it first: then everybody else is
refused. So each writer has a bound of its own, and each of its places another one. Where
the newest is what counts, a writer that has filled its own loses its oldest.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from fabric.attest.shares import Shares
from fabric.model.errors import PeerError, Reason
from fabric.model.names import HostId

_STEPS_MAX = 8
"""For one that is taken: so many checks, of half a millisecond each, and names that go."""
_WAITING_SHARE = 16
"""What cannot be checked yet has this part of a writer's room for itself."""


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


@dataclass(slots=True)
class _Names:
    """One writer's, oldest first: all; of them those not checked, and those checked in vain."""

    all: dict[bytes, None] = field(default_factory=dict)
    unchecked: dict[bytes, None] = field(default_factory=dict)
    waiting: dict[bytes, None] = field(default_factory=dict)


class NewestRoom:
    """Room for the newest: one too many costs its writer's oldest, in all that of who has most.

    Anybody can write in another's name, so what is unchecked is checked before anything goes,
    and of what cannot be checked yet a writer has a share only beside what is proven. A name
    is checked once, and then again only when it would have to go: so many names, so much work.

    Args:
        in_all: at most so many.
        each: of one writer at most so many. While a writer's are checked, a few at a time,
            both are passed by a seventh at most.

    Attributes:
        has_let_go: some name had to go.
    """

    def __init__(self, in_all: int, each: int) -> None:
        self._in_all = in_all
        self._each = each
        self._waiting_max = max(1, each // _WAITING_SHARE)
        self._kept: dict[HostId, _Names] = {}
        self._shares = Shares()
        self.has_let_go = False

    def names(self, writer: HostId) -> Sequence[bytes]:
        """What is kept of a writer, oldest first."""
        return [*self._kept[writer].all] if writer in self._kept else ()

    def take(self, writer: HostId, name: bytes) -> None:
        """One more, not here yet and unchecked, is kept; then ask for the `excess`."""
        kept = self._kept.setdefault(writer, _Names())
        kept.all[name] = kept.unchecked[name] = None
        self._shares.add(writer)

    def excess(self, writer: HostId, check: Callable[[bytes], object]) -> Iterator[bytes]:
        """Names that have to go after one more of this writer; each is given back already.

        Args:
            check: told of a name, calls `prove` or `give_back`, or neither while it cannot tell.
        """
        for _ in range(_STEPS_MAX):
            crowded = self._crowded(writer)
            if crowded is None:
                return
            kept = self._kept[crowded]
            if kept.unchecked:
                name = next(iter(kept.unchecked))
                del kept.unchecked[name]
                kept.waiting[name] = None
                check(name)
                continue
            is_waiting = len(kept.waiting) > self._waiting_max
            name = next(iter(kept.waiting if is_waiting else kept.all))
            if name in kept.waiting:
                check(name)
                if name not in kept.waiting:
                    continue
            self.give_back(crowded, name)
            self.has_let_go = True
            yield name

    def prove(self, writer: HostId, name: bytes) -> None:
        """One that is kept is the writer's own."""
        kept = self._kept[writer]
        kept.unchecked.pop(name, None)
        kept.waiting.pop(name, None)

    def give_back(self, writer: HostId, name: bytes) -> None:
        """One that was kept is forgotten."""
        self.prove(writer, name)
        del self._kept[writer].all[name]
        if not self._kept[writer].all:
            del self._kept[writer]
        self._shares.drop(writer)

    def _crowded(self, writer: HostId) -> HostId | None:
        """Who has too many: this writer, or in all whoever has most."""
        if writer in self._kept and len(self._kept[writer].all) > self._each:
            return writer
        return self._shares.largest() if self._shares.total > self._in_all else None
