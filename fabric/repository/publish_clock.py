"""Hold the publisher's clock against the times that stand in the repository.

Whoever publishes may have no network: what was signed before is the only second clock. It
tells a clock that is behind surely, and one that is ahead only when nobody can have come so
late; then a person must say that the clock is right.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, Timestamp

from fabric.model.errors import Reason, UsageError
from fabric.model.limits import CLOCK_SKEW_S_MAX, TIMESTAMP_VALID_S_MAX
from fabric.policy import roles
from fabric.repository.published import Published
from fabric.repository.roster import Roster

_PAUSE = timedelta(seconds=TIMESTAMP_VALID_S_MAX)
_REMEDY = (
    "compare it with another clock and correct it, or publish with --clock-is-right when it is"
    " right"
)


def check_not_behind(before: Published, now: datetime) -> None:
    """No policy is signed that ends too soon, or that readers take for an older one.

    A timestamp's version is the time at which it was signed, after all else that it names.

    Args:
        before: what stands in the repository.
        now: aware UTC, by the publisher's clock.

    Raises:
        UsageError: CLOCK_WENT_BACK, `now` lies more than the allowed skew before that.
    """
    last = before.signed(roles.TIMESTAMP, Timestamp)
    behind_s = last.version - int(now.timestamp()) if last is not None else 0
    if behind_s > CLOCK_SKEW_S_MAX:
        raise UsageError(
            Reason.CLOCK_WENT_BACK,
            f"system clock is {behind_s} s behind the repository's timestamp; {_REMEDY}",
        )


def check_not_ahead(
    before: Published, chosen: Mapping[str, Metadata[Any]], roster: Roster, now: datetime
) -> None:
    """No policy is signed that holds for too long.

    Whoever comes after a pause brings signatures that persons made on machines of their own,
    so it is the later of them and of the timestamp's end that `now` is held against. Signed
    times of persons follow from the ends that they signed: one who brings only old ones, or
    none, is asked for a word.

    Args:
        before: what stands in the repository.
        chosen: what will be published, by role, signed by enough.
        now: aware UTC, by the publisher's clock.

    Raises:
        UsageError: FROM_THE_FUTURE, `now` lies later than that by more than the longest life
            of a timestamp.
    """
    last = before.signed(roles.TIMESTAMP, Timestamp)
    seen = [item.signed.expires - roster.valid(name) for name, item in chosen.items()]
    seen += [last.expires] if last is not None else []
    ahead = now - max(seen, default=now)
    if ahead > _PAUSE:
        raise UsageError(
            Reason.FROM_THE_FUTURE,
            f"system clock is {ahead.days} days ahead of the last signature and of the"
            f" timestamp's end; {_REMEDY}",
        )
