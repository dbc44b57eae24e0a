"""How long an agent may act on its view of the members, and when it asks for more. Pure.

The authority's tick comes each second with the members topic. The newest tick whose
every notice is in the view says how old the view is:

    older than TICK_ASK_S, or a notice known to be missing    ask the authority over HTTPS
    older than TICK_GRANTS_S_MAX                               no new grants, no new epochs
    older than the level's result lifetime                     publish and apply nothing

What counts is the tick's own signed time, not when it came: a broker that plays an
old log at its old pace has old ticks. Spec: design sections 3 and 6.
"""

from datetime import datetime, timedelta

from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import RESULT_WAIT_S, TICK_ASK_S, TICK_GRANTS_S_MAX

_ASK_S_MIN = 0.5
_ASK_S_MAX = 8.0
_DOUBLINGS_MAX = 8


class TickMachine:
    """Says when to ask the authority."""

    def __init__(self) -> None:
        self._failures = 0
        self._free_at: datetime | None = None

    def is_due(self, whole_at: datetime | None, *, is_behind: bool, now: datetime) -> bool:
        """Whether to ask now.

        Args:
            whole_at: time of the newest tick that the view is whole for.
            is_behind: a tick, or a later notice, names what the view lacks.
        """
        if self._free_at is not None and now < self._free_at <= now + _span(_ASK_S_MAX):
            return False
        return is_behind or whole_at is None or now - whole_at > _span(TICK_ASK_S)

    def asked(self, now: datetime, *, is_answered: bool) -> None:
        """Take note of a question: no answer makes the next one come later."""
        self._failures = 0 if is_answered else min(self._failures + 1, _DOUBLINGS_MAX)
        pause_s = min(_ASK_S_MAX, _ASK_S_MIN * 2.0**self._failures)
        self._free_at = now + _span(pause_s)


def check_grants(whole_at: datetime | None, now: datetime, lifetime_s: float) -> None:
    """Raise DeniedError MEMBERS_STALE unless the view is fresh enough to give out keys by."""
    _check(whole_at, now, min(TICK_GRANTS_S_MAX, lifetime_s), "no new keys are given out")


def check_rows(whole_at: datetime | None, now: datetime, lifetime_s: float) -> None:
    """Raise DeniedError MEMBERS_STALE unless the view is fresh enough to move rows by.

    Args:
        lifetime_s: of results at the dataset's level.
    """
    _check(whole_at, now, lifetime_s, "rows wait")


def is_hopeless(appended: datetime, now: datetime, *, whole_at: datetime | None) -> bool:
    """Whether a record that names a result which nobody has heard of is refused for good.

    A result is published before its host can name it. So when a fresh view that was read
    to its end does not know it, some seconds after the record was stored, it does not
    exist; without this bound one forged record would hold a partition for ever.

    Args:
        appended: when the log says that the record was stored.
        whole_at: time of the newest tick that the view is whole for; None when the
            control topics cannot be read to their end now.
    """
    if whole_at is None or now - whole_at > _span(TICK_ASK_S):
        return False
    return now - appended >= _span(RESULT_WAIT_S)


def _check(whole_at: datetime | None, now: datetime, seconds: float, effect: str) -> None:
    if whole_at is None:
        raise DeniedError(Reason.MEMBERS_STALE, f"no tick of the authority has come yet; {effect}")
    if now - whole_at > _span(seconds):
        raise DeniedError(
            Reason.MEMBERS_STALE,
            f"no whole list of revocations for more than {seconds:g} s, neither by the broker nor"
            f" from the authority; {effect}",
        )


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
