"""Close clients of aiokafka without losing a cancellation.

Several of its close methods await their own tasks and swallow CancelledError, also
one that was meant for the caller. A swallowed one would let a reader live on that its
TaskGroup is waiting for, for ever. Others let the CancelledError of their own task out
(the fetcher's close, while a broker is away): a caller that took it for its own would
end in silence. And to end a TLS connection in good order takes the other side, which may be
busy: there is nothing left to say by then, so it is not waited for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka.errors import KafkaError

_PATIENCE_S = 0.2


async def close_within(
    seconds: float, *steps: Callable[[], Awaitable[object]], client: Any = None
) -> bool:
    """Run closing steps in order; whether all ended well and in time.

    A step that fails does not keep the later ones from running.

    Args:
        client: the library's client; connections of it that are still open after a moment
            are ended without the other side.

    Raises:
        CancelledError: the caller was cancelled meanwhile, even if a step swallowed it.
    """
    mine = asyncio.current_task()
    assert mine is not None
    before = mine.cancelling()
    done = False
    open_now = _transports(client)
    impatient = asyncio.get_running_loop().call_later(_PATIENCE_S, _abort, open_now)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                results = [await _ends_well(step, mine, before) for step in steps]
                done = all(results)
    finally:
        impatient.cancel()
    if mine.cancelling() > before:
        raise asyncio.CancelledError
    return done


def _transports(client: Any) -> Sequence[asyncio.WriteTransport]:
    """Of the open connections; the library forgets them as it closes."""
    if client is None:
        return ()
    return [conn._writer.transport for conn in client._conns.values() if conn._writer is not None]


def _abort(transports: Sequence[asyncio.WriteTransport]) -> None:
    for transport in transports:
        transport.abort()


async def _ends_well(
    step: Callable[[], Awaitable[object]], mine: "asyncio.Task[object]", before: int
) -> bool:
    try:
        await step()
    except asyncio.CancelledError:
        if mine.cancelling() > before:
            raise
        return False  # one of the library's own tasks was cancelled, not we
    except (TimeoutError, KafkaError, OSError):
        return False
    return True
