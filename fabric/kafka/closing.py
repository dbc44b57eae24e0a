"""Close clients of aiokafka without losing a cancellation.

Several of its close methods await their own tasks and swallow CancelledError, also
one that was meant for the caller. A swallowed one would let a reader live on that its
TaskGroup is waiting for, for ever.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError


async def close_within(seconds: float, *steps: Callable[[], Awaitable[object]]) -> bool:
    """Run closing steps in order; whether all ended in time. Their failures do not matter.

    Raises:
        CancelledError: the caller was cancelled meanwhile, even if a step swallowed it.
    """
    mine = asyncio.current_task()
    assert mine is not None
    before = mine.cancelling()
    done = False
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(seconds):
            for step in steps:
                await step()
            done = True
    if mine.cancelling() > before:
        raise asyncio.CancelledError
    return done
