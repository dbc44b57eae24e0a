"""Follow a control topic from its start, for ever, whatever happens on the way."""

import asyncio
from collections.abc import Callable

from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RETRY_S_MIN
from fabric.ports import Log, Record

_RETRY_S_MAX = 2.0  # a view must not lag long behind a topic that is back
_AGAIN = frozenset({Reason.NOT_A_CONSUMER, Reason.HISTORY_LOST})


_BREATH = 32  # records between two looks at other tasks: feeding verifies signatures


async def follow(
    log: Log,
    topic: str,
    feed: Callable[[Record], None],
    caught_up: asyncio.Event,
) -> None:
    """Give every record of `topic` (partition 0) to `feed`, in order; never returns.

    Args:
        feed: handles bad records itself; what it raises ends the following.
        caught_up: set once everything that was in the log at the (re)start was fed,
            cleared while the log cannot be read.

    A missing right to read is waited for too: a host's ACL follows its attestation.
    """
    caught_up.clear()
    offset = 0
    delay = RETRY_S_MIN
    while True:
        try:
            first, end = await log.bounds(topic, 0)
            offset = max(offset, first) if offset <= end else first
            if offset >= end:
                caught_up.set()
            async for records in log.read(topic, 0, offset):
                for count, record in enumerate(records, 1):
                    feed(record)
                    offset = record.offset + 1
                    if count % _BREATH == 0:
                        await asyncio.sleep(0)
                if offset >= end:
                    caught_up.set()
                delay = RETRY_S_MIN
        except (UnavailableError, DeniedError) as exc:
            if isinstance(exc, DeniedError) and exc.reason not in _AGAIN:
                raise
        caught_up.clear()
        await asyncio.sleep(delay)
        delay = min(delay * 2, _RETRY_S_MAX)
