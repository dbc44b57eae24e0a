"""Ask the authority over HTTPS for the notices that the broker does not show."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from fabric.agent.tick_machine import TickMachine
from fabric.agent.view import WorldView
from fabric.attest.catchup import Catchup
from fabric.model.errors import FabricError, Reason
from fabric.model.limits import TICK_ASK_S
from fabric.model.names import MEMBERS
from fabric.ports import Clock

PART = "ticks"
_LOOK_S = 0.25
_ASK_S_MAX = TICK_ASK_S
"""Deadline of one question, seconds: whoever does not answer by then is asked again."""


class Authority(Protocol):
    """What of fabric.web.authority.AuthorityClient is needed here."""

    async def notices(self, after: int) -> Catchup:
        """The notices above number `after`, and a tick."""


class Ticking:
    """The part of an agent that keeps its view of the members from being held back.

    Args:
        show: hears why the view is not whole, or None when it is.
    """

    def __init__(
        self,
        view: WorldView,
        authority: Authority,
        clock: Clock,
        *,
        show: Callable[[Reason | None, str], None],
    ) -> None:
        self._view = view
        self._authority = authority
        self._clock = clock
        self._show = show
        self._machine = TickMachine()

    async def run(self) -> None:
        """Look and ask, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask once, if it is due, and show how it stands."""
        members = self._view.members
        now = self._clock.now()
        if self._machine.is_due(members.whole_at, is_behind=members.is_behind, now=now):
            is_answered = await self._ask(members.revocation_number)
            self._machine.asked(self._clock.now(), is_answered=is_answered)
        now = self._clock.now()
        is_due = TickMachine().is_due(members.whole_at, is_behind=members.is_behind, now=now)
        if is_due and members.from_future is not None:
            ahead_s = (members.from_future - now).total_seconds()
            said = f"the authority's tick is {ahead_s:.0f} s ahead of this machine's clock"
            self._show(Reason.CLOCK_WENT_BACK, said)
        else:
            self._show(Reason.MEMBERS_STALE if is_due else None, "revocations may be held back")

    async def _ask(self, after: int) -> bool:
        try:
            async with asyncio.timeout(_ASK_S_MAX):
                answer = await self._authority.notices(after)
        except (FabricError, TimeoutError):
            return False
        for key, value in answer.records:
            self._view.take(MEMBERS, key, value)
        return True
