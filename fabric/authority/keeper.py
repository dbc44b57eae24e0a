"""Keep topics and rights on the broker as policy and ledger demand, whatever happens to it.

One lock orders every change of rights, and what is wanted is read from the ledger
inside it: whichever of a renewal and a revocation comes first, the ledger's last
word is what stands on the broker at the end.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fabric.authority import topics
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.ledger_rows import HostEntry
from fabric.kafka.admin import TopicSpec
from fabric.model.errors import FabricError, UsageError
from fabric.model.limits import RETRY_S_MAX, RETRY_S_MIN
from fabric.model.names import AUTHORITY, MEMBERS, RESULTS, HostId
from fabric.policy.types import Policy

_log = logging.getLogger(__name__)
_GATEWAY = "gateway"
_CHECK_S = 60.0
"""Rights and topics are held against the broker at least so often."""
_FOLLOW_S_MAX = 5.0
"""What a request waits for rights; then it goes on and they are tried again."""


class Admin(Protocol):
    """What of fabric.kafka.admin.KafkaAdmin is needed here."""

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make topics what they must be."""

    async def grant_read(self, principal: str, topics: Iterable[str]) -> None:
        """Add rights."""

    async def revoke_read(self, principal: str, topics: Iterable[str] | None = None) -> None:
        """Remove rights."""

    async def readers(self) -> Mapping[str, frozenset[str]]:
        """Rights that stand."""

    async def allow_platform(self, gateway: str, readers: Mapping[str, Sequence[str]]) -> None:
        """Rights of the platform's parts."""

    async def remove_writers(self, topics: Iterable[str], *, but: str) -> Sequence[str]:
        """Remove foreign writers."""


class Keeper:
    """Makes the broker agree.

    Args:
        policy: the policy in force.
        now: aware UTC.
    """

    def __init__(
        self,
        admin: Admin,
        ledger: LedgerThread,
        policy: Callable[[], Policy],
        *,
        now: Callable[[], datetime],
        replication_factor: int,
    ) -> None:
        self._admin = admin
        self._ledger = ledger
        self._policy = policy
        self._now = now
        self._replication_factor = replication_factor
        self._lock = asyncio.Lock()
        self._rights: dict[str, frozenset[str]] = {}
        self._ours: frozenset[str] = frozenset()
        self._due = asyncio.Event()
        self._failure: str | None = "topics and rights are not checked yet"
        self.is_made = asyncio.Event()
        """Set once every topic exists and the platform's rights stand."""

    @property
    def why_not_ready(self) -> str | None:
        """Why topics or rights may differ from the policy, or None."""
        return self._failure

    def check_soon(self) -> None:
        """Hold everything against the broker again: the policy changed, or a step failed."""
        self._due.set()

    async def run(self) -> None:
        """Check at once, then whenever it is due; UsageError ends it before the first success.

        Later one broker of several may answer so in the middle of a rolling change, and an
        authority that is down stops every host within a result's life.
        """
        delay = RETRY_S_MIN
        while True:
            self._due.clear()
            try:
                await self.check()
                self._failure, delay = None, RETRY_S_MIN
                self.is_made.set()
            except FabricError as exc:
                if isinstance(exc, UsageError) and not self.is_made.is_set():
                    raise
                self._failure = str(exc)
                _log.warning("topics and rights wait: %s", exc)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_S_MAX)
                continue
            try:
                async with asyncio.timeout(_CHECK_S):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def check(self) -> None:
        """Make topics and every right what they must be; raises as KafkaAdmin does."""
        policy = self._policy()
        wanted = topics.specs(policy, self._replication_factor)
        await self._admin.ensure_topics(wanted)
        names = [spec.name for spec in wanted]
        await self._admin.allow_platform(_GATEWAY, {AUTHORITY: [MEMBERS, RESULTS]})
        for right in await self._admin.remove_writers(names, but=_GATEWAY):
            _log.error("%s lets another than the gateway write; remove that right", right)
        async with self._lock:
            self._ours = frozenset(names)
            self._rights = dict(await self._admin.readers())
            entries = {e.state.host: e for e in await self._ledger.do(Ledger.hosts)}
            known = {host for name in self._rights if (host := topics.host_of(name)) is not None}
            for host in sorted(known | entries.keys()):
                self._rights.setdefault(host.principal, frozenset())
                await self._set(host, entries.get(host))

    async def follow(self, host: HostId) -> None:
        """Make one host's rights what the ledger says now; a failure is tried again soon."""
        try:
            async with asyncio.timeout(_FOLLOW_S_MAX), self._lock:
                await self._set(host, await self._ledger.do(lambda ledger: ledger.host(host)))
        except (FabricError, TimeoutError) as exc:
            _log.error("rights of %s could not be set: %s", host, exc or "no answer in time")
            self.check_soon()

    async def _set(self, host: HostId, entry: HostEntry | None) -> None:
        policy, now, principal = self._policy(), self._now(), host.principal
        if now >= policy.expires and topics.is_attested(entry):
            return  # an overdue policy is a person's delay and decides nothing new
        wanted = topics.rights(policy, entry, now)
        # Missing means unknown: while a step is under way, or after it has failed.
        have = self._rights.pop(principal, None)
        if wanted:
            lost = (have or frozenset()) & self._ours - wanted
            if lost:
                await self._admin.revoke_read(principal, lost)
            if wanted - (have or frozenset()):
                await self._admin.grant_read(principal, wanted - (have or frozenset()))
        elif have != frozenset():
            await self._admin.revoke_read(principal)
        self._rights[principal] = wanted
