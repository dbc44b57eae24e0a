"""How old the oldest commit is that nobody has released yet. Pure."""

from collections import deque

from fabric.database.source_figures import age_s

_STEP_US = 1_000_000
"""Commits closer than this share one entry, so that a long wait stays small."""
_ENTRIES_MAX = 100_000


class Lag:
    """Commits that were read and not released, coarsely."""

    def __init__(self) -> None:
        self._open: deque[tuple[int, int]] = deque(maxlen=_ENTRIES_MAX)
        self._last = (-1, 0)

    def committed(self, position: int, commit_us: int) -> None:
        """A transaction with rows was read."""
        self._last = (position, commit_us)
        if not self._open or commit_us - self._open[-1][1] >= _STEP_US:
            self._open.append(self._last)

    def released(self, position: int) -> None:
        """Everything at or before `position` is done."""
        while self._open and self._open[0][0] <= position:
            self._open.popleft()
        if not self._open and self._last[0] > position:
            self._open.append(self._last)

    def seconds(self, now_us: int) -> float:
        """Age of the oldest open commit; 0 when there is none."""
        return age_s(self._open[0][1] if self._open else None, now_us)
