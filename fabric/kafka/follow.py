"""Follow a control topic from its start, for ever, whatever happens on the way."""

import asyncio
import logging
from collections.abc import Callable

from fabric.kafka.single import record_at
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RETRY_S_MIN
from fabric.ports import Log, Record

_logger = logging.getLogger(__name__)
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

    A missing right to read is waited for too: a host's ACL follows its attestation. After a
    break the last record must still lie where it did, else everything is fed again: a log
    that was put back to an older copy may have grown past our place by then.
    """
    caught_up.clear()
    last: Record | None = None
    delay = RETRY_S_MIN
    while True:
        try:
            first, end = await log.bounds(topic, 0)
            if last is not None and not await _is_there(log, last, first, end):
                _logger.warning("%s no longer holds what was read last: read from its start", topic)
                last = None
            offset = first if last is None else last.offset + 1
            if offset >= end:
                caught_up.set()
            async for records in log.read(topic, 0, offset):
                for count, last in enumerate(records, 1):
                    feed(last)
                    if count % _BREATH == 0:
                        await asyncio.sleep(0)
                if last is not None and last.offset + 1 >= end:
                    caught_up.set()
                delay = RETRY_S_MIN
        except (UnavailableError, DeniedError) as exc:
            if isinstance(exc, DeniedError) and exc.reason not in _AGAIN:
                raise
        caught_up.clear()
        await asyncio.sleep(delay)
        delay = min(delay * 2, _RETRY_S_MAX)


async def _is_there(log: Log, last: Record, first: int, end: int) -> bool:
    if not first <= last.offset < end:
        return False
    return await record_at(log, last.topic, last.partition, last.offset) == last
