"""Keep an agent's policy fresh: look at the repository, take what is newer, say what is not.

Whatever a look finds, the last good policy stays in force until its own end.
"""

import asyncio
import contextlib
import logging

from fabric.agent.telemetry import Telemetry
from fabric.agent.view import WorldView
from fabric.model.errors import FabricError, UnavailableError
from fabric.ports import Clock
from fabric.repository.client import PolicyRepository

PART = "policy"
_HURRY_S = 1.0
"""Between two looks at least, whoever waits for a newer policy."""
_log = logging.getLogger(__name__)


class Policing:
    """One agent's looks at its policy repository.

    Args:
        policies: its `load` was called.
        view: takes newer policies over.
    """

    def __init__(
        self, policies: PolicyRepository, view: WorldView, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._policies = policies
        self._view = view
        self._telemetry = telemetry
        self._clock = clock

    async def run(self, refresh_s: float) -> None:
        """Look every `refresh_s` seconds, and at once when a newer policy is waited for, for ever.

        What others name need not be published: while looks find nothing, each pause before
        the next one is twice the last, up to `refresh_s`.
        """
        wanted, pause_s = self._view.policy_wanted, _HURRY_S
        while True:
            before, was_wanted = self._view.policy, wanted.is_set()
            wanted.clear()
            await self.look()
            is_vain = was_wanted and self._view.policy is before
            pause_s = min(pause_s * 2 if is_vain else _HURRY_S, refresh_s)
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(refresh_s - pause_s):
                    await wanted.wait()

    async def look(self) -> None:
        """Look once; what is wrong is shown, counted and audited."""
        try:
            await self._take()
            stands, fault = self._view.policy, self._policies.fault
            self._telemetry.policy_stands(stands, self._clock.now(), fault)
        except FabricError as exc:
            self._telemetry.policy_refused(exc, self._view.policy)

    async def _take(self) -> None:
        try:
            await asyncio.to_thread(self._policies.refresh)
        except UnavailableError as exc:  # the policy in force holds until it ends
            if self._policies.fault is None:  # else the part shows it, and is logged
                _log.warning("policy: %s", exc)
        # What the view refused is offered again at each look: it must not seem well meanwhile.
        policy = self._policies.policy
        if policy is self._view.policy:
            return
        self._view.take_policy(policy)
        if policy is self._view.policy:  # else the view is outdated: the next one begins with it
            self._telemetry.approved(policy, self._view.me)
