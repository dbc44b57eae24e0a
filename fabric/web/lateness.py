"""How late a process's event loop comes to what is due: it has too much to do when it is late."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 1.0


@contextmanager
def telling_lateness(late: Callable[[float], None], every_s: float = _EVERY_S) -> Iterator[None]:
    """Call `late` every second with the seconds that the call came late, while the block runs."""
    loop = asyncio.get_running_loop()
    due = loop.time() + every_s
    handle: asyncio.TimerHandle

    def look() -> None:
        nonlocal due, handle
        now = loop.time()
        late(now - due)
        due = now + every_s
        handle = loop.call_at(due, look)

    handle = loop.call_at(due, look)
    try:
        yield
    finally:
        handle.cancel()
