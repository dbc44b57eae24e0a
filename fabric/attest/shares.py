"""Whose turn it is to let something go, where what many hosts fill is bounded in all. Pure.

Whoever holds most gives way first. A host that fills what it shares with the others so
pushes out its own alone, and one that holds little keeps it, however many crowd in.
"""

from fabric.model.names import HostId


class Shares:
    """How much each host holds; every step costs the same, however many hosts there are."""

    def __init__(self) -> None:
        self._held: dict[HostId, int] = {}
        self._by_count: dict[int, dict[HostId, None]] = {}
        self._most = 0
        self.total = 0

    def add(self, host: HostId) -> None:
        """The host holds one more."""
        count = self._move(host, 1)
        self._most = max(self._most, count)

    def drop(self, host: HostId) -> None:
        """The host holds one less; it holds at least one."""
        assert self._held.get(host)
        self._move(host, -1)
        if self._most not in self._by_count:
            self._most -= 1  # the host itself is there now, or nobody holds anything

    def largest(self) -> HostId:
        """Who holds most; of several the one that came to hold it last. Somebody holds one."""
        assert self._most
        return next(reversed(self._by_count[self._most]))

    def _move(self, host: HostId, step: int) -> int:
        """Count `step` more of this host; how many it holds then."""
        before = self._held.pop(host, 0)
        count = before + step
        if before:
            del self._by_count[before][host]
            if not self._by_count[before]:
                del self._by_count[before]
        if count:
            self._held[host] = count
            self._by_count.setdefault(count, {})[host] = None
        self.total += step
        return count
