"""A minute of a view's bell in no time: waits for changes end at once and move the clock."""

import asyncio

from tests.fakes.platform import TestHost

_TURNS_MAX = 1_000


class MinuteIsOver(Exception):
    """So many seconds were waited, or so often for nothing."""


class Minute:
    """Takes over a host's waits for changes until they have taken a minute together.

    Attributes:
        turns: waits so far.
    """

    def __init__(self, host: TestHost) -> None:
        self.turns = 0
        self._left_s = 60.0
        host.host.view.changed.wait = self._wait  # type: ignore[method-assign]  # no test sleeps

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.turns += 1
        self._left_s -= seconds
        if self._left_s <= 0 or self.turns >= _TURNS_MAX:
            raise MinuteIsOver
