"""Do work that computes: at once when it is short, else in a thread.

A thread's turn costs two hand-overs of the interpreter, up to 5 ms each while others compute.
What takes a millisecond or two is done sooner on the event loop, and delays nobody longer.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def aside(work: Callable[[], _T], *, is_short: bool) -> _T:
    """The result of `work`; whatever it raises is raised here.

    Args:
        is_short: it takes 2 ms at most and waits for nothing, no device either.
    """
    return work() if is_short else await asyncio.to_thread(work)
