"""How often epochs may begin that only their own sender asks for: starts and reseals.

Everybody keeps an epoch, and is granted it again, for as long as the data. A capture that
fails and begins again, or a refusal that lasts, would open one every few seconds for ever.
So those that come after many in one hour wait longer and longer. Epochs that others
bring about (a recipient lost or joined, age, count) are rare by themselves, and wait for
nothing here: a lost recipient must read no further block.

A start that the gateway refuses begins no epoch, but its sender keeps it. While it would say
the same of its sender again, the next one waits as long as a reseal.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from fabric.agent.epoch_machine import Why
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RESEAL_INTERVAL_S
from fabric.model.names import Topic
from fabric.store.state import StateFile

_PACED = frozenset({Why.START, Why.RESEAL})
_FREE = 20
"""So many in an hour wait for nothing."""
_HOUR = timedelta(hours=1)
_PAUSE_S_MIN = 10.0
_PAUSE_S_MAX = 300.0
_KEPT_MAX = 32
"""Beyond _FREE and a few doublings more of them say the same."""


def pause_s(count: int) -> float:
    """How long after the last of `count` epochs in an hour the next one may begin, seconds."""
    over = count - _FREE
    return 0.0 if over < 0 else min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2.0 ** min(over, _KEPT_MAX))


def free_at(began: Sequence[datetime], now: datetime) -> datetime:
    """When the next one may begin.

    Args:
        began: acknowledged starts and reseals, oldest first, none after `now`.
    """
    recent = [at for at in began if now - at < _HOUR]
    return recent[-1] + timedelta(seconds=pause_s(len(recent))) if recent else now


class Pace:
    """The pace of one topic; the state file keeps it, so that it outlives a process that fails.

    Making it, and `began`, block on the state file: run them in a thread.
    """

    def __init__(self, state: StateFile, topic: Topic) -> None:
        self._state = state
        self._name = f"pace:{topic}"
        self._began = _decoded(state.get(self._name))
        self._refused: tuple[object, datetime, DeniedError] | None = None

    def refused(self, said: object, now: datetime, error: DeniedError) -> None:
        """A start was refused; TOO_OLD is passed over: that one is made anew at once.

        Args:
            said: what it said of its sender that a refusal may be about.
        """
        if error.reason is not Reason.TOO_OLD:
            self._refused = (said, now, error)

    def check_refused(self, said: object, now: datetime) -> None:
        """Raise the refusal again that a start which says the same met a moment ago."""
        if self._refused is None:
            return
        before, at, error = self._refused
        if before == said and at <= now < at + timedelta(seconds=RESEAL_INTERVAL_S):
            raise DeniedError(error.reason, str(error.args[0]))

    def check(self, why: Why, now: datetime, cause: str) -> None:
        """Raise UnavailableError OVERLOADED while an epoch for `why` has to wait.

        Args:
            cause: why blocks are refused, for people.
        """
        if why not in _PACED:
            return
        self._hold_to(now)
        at = free_at(self._began, now)
        if at > now:
            what = f"blocks are refused ({cause})" if why is Why.RESEAL else "the capture starts"
            raise UnavailableError(
                Reason.OVERLOADED, f"{what} too often: no new epoch before {at:%X}"
            )

    def began(self, why: Why, now: datetime) -> None:
        """An epoch's start was acknowledged."""
        if why not in _PACED:
            return
        self._hold_to(now)
        self._began = [*self._began, now][-_KEPT_MAX:]
        self._state.put(self._name, _encoded(self._began))

    def _hold_to(self, now: datetime) -> None:
        """A moment after `now` comes from a clock that was set right."""
        self._began = [min(at, now) for at in self._began]


def _encoded(times: Sequence[datetime]) -> bytes:
    return " ".join(str(int(at.timestamp())) for at in times).encode()


def _decoded(value: bytes | None) -> list[datetime]:
    return [datetime.fromtimestamp(int(at), UTC) for at in (value or b"").split()]
