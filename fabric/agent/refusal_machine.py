"""What a sender does about a block that was not acknowledged, by the Reason's class. Pure.

    wait    the same bytes again, with growing pauses, while the result they name lives
    hold    say so, and look again every few seconds: a policy or an approval may change
    reseal  a new epoch with the same changes and sequences, at most once per interval
    never   stop, loudly: an attack or a bug

Once the named result is over, the same bytes can never pass: then wait and hold
become reseal too. Where nothing was sealed yet (no result, no epoch), to seal anew is no
remedy: then reseal too is a wait, until what is missing comes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import assert_never

from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.limits import RESEAL_INTERVAL_S, RETRY_S_MAX, RETRY_S_MIN

HOLD_S = 3.0
_DOUBLINGS_MAX = 16


@unique
class Action(Enum):
    """What comes after the pause."""

    AGAIN = "again"
    """The same bytes."""
    RESEAL = "reseal"
    """The same changes, sealed anew in a new epoch."""
    STOP = "stop"
    """Nothing, until a person looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do after `pause_s` seconds; `loud` asks for an audit entry, once for a cause."""

    action: Action
    pause_s: float
    loud: bool


def pause_s(attempt: int) -> float:
    """Bounded back-off: doubles from RETRY_S_MIN to RETRY_S_MAX; `attempt` counts from 0."""
    return min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(attempt, _DOUBLINGS_MAX))


def plan(
    reason: Reason,
    *,
    attempt: int,
    result_lives: bool | None,
    epoch_opened: datetime | None,
    now: datetime,
) -> Plan:
    """Decide what follows a refusal.

    Args:
        attempt: refusals of these changes for this reason so far, from 0.
        result_lives: the result that the bytes name is current and not over; None: no
            bytes were made that name one.
        epoch_opened: when this topic's epoch was opened, to bound reseals.
    """
    kind = class_of(reason)
    match kind:
        case ReasonClass.NEVER:
            return Plan(action=Action.STOP, pause_s=0, loud=True)
        case ReasonClass.RESEAL if result_lives is None:
            pause = max(HOLD_S, pause_s(attempt))
            return Plan(action=Action.AGAIN, pause_s=pause, loud=attempt == 0)
        case ReasonClass.RESEAL:
            pause = _until_reseal(epoch_opened, now)
            return Plan(action=Action.RESEAL, pause_s=pause, loud=attempt == 0)
        case ReasonClass.WAIT | ReasonClass.HOLD:
            pause = pause_s(attempt) if kind is ReasonClass.WAIT else HOLD_S
            loud = kind is ReasonClass.HOLD and attempt == 0
            if result_lives is not False:
                return Plan(action=Action.AGAIN, pause_s=pause, loud=loud)
            pause = max(pause, _until_reseal(epoch_opened, now))
            return Plan(action=Action.RESEAL, pause_s=pause, loud=loud)
        case _:
            assert_never(kind)


def _until_reseal(epoch_opened: datetime | None, now: datetime) -> float:
    if epoch_opened is None:
        return 0.0
    free_at = epoch_opened + timedelta(seconds=RESEAL_INTERVAL_S)
    return max(0.0, (free_at - now).total_seconds())
