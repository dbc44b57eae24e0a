"""What the gateway judges by, kept fresh: the signed policy and the control topics.

Until both control topics were read to their end the judge is not caught up and
lets nothing pass but the authority's own records. New trust anchors mean a new
view, fed from the log's start.

Signed times hold no clock up here: a clock behind them makes the view stale, and the
authority's records pass whatever it says.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from fabric.admit.view import View
from fabric.attest.members import Members
from fabric.gateway.judge import Judge
from fabric.kafka.follow import follow
from fabric.metrics import GatewayMetrics
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.names import MEMBERS, RESULTS
from fabric.ports import Clock, Log, Record
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository

_log = logging.getLogger(__name__)
_AGAIN_S = 2.0
_HURRY_S = 0.5


class Keeper:
    """Keeps the judge's view.

    Args:
        policies: its `load` was called.
        refresh_s: how often to look for a new policy, seconds.
        audit: told which policy is taken and which is not.
        latest: the latest time that a heartbeat may bear now, by this host's own clock.
    """

    def __init__(
        self,
        judge: Judge,
        policies: PolicyRepository,
        log: Log,
        *,
        metrics: GatewayMetrics,
        audit: PolicyAudit,
        refresh_s: float,
        latest: Callable[[], datetime],
    ) -> None:
        self._judge = judge
        self._policies = policies
        self._log = log
        self._metrics = metrics
        self._audit = audit
        self._refresh_s = refresh_s
        self._latest = latest
        self._hurried = asyncio.Event()
        self._said: str | None = None
        self._members_read = asyncio.Event()
        self._results_read = asyncio.Event()
        judge.is_caught_up = self.is_caught_up

    def is_caught_up(self) -> bool:
        """Whether both control topics were read to their end and can still be read."""
        return self._members_read.is_set() and self._results_read.is_set()

    def readiness(self, clock: Clock, interval_s: float) -> Mapping[str, str | None]:
        """Each part with the reason why it is not ready."""
        view = self._judge.view
        if view is None:
            return {"policy": Reason.NOT_READY, "members": Reason.NOT_READY}
        members: str | None = None if self.is_caught_up() else Reason.NOT_READY
        fault = self._policies.fault
        policy: str | None = None if fault is None else str(fault)
        try:
            now = clock.now()
            if now >= view.policy.expires:
                policy = Reason.POLICY_EXPIRED
            if members is None:
                view.members.check_fresh(now, interval_s)
        except DeniedError as exc:
            members = exc.reason
        return {"policy": policy, "members": members}

    async def run(self) -> None:
        """Follow topics and policy, for ever."""
        while True:
            policy = self._policies.policy
            members = Members(policy.trust)
            self._use(View(policy, members))
            async with asyncio.TaskGroup() as group:
                following = (
                    group.create_task(self._follow(MEMBERS, members, self._members_read)),
                    group.create_task(self._follow(RESULTS, members, self._results_read)),
                )
                await self._refresh(members)
                for task in following:
                    task.cancel()
            _log.info("trust anchors have changed: the control topics are read again")
            self._members_read.clear()
            self._results_read.clear()

    async def _follow(self, topic: str, members: Members, read: asyncio.Event) -> None:
        def feed(record: Record) -> None:
            try:
                key, value = record.key or b"", record.value or b""
                members.feed(record.topic, key, value, latest=self._latest())
            except (PeerError, DeniedError) as exc:
                # Whoever wrote it went round the gateway, or it is older than our anchors, or
                # its time is none: it lies ahead of this host's clock.
                self._metrics.denied("", exc.reason)
                _log.warning("record %d of %s is not taken: %s", record.offset, topic, exc)
            self._metrics.revocations(members.revocation_number, members.heartbeat)

        while True:
            try:
                await follow(self._log, topic, feed, read)
            except DeniedError as exc:  # nothing is admitted meanwhile; a person must see to it
                read.clear()
                _log.warning("topic %s cannot be read: %s", topic, exc)
            await asyncio.sleep(_AGAIN_S)

    def hurry(self) -> None:
        """Somebody knows a newer policy: look soon."""
        self._hurried.set()

    async def _refresh(self, members: Members) -> None:
        """Take new policies in until one has other trust anchors."""
        trust = self._policies.policy.trust
        while True:
            await self._pause()
            try:
                policy = await asyncio.to_thread(self._policies.refresh)
            except UnavailableError as exc:  # the policy in force holds until it ends
                self._say(f"policy: {exc}")
                policy = None
            except FabricError as exc:
                self._metrics.policy_refused()
                self._audit.refused(exc, self._policies.policy)
                self._say(f"published policy cannot be used: {exc}")
                policy = None
            else:
                self._said = None
            self._audit.looked(self._policies.policy)
            if policy is None:
                continue
            if not policy.trust.is_same_to_peers(trust):
                return
            self._use(View(policy, members))

    def _say(self, failure: str) -> None:
        """Log what a look failed with, once while it stands: looks may come twice a second."""
        if failure != self._said:
            self._said = failure
            _log.warning("%s", failure)

    async def _pause(self) -> None:
        """Until the next look at the repository: not too soon, also when somebody hurries us."""
        await asyncio.sleep(min(_HURRY_S, self._refresh_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._refresh_s - _HURRY_S)):
                await self._hurried.wait()
        self._hurried.clear()

    def _use(self, view: View) -> None:
        self._judge.view = view
        self._metrics.policy(view.policy.version, view.policy.expires)
        self._audit.taken(view.policy)
