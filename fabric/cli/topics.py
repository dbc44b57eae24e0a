"""Read a topic to its end, or one record of it, for commands that look once.

A topic may take as long as it is; what has a deadline is each wait for its next records.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime

from fabric.kafka.single import record_at
from fabric.model.errors import Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.ports import Log, Record

_RECORDS_MAX = 1_000_000


async def records(
    log: Log, topic: str, partition: int = 0, *, since: int | None = None
) -> AsyncGenerator[Record, None]:
    """Every record that is in a partition now, from offset `since` on, one at a time.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, also when records that are there do not come.
        DeniedError: NOT_A_CONSUMER.
    """
    first, end = await _bounds(log, topic, partition)
    at = first if since is None else max(first, since)
    if at >= end:
        return
    async with aclosing(_batches(log, topic, partition, at)) as batches:
        async for batch in batches:
            for record in batch:
                yield record
                at = record.offset + 1
            if at >= end:
                return


async def _bounds(log: Log, topic: str, partition: int) -> tuple[int, int]:
    try:
        async with asyncio.timeout(REQUEST_S_MAX):
            return await log.bounds(topic, partition)
    except TimeoutError as exc:
        raise _silent(topic) from exc


async def _batches(
    log: Log, topic: str, partition: int, at: int
) -> AsyncGenerator[Sequence[Record], None]:
    """Batches from an offset on, none of them empty; each comes in time, or is an error."""
    found = aiter(log.read(topic, partition, at))
    try:
        while True:
            batch: Sequence[Record] = ()
            async with asyncio.timeout(REQUEST_S_MAX):
                while not batch:
                    batch = await anext(found)
            yield batch
    except TimeoutError as exc:
        raise _silent(topic) from exc
    finally:
        if isinstance(found, AsyncGenerator):
            await found.aclose()  # the reader's connection goes with it


def _silent(topic: str) -> UnavailableError:
    return UnavailableError(Reason.BROKER_UNAVAILABLE, f"{topic} was not read in time")


async def read_all(
    log: Log,
    topic: str,
    partition: int = 0,
    *,
    since: int | None = None,
    until: datetime | None = None,
) -> list[Record]:
    """As `records`, at once: for control topics, whose records are small.

    Args:
        until: stop at the first record that was stored later.

    Raises:
        UnavailableError: as `records`; OVERLOADED for more than this command looks at.
    """
    found: list[Record] = []
    async with aclosing(records(log, topic, partition, since=since)) as items:
        async for record in items:
            if until is not None and record.timestamp > until:
                break
            if len(found) >= _RECORDS_MAX:
                raise UnavailableError(Reason.OVERLOADED, f"{topic} holds too many records")
            found.append(record)
    return found


async def held_record(log: Log, topic: str, partition: int, offset: int) -> Record:
    """The record that somebody named by its offset.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, the log does not hold it, or does not give it.
        DeniedError: as ports.Log.read.
    """
    record = await record_at(log, topic, partition, offset)
    if record is None:
        raise UnavailableError(
            Reason.BROKER_UNAVAILABLE, f"the log does not hold {topic}:{partition}:{offset}"
        )
    return record
