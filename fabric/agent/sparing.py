"""Which of many like events are written: a flood must not wash older lines out of a log. Pure.

Whoever can put garbage into a topic decides how often it is dropped. So of one kind of
event so many are written in a minute; the rest is counted, and the next one that is
written says how many came between. A cause that stands (no result, a rule that refuses) is
met again at every try: of such a kind one line is written in STANDING_S.
"""

from collections.abc import Hashable
from dataclasses import dataclass

EVENTS_MAX = 20
"""Lines of one kind in a minute."""
PERIOD_S = 60.0
STANDING_S = 600.0
"""Between two lines about one cause that stands."""
KINDS_MAX = 10_000


@dataclass(slots=True)
class _Kind:
    since: float
    written: int = 0
    unsaid: int = 0


class Sparing:
    """Counts by kind; kinds beyond KINDS_MAX share one count.

    Args:
        events_max: lines of one kind in `period_s` seconds.
    """

    def __init__(self, events_max: int = EVENTS_MAX, period_s: float = PERIOD_S) -> None:
        self._events_max = events_max
        self._period_s = period_s
        self._kinds: dict[Hashable, _Kind] = {}

    def unsaid(self, kind: Hashable, now: float) -> int | None:
        """How many of this kind came since the last written one; None: do not write this one.

        Args:
            now: monotonic seconds.
        """
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = None
        found = self._kinds.setdefault(kind, _Kind(now))
        if now - found.since >= self._period_s:
            found.since, found.written = now, 0
        if found.written >= self._events_max:
            found.unsaid += 1
            return None
        found.written += 1
        unsaid, found.unsaid = found.unsaid, 0
        return unsaid
