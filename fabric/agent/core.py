"""What an agent is made of: files, clients and parts, opened and started in order.

First the policy and the metrics page; then attestation, until there is a
certificate; then the log and the views; then captures and applies. Each part is
supervised alone. What rests on trust anchors is a Life: it starts over, inside the
process, when the policy has other ones.
"""

import asyncio
import contextlib
import logging
import os

from fabric.agent.auditing import open_audit
from fabric.agent.host import Host
from fabric.agent.identity import Identity
from fabric.agent.life import Kept, Life
from fabric.agent.outbox import Outbox
from fabric.agent.own import device, key_stores, lock
from fabric.agent.readers import Readers, Spawn, target_name
from fabric.agent.subscription import Subscription
from fabric.agent.supervisor import Board, end, supervise
from fabric.config import AgentConfig
from fabric.kafka.log import check_extension
from fabric.metrics import AgentMetrics
from fabric.metrics_lag import DATABASES
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.names import Topic
from fabric.ports import Tpm
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository, open_repository
from fabric.repository.waiting import first_policy
from fabric.store.clock import SystemClock
from fabric.store.files import own_folder
from fabric.web.lateness import telling_lateness
from fabric.web.server import serving

TRUST = "trust"
_log = logging.getLogger(__name__)


class Core:
    """One agent's parts.

    Attributes:
        board: what every part says of itself.
    """

    def __init__(self, config: AgentConfig, *, tpm: Tpm | None) -> None:
        check_extension()
        self._config = config
        self._folder = config.agent.folder
        self._tpm = tpm
        self._stop = asyncio.Event()
        self._life: Life | None = None
        self.board = Board()

    # Opening

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        """Open files and clients; raises UsageError when one is unfit."""
        config = self._config
        own_folder(self._folder, "agent.folder")
        stack.callback(os.close, lock(self._folder / "agent.lock"))
        self._policies = await self._open_policies()
        metrics = AgentMetrics([*self._policies.policy.rules.values()])
        stack.enter_context(telling_lateness(metrics.loop_late))
        clock = SystemClock()
        audit = open_audit(config, clock, metrics)
        stack.callback(audit.close)
        tpm = self._tpm or device(config.tpm.tcti)
        stores = key_stores(config.keys, tpm)
        self.identity = Identity(self._folder, tpm, ca=config.tls.ca, stores=stores)
        stack.callback(self.identity.close)
        self._kept = Kept(
            config=config,
            tpm=tpm,
            identity=self.identity,
            clock=clock,
            board=self.board,
            metrics=metrics,
            audit=audit,
            told=PolicyAudit(audit, clock),
            stop=self._stop,
        )
        stack.push_async_callback(self._close)
        port = await stack.enter_async_context(
            serving(metrics.registry, lambda: self.board.parts, config.web)
        )
        _log.info("pages on port %d", port)

    async def _open_policies(self) -> PolicyRepository:
        policies = open_repository(self._config.policy, self._config.tls.ca)
        await first_policy(policies)
        return policies

    # Starting

    def start(self, spawn: Spawn) -> None:
        """Start every part; `spawn` runs a coroutine beside the others."""
        self._spawn = spawn
        self._show_databases()
        self._live(self._policies)
        spawn(supervise(TRUST, self._start_over, self.board, stop=self._stop))

    def _show_databases(self) -> None:
        """Every database that the settings name, before the first is asked."""
        config, metrics = self._config, self._kept.metrics
        sources = [capture.source for capture in config.capture]
        if config.outbox.topics:
            sources.append(config.outbox.source)
        for source in sources:
            metrics.has_database(DATABASES[0], source)
        for number, apply in enumerate(config.apply):
            metrics.has_database(*target_name(number, apply))

    def _live(self, policies: PolicyRepository) -> None:
        self._life = Life(self._kept, policies, self._spawn)
        self._life.start()

    async def _start_over(self) -> None:
        """End what rests on trust anchors when they change, and begin anew, for ever.

        Raises:
            FabricError: what is needed for it cannot be had; nothing runs meanwhile.
        """
        while True:
            outdated = self._current.view.outdated
            if not outdated.is_set():  # else the try before this one has failed
                self.board.show(TRUST, None)
            await outdated.wait()
            await self._end_life()
            policies = await self._open_policies()
            if self._stop.is_set():
                return
            self._live(policies)

    async def _end_life(self) -> None:
        """End the current life; no moment of it looks well, and it clears the board."""
        changed = (TRUST, Reason.NOT_READY, "trust anchors have changed; starting over")
        self.board.show(*changed)
        await self._current.end()
        self.board.show(*changed)

    # Running

    @property
    def _current(self) -> Life:
        assert self._life is not None
        return self._life

    async def wait_started(self) -> None:
        """Wait until captures and applies have begun; raises as `host`."""
        await self._reach(self._kept.marks.started)

    async def host(self) -> Host:
        """The host's tools, once there is a log.

        Raises:
            UnavailableError: NOT_READY, the agent ends before.
        """
        await self._reach(self._kept.marks.has_log)
        return self._current.host

    async def readers(self) -> Readers:
        """What starts readers, once there is a log; raises as `host`."""
        await self._reach(self._kept.marks.has_log)
        return self._current.readers

    async def _reach(self, mark: asyncio.Event) -> None:
        """Wait for a mark of a life, for as long as there are lives."""
        if mark.is_set() and not self._stop.is_set():
            return
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(event.wait()) for event in (mark, self._stop)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        if self._stop.is_set():
            raise UnavailableError(Reason.NOT_READY, "the agent has ended")

    async def subscribe(self, topic: Topic, subscription: Subscription) -> None:
        """Read a topic for a subscriber in every life, until it is cancelled or the agent ends."""
        while True:
            try:
                readers = await self.readers()
            except UnavailableError:
                return  # raised, it would cancel whoever finishes what is in flight
            subscription.begin()
            task = self._current.spawn(readers.subscribe(topic, subscription))
            try:
                await asyncio.wait([task])
            finally:
                await end([task])  # what it shows of itself must not outlive it
            subscription.forget()

    async def outbox(self) -> Outbox:
        """The outbox, open also while its capture is held.

        Raises:
            UsageError: CONFIG_INVALID, the configuration names no `outbox.topics`.
            UnavailableError: as `host`.
        """
        if not self._config.outbox.topics:
            raise UsageError(
                Reason.CONFIG_INVALID, "outbox.topics is empty; name the topics to publish"
            )
        await self._reach(self._kept.marks.outbox_open)
        return self._current.outbox

    # Stopping

    async def stop(self) -> None:
        """Ask captures to finish what is in flight, and wait for them."""
        self._stop.set()
        await self._current.finish()

    async def _close(self) -> None:
        if self._life is not None:
            await self._life.close()
