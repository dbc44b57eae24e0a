"""Close clients of aiokafka without losing a cancellation.

Several of its close methods await their own tasks and swallow CancelledError, also
one that was meant for the caller. A swallowed one would let a reader live on that its
TaskGroup is waiting for, for ever. Others let the CancelledError of their own task out
(the fetcher's close, while a broker is away): a caller that took it for its own would
end in silence.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError


async def close_within(seconds: float, *steps: Callable[[], Awaitable[object]]) -> bool:
    """Run closing steps in order; whether all ended well and in time.

    A step that fails does not keep the later ones from running.

    Raises:
        CancelledError: the caller was cancelled meanwhile, even if a step swallowed it.
    """
    mine = asyncio.current_task()
    assert mine is not None
    before = mine.cancelling()
    done = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            results = [await _ends_well(step, mine, before) for step in steps]
            done = all(results)
    if mine.cancelling() > before:
        raise asyncio.CancelledError
    return done


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
