"""The first policy of a process: its server may start a moment later than we do."""

import asyncio
import logging

from fabric.model.errors import UnavailableError
from fabric.model.limits import POLICY_FIRST_S_MAX, RETRY_S_MIN
from fabric.policy.types import Policy
from fabric.repository.client import PolicyRepository

_PAUSE_S_MAX = 1.0
"""Between two tries: a process has POLICY_FIRST_S_MAX in all, and its server comes up in a few."""
_log = logging.getLogger(__name__)


async def first_policy(
    repository: PolicyRepository, *, wait_s: float = POLICY_FIRST_S_MAX
) -> Policy:
    """Load the policy; while nobody answers and there is no good copy, ask again.

    Raises:
        UnavailableError: nobody answered within `wait_s`.
        FabricError: as PolicyRepository.load; a repository that is wrong is not asked again.
    """
    loop = asyncio.get_running_loop()
    deadline, delay = loop.time() + wait_s, RETRY_S_MIN
    while True:
        try:
            return await asyncio.to_thread(repository.load)
        except UnavailableError as exc:
            if loop.time() + delay > deadline:
                raise
            _log.warning("policy: %s; asking again", exc)
        await asyncio.sleep(delay)
        delay = min(delay * 2, _PAUSE_S_MAX)
