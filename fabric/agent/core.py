"""What an agent is made of: files, clients and parts, opened and started in order.

First the policy and the metrics page; then attestation, until there is a
certificate; then the log and the views; then captures and applies. Each part is
supervised alone.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Coroutine

from fabric import tls
from fabric.agent.attesting import PART as ATTESTATION
from fabric.agent.attesting import Attesting, Hooks
from fabric.agent.auditing import open_audit, publish_host_heads
from fabric.agent.heads import Told
from fabric.agent.host import Host
from fabric.agent.identity import Identity
from fabric.agent.own import device, key_stores, lock
from fabric.agent.parts import datasets_of, publisher, run_publisher, source_tables
from fabric.agent.policing import PART as POLICY
from fabric.agent.policing import Policing
from fabric.agent.readers import Readers, Spawn
from fabric.agent.supervisor import Board, supervise
from fabric.agent.telemetry import Telemetry
from fabric.agent.ticking import PART as TICKS
from fabric.agent.ticking import Ticking
from fabric.agent.view import WorldView
from fabric.attest.result import Result
from fabric.config import AgentConfig, Capture
from fabric.database.registry import open_source
from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.kafka.log import KafkaLog, check_extension
from fabric.metrics import AgentMetrics
from fabric.model.errors import Reason, UsageError
from fabric.model.names import Topic
from fabric.ports import ChangeSource, Tpm
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import open_repository
from fabric.repository.waiting import first_policy
from fabric.store.clock import SystemClock
from fabric.store.files import own_folder
from fabric.web.authority import AuthorityClient
from fabric.web.refusals import RefusalsClient
from fabric.web.server import serving

_log = logging.getLogger(__name__)

_OUTBOX_TABLE = "outbox"


class Core:
    """One agent's parts.

    Attributes:
        board: what every part says of itself.
        started: set when captures and applies have begun.
    """

    def __init__(self, config: AgentConfig, *, tpm: Tpm | None) -> None:
        check_extension()
        self._config = config
        self._folder = config.agent.folder
        self._tpm = tpm
        self._stop = asyncio.Event()
        self._captures: list[asyncio.Event] = []
        self._told = Told()
        self._host: Host | None = None
        self._readers: Readers | None = None
        self._log: KafkaLog | None = None
        self._outbox: SqliteOutbox | None = None
        self._outbox_open = asyncio.Event()
        self._has_log = asyncio.Event()
        self.board = Board()
        self.started = asyncio.Event()

    # Opening

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        """Open files and clients; raises UsageError when one is unfit."""
        config = self._config
        own_folder(self._folder, "agent.folder")
        stack.callback(os.close, lock(self._folder / "agent.lock"))
        self._policies = open_repository(config.policy, config.tls.ca)
        policy = await first_policy(self._policies)
        self._clock = SystemClock()
        self._metrics = AgentMetrics([*policy.rules.values()])
        self._audit = audit = open_audit(config, self._clock, self._metrics)
        stack.callback(audit.close)
        told = PolicyAudit(audit, self._clock)
        self._telemetry = telemetry = Telemetry(self.board, self._metrics, audit, policy=told)
        telemetry.approved(policy, config.agent.host)
        self._view = WorldView(config.agent.host, policy, rejected=telemetry.control_rejected)
        self._policing = Policing(self._policies, self._view, telemetry, self._clock)
        tpm = self._tpm or device(config.tpm.tcti)
        stores = key_stores(config.keys, tpm)
        self.identity = Identity(self._folder, tpm, ca=config.tls.ca, stores=stores)
        stack.callback(self.identity.close)
        self._attesting = self._make_attesting(tpm)
        stack.push_async_callback(self._close_log)
        port = await stack.enter_async_context(
            serving(self._metrics.registry, lambda: self.board.parts, config.web.listen)
        )
        _log.info("pages on port %d", port)

    def _make_attesting(self, tpm: Tpm) -> Attesting:
        # Never the SVID: an expired one would keep this host from attesting again.
        context = tls.client_context(None, None, self._config.tls.ca)
        self._authority = AuthorityClient(self._config.authority.url, lambda: context)
        return Attesting(
            self.identity,
            self._view,
            tpm=tpm,
            authority=self._authority,
            clock=self._clock,
            board=self.board,
            hooks=Hooks(
                heads=self._heads,
                attested=self._attested,
                failed=self._telemetry.not_attested,
            ),
            event_log=self._config.tpm.event_log,
        )

    def _heads(self) -> tuple[bytes, ...]:
        topics = {topic for capture in self._config.capture for topic in capture.tables.values()}
        return self._told.next(self.identity.state, topics | {*self._config.outbox.topics})

    def _attested(self, result: Result) -> None:
        self._telemetry.attested(result)

    def _context(self) -> ssl.SSLContext:
        return self.identity.context()

    # Starting

    def start(self, spawn: Spawn) -> None:
        """Start every part; `spawn` runs a coroutine beside the others."""
        self._spawn = spawn
        refresh_s = self._config.policy.refresh_s
        self._supervise(POLICY, lambda: self._policing.run(refresh_s))
        self._supervise(ATTESTATION, self._attesting.run)
        for capture in self._config.capture:
            self.board.expect(f"capture {capture.source}")
        self._supervise("start", self._begin)

    def _supervise(self, part: str, run: Callable[[], Coroutine[object, object, None]]) -> None:
        self._spawn(supervise(part, run, self.board))

    async def _begin(self) -> None:
        """Once there is a certificate: the log, the views, then captures and applies."""
        await self._attesting.ready.wait()
        config = self._config
        refusals = RefusalsClient(config.gateway.refusals, self._context)
        self._log = KafkaLog(
            config.broker.bootstrap,
            config.gateway.bootstrap,
            self._context,
            client_id=f"fabric-{config.agent.host.principal}",
            reason_of=refusals.reason_of,
        )
        host = self._host = Host(
            identity=self.identity,
            view=self._view,
            log=self._log,
            clock=self._clock,
            telemetry=self._telemetry,
            receipts=config.receipts,
        )
        after_s = config.agent.custody_after_s
        self._readers = Readers(host, self._spawn, custody_after_s=after_s)
        self._has_log.set()
        show = self.board.show
        self._supervise(
            "view", lambda: self._view.follow(host.log, lambda *told: show("view", *told))
        )
        self._supervise("figures", self._watch)
        heads = config.audit.head_interval_s
        self._supervise(
            "audit", lambda: publish_host_heads(host, self._audit, self._metrics, heads)
        )
        await self._view.wait_caught_up()
        self._supervise(TICKS, self._ticking().run)
        for capture in config.capture:
            self._start_capture(host, capture)
        if config.outbox.topics:
            self._start_outbox(host)
        for number, apply in enumerate(config.apply):
            self._readers.apply(number, apply)
        self.started.set()

    def _ticking(self) -> Ticking:
        return Ticking(
            self._view,
            self._authority,
            self._clock,
            show=lambda *told: self.board.show(TICKS, *told),
        )

    def _start_capture(self, host: Host, capture: Capture) -> None:
        part = f"capture {capture.source}"

        def make() -> ChangeSource:
            return open_source(
                capture.kind,
                capture.url,
                source_tables(host, capture.tables),
                capture.source,
                slot=capture.slot,
                publication=capture.publication,
            )

        topics = [*capture.tables.values()]
        self._run_capture(host, part, capture.source, topics=topics, make=make)

    def _start_outbox(self, host: Host) -> None:
        topics = [*self._config.outbox.topics]
        tables = {f"{_OUTBOX_TABLE}-{topic}": topic for topic in topics}

        def make() -> ChangeSource:
            self._outbox = SqliteOutbox(self._folder / "outbox.db", source_tables(host, tables))
            return self._outbox

        name = self._config.outbox.source
        part = f"capture {name}"
        self._run_capture(host, part, name, topics=topics, make=make, opened=self._outbox_open)

    def _run_capture(
        self, host: Host, part: str, source: str, *, topics: list[Topic],
        make: Callable[[], ChangeSource], opened: asyncio.Event | None = None,
    ) -> None:  # fmt: skip
        ended = asyncio.Event()
        self._captures.append(ended)

        async def run() -> None:
            datasets = datasets_of(host, topics)
            made = await publisher(
                host, part, source, reads=make(), topics=topics, block=self._config.block,
                stop=self._stop,
            )  # fmt: skip
            made.on_open(opened)
            await run_publisher(host, made, datasets)

        async def whole() -> None:
            try:
                await supervise(part, run, self.board, stop=self._stop)
            finally:
                ended.set()

        self._spawn(whole())

    # Running

    async def host(self) -> Host:
        """The host's tools, once there is a log."""
        await self._has_log.wait()
        assert self._host is not None
        return self._host

    async def readers(self) -> Readers:
        """What starts readers, once there is a log."""
        await self._has_log.wait()
        assert self._readers is not None
        return self._readers

    async def outbox(self) -> SqliteOutbox:
        """The open outbox.

        Raises:
            UsageError: CONFIG_INVALID, the configuration names no `outbox.topics`.
        """
        if not self._config.outbox.topics:
            raise UsageError(
                Reason.CONFIG_INVALID, "outbox.topics is empty; name the topics to publish"
            )
        await self._outbox_open.wait()
        assert self._outbox is not None
        return self._outbox

    async def _watch(self) -> None:
        """Carry what the view has seen into clock and metrics, for ever."""
        self.board.show("figures", None)
        while True:
            members = self._view.members
            if members.heartbeat is not None:
                self._clock.observe(members.heartbeat)
            self._metrics.revocations(members.revocation_number, members.heartbeat)
            await asyncio.sleep(1.0)

    # Stopping

    async def stop(self) -> None:
        """Ask captures to finish what is in flight, and wait for them."""
        self._stop.set()
        for ended in self._captures:
            await ended.wait()

    async def _close_log(self) -> None:
        if self._log is not None:
            await self._log.close()
