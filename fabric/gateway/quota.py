"""Limits per identity: connections, unanswered requests and their bytes.

Too many connections are refused; too many requests are not read, so that the
client's own socket holds them back and nobody else's.
"""

import asyncio
from collections.abc import Callable

from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import (
    BYTES_PER_IDENTITY_MAX,
    CONNECTIONS_PER_IDENTITY_MAX,
    REQUESTS_PER_IDENTITY_MAX,
)

_SHORT_S = 0.02
"""Work that nobody notices; most requests take a tenth of it."""


class Quota:
    """What one identity uses now."""

    def __init__(self) -> None:
        self.connections = 0
        self._requests = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost when this identity is forgotten."""
        return not self.connections and asyncio.get_running_loop().time() >= self._free_at

    async def turn(self, work: Callable[[], None], *, free_s: float = _SHORT_S) -> None:
        """Do what takes the processor, when none of the identity's other connections does.

        Long work is followed by a rest as long, so that one identity, however many
        connections it has, leaves half of the processor to the others.

        Args:
            free_s: work that takes no longer is followed by no rest, seconds.
        """
        clock = asyncio.get_running_loop().time
        async with self._turn:
            if (rest := self._free_at - clock()) > 0:
                await asyncio.sleep(rest)
            began = clock()
            try:
                work()
            finally:
                took = clock() - began
                if took > free_s:
                    self._free_at = began + 2 * took

    async def take(self, size: int) -> None:
        """Wait for room for one request of `size` bytes and take it."""
        while (
            self._requests >= REQUESTS_PER_IDENTITY_MAX
            or self._bytes + size > BYTES_PER_IDENTITY_MAX
        ):
            self._room.clear()
            await self._room.wait()
        self._requests += 1
        self._bytes += size

    def give(self, size: int) -> None:
        """Give a request's room back."""
        self._requests -= 1
        self._bytes -= size
        self._room.set()


class Quotas:
    """The quotas of all identities that are connected."""

    def __init__(self) -> None:
        self._by_name: dict[str, Quota] = {}

    def enter(self, name: str) -> Quota:
        """One more connection; raises DeniedError OVERLOADED."""
        for other in [known for known, quota in self._by_name.items() if quota.is_idle]:
            del self._by_name[other]
        quota = self._by_name.setdefault(name, Quota())
        if quota.connections >= CONNECTIONS_PER_IDENTITY_MAX:
            raise DeniedError(Reason.OVERLOADED, "identity has too many connections")
        quota.connections += 1
        return quota

    def leave(self, name: str) -> None:
        """One connection less; a rest that is due is not shortened by leaving."""
        quota = self._by_name[name]
        quota.connections -= 1
        if quota.is_idle:
            del self._by_name[name]
