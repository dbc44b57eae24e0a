"""Before a capture goes on: is what it was told to be stored still in the log?

A broker that was restored from a backup, or cut, has forgotten blocks that it had
acknowledged. To go on would leave a hole that every reader stops at, so the source
is read anew instead: a new generation, as after a lost state file.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

from fabric.agent.host import LogWithIdentity
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.model.names import Stream
from fabric.ports import Record
from fabric.seal import envelope as form
from fabric.store.state import StreamHead


def log_name(identity: tuple[str, str]) -> str:
    """Which log an offset belongs to: cluster and topic id in one text."""
    return "/".join(identity)


async def lost(log: LogWithIdentity, heads: Mapping[Stream, StreamHead]) -> list[Stream]:
    """Streams whose last acknowledged envelope the log does not hold any more.

    What the topic's retention removed is not lost, and what this host may not read is
    not asked for.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE.
    """
    return [stream for stream, head in heads.items() if await _is_lost(log, head)]


async def _is_lost(log: LogWithIdentity, item: StreamHead) -> bool:
    if item.head is None or not item.log:
        return False
    topic, partition = str(item.stream.topic), item.stream.partition
    if log_name(await log.identity(topic)) != item.log:
        return True
    first, end = await log.bounds(topic, partition)
    if item.offset < first:
        return False
    if item.offset >= end:
        return True
    try:
        record = await _record(log, topic, partition, item.offset)
    except DeniedError:
        return False
    return record is None or _hash(record) != item.head.hash


async def _record(log: LogWithIdentity, topic: str, partition: int, offset: int) -> Record | None:
    batches = aiter(log.read(topic, partition, offset))
    assert isinstance(batches, AsyncGenerator)
    async with contextlib.aclosing(batches):
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                batch = await anext(batches)
        except TimeoutError as exc:
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, "log does not answer") from exc
    return next((record for record in batch if record.offset == offset), None)


def _hash(record: Record) -> bytes:
    try:
        return form.parse(record.value or b"").hash
    except PeerError:
        return b""
