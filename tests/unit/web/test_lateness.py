"""An event loop that is held up shows."""

import asyncio
import time

from fabric.web.lateness import telling_lateness
from tests.fakes.running import until


async def test_a_loop_that_is_held_up_is_told_as_late_and_one_that_turns_is_not() -> None:
    found: list[float] = []
    with telling_lateness(found.append, 0.01):
        await until(lambda: len(found) >= 3)
        assert min(found) < 0.1
        found.clear()
        time.sleep(0.3)  # noqa: ASYNC251  # what it is to see
        await until(lambda: bool(found))
        assert found[0] > 0.2
    count = len(found)
    await asyncio.sleep(0.05)
    assert len(found) == count
