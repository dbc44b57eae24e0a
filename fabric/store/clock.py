"""Time as this host may believe it: the system's clock, held up by signed times.

A clock that runs behind what others have signed would make expired statements
valid again, so it never reads below the newest signed time, and when it lies
further back than the allowed skew, everything stops.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import CLOCK_SKEW_S_MAX

_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)
_STEADY_S = 3_600.0
"""After so long a wall clock's small steps, as servers of time cause them, are forgiven."""


def _wall() -> datetime:
    return datetime.now(UTC)


def _since_boot() -> float:
    """Seconds since the machine was started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """Implements ports.Clock.

    Args:
        high: newest signed time seen before, from where the caller kept `high`.
        wall: the system's clock, aware UTC.
        monotonic: seconds that only rise.
    """

    _remedy = "correct it"

    def __init__(
        self,
        high: datetime | None = None,
        *,
        wall: Callable[[], datetime] = _wall,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._high = high
        self._wall = wall
        self._monotonic = monotonic

    @property
    def high(self) -> datetime | None:
        """Newest signed time seen; keep it over restarts."""
        return self._high

    def observe(self, signed: datetime) -> None:
        """Take note of a time whose signature was verified, aware UTC."""
        if self._high is None or signed > self._high:
            self._high = signed

    def forget(self) -> None:
        """Drop what was noted: whoever signed it is trusted no more."""
        self._high = None

    def now(self) -> datetime:
        """Aware UTC, never below `high`; raises DeniedError CLOCK_WENT_BACK."""
        wall = self._wall()
        if self._high is None or wall >= self._high:
            return wall
        if self._high - wall > _SKEW:
            raise DeniedError(
                Reason.CLOCK_WENT_BACK,
                f"system clock is more than {CLOCK_SKEW_S_MAX} s behind a signed time;"
                f" {self._remedy}",
            )
        return self._high

    def latest(self) -> datetime:
        """The wall clock with the allowed skew: what is signed later is of a wrong clock."""
        return self._wall() + _SKEW

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return self._monotonic()


class SigningClock(SystemClock):
    """The clock of a process whose signed times hold up everybody else's.

    One signed time of the future stops every host that sees it until that time has
    come. So this clock says nothing while the wall clock has gone ahead of the time
    that has passed since an earlier look, asleep or not, by more than the allowed skew,
    and while another machine's clock gainsays it (`compare`, `heed`). It goes on by itself when
    the wall clock is set right, or when the other clock confirms the new time.

    Args:
        high, wall, monotonic: as for SystemClock.
    """

    _remedy = "correct it, or start with --clock-is-right when it is right"

    def __init__(
        self,
        high: datetime | None = None,
        *,
        wall: Callable[[], datetime] = _wall,
        monotonic: Callable[[], float] = _since_boot,
    ) -> None:
        super().__init__(high, wall=wall, monotonic=monotonic)
        self._begin()
        self._is_compared = False
        self._fault: str | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether `compare` must confirm this clock: since the start, a jump or a difference."""
        if not self._is_compared or self._fault is not None:
            return True
        return self.wall() - self._least - timedelta(seconds=self._monotonic()) > _SKEW

    def wall(self) -> datetime:
        """The machine's clock as it is, also while it is in doubt."""
        return self._wall()

    def compare(self, stored: datetime, *, since: datetime) -> None:
        """Hold this clock against another machine's.

        Args:
            stored: what the other clock said, not before `since` and not after now.
            since: `wall` before the other was asked.

        Raises:
            UnavailableError: NOT_READY, they differ by more than the allowed skew.
        """
        self._fault = _difference(stored, since, self.wall())
        if self._fault is not None:
            raise UnavailableError(Reason.NOT_READY, self._fault)
        self._is_compared = True
        self._begin()

    def heed(self, stored: datetime | None, *, since: datetime) -> None:
        """Hold this clock against the time that came with an acknowledgement.

        A clock that creeps ahead is seen nowhere else: what slews the wall clock slews the
        monotonic one as well. The time came through a gateway, so it can gainsay this clock
        and never confirm it. One that is behind signs nothing of the future.

        Args:
            stored: when the brokers stored what was given to them; None, nobody said.
            since: `wall` before it was given to them.
        """
        if stored is None:
            self._is_compared = False
        elif stored < since - _SKEW:
            self._fault = _difference(stored, since, since)

    def confirmed(self) -> datetime:
        """As `now`, for what is signed; raises NOT_READY also before the first `compare`."""
        now = self.now()
        if self.is_in_doubt:
            raise UnavailableError(
                Reason.NOT_READY, "no other clock has confirmed the system clock yet"
            )
        return now

    def _begin(self) -> None:
        """Measure from now on."""
        self._since_s = self._monotonic()
        self._least = self._wall() - timedelta(seconds=self._since_s)

    def now(self) -> datetime:
        """Aware UTC.

        Raises:
            DeniedError: CLOCK_WENT_BACK, as SystemClock does.
            UnavailableError: NOT_READY, the wall clock has jumped ahead, or was gainsaid.
        """
        if self._fault is not None:
            raise UnavailableError(Reason.NOT_READY, self._fault)
        passed_s, now = self._monotonic(), super().now()
        began = self._wall() - timedelta(seconds=passed_s)
        ahead = began - self._least
        if ahead > _SKEW:
            raise UnavailableError(
                Reason.NOT_READY,
                f"system clock went {ahead.total_seconds():.0f} s ahead of the time that has"
                " passed; set it right; if it is right, the brokers' clock will confirm it",
            )
        if ahead < timedelta(0) or passed_s - self._since_s >= _STEADY_S:
            self._least, self._since_s = began, passed_s
        return now


def _difference(stored: datetime, since: datetime, until: datetime) -> str | None:
    """What to say of another clock that showed `stored` between these; None when they agree."""
    if stored < since - _SKEW:
        off, side = since - stored, "ahead of"
    elif stored > until + _SKEW:
        off, side = stored - until, "behind"
    else:
        return None
    return (
        f"system clock is {off.total_seconds():.0f} s {side} the brokers' clock;"
        " set right the one that is wrong"
    )
