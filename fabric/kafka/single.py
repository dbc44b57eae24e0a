"""Look at one record of a log, by its offset."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from fabric.model.errors import Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.ports import Log, Record


async def record_at(log: Log, topic: str, partition: int, offset: int) -> Record | None:
    """The record at an offset, or None where the log holds only later ones.

    Args:
        offset: below the log's end, else nothing comes until somebody writes.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, also when nothing comes in time.
        DeniedError: as ports.Log.read.
    """
    batches = aiter(log.read(topic, partition, offset))
    assert isinstance(batches, AsyncGenerator)
    async with contextlib.aclosing(batches):
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                batch: Sequence[Record] = ()
                while not batch:  # an empty one says that nothing came for a while, no more
                    batch = await anext(batches)
        except TimeoutError as exc:
            said = f"{topic} was not read in time"
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, said) from exc
    return next((record for record in batch if record.offset == offset), None)
