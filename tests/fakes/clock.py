"""Time that moves only when a test says so: ports.Clock without a clock."""

from datetime import UTC, datetime, timedelta

from fabric.model.limits import CLOCK_SKEW_S_MAX

START = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)


class ManualClock:
    """Starts at `START`, or where it is told to."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Aware UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._monotonic

    def latest(self) -> datetime:
        """The latest time that may be signed elsewhere now."""
        return self._now + timedelta(seconds=CLOCK_SKEW_S_MAX)

    def advance(self, seconds: float) -> datetime:
        """Let time pass; the new time."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        return self._now

    def set_wall(self, to: datetime) -> None:
        """Set the wall clock, as an administrator does; the monotonic clock stays."""
        self._now = to
