"""Everything of an agent that rests on one set of trust anchors: made together, ended together.

What was verified under keys that the policy no longer names must not count any more, and
it went everywhere: into members, grants and open epochs, a certificate, a clock held up by
signed times. So nothing is sorted out. All of it ends, as when a process is killed, and
another life begins with what the files hold.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime

from fabric import tls
from fabric.agent.alone import demand_room
from fabric.agent.attesting import PART as ATTESTATION
from fabric.agent.attesting import Attesting, Hooks
from fabric.agent.auditing import publish_host_heads
from fabric.agent.heads import Told
from fabric.agent.host import Host
from fabric.agent.identity import Identity
from fabric.agent.outbox import Outbox
from fabric.agent.parts import (
    datasets_of,
    forget_withdrawn,
    origin_of,
    publisher,
    run_publisher,
    source_tables,
)
from fabric.agent.policing import PART as POLICY
from fabric.agent.policing import Policing
from fabric.agent.readers import Readers, Spawn
from fabric.agent.supervisor import Board, end, supervise
from fabric.agent.telemetry import Telemetry
from fabric.agent.ticking import PART as TICKS
from fabric.agent.ticking import Ticking
from fabric.agent.view import WorldView
from fabric.attest.result import Result
from fabric.config import AgentConfig, Capture
from fabric.database.registry import open_source
from fabric.database.sqlite_outbox import FILE as OUTBOX_FILE
from fabric.kafka.log import KafkaLog
from fabric.metrics import AgentMetrics
from fabric.model.names import Topic
from fabric.ports import ChangeSource, Tpm
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository
from fabric.store.audit import FileAudit
from fabric.store.clock import SystemClock
from fabric.web.authority import AuthorityClient
from fabric.web.refusals import RefusalsClient

_OUTBOX_TABLE = "outbox"


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a life is, for those who wait; another life begins without any.

    Attributes:
        has_log: there is a certificate, so that there are a log and readers.
        outbox_open: what is put into the outbox is taken.
        started: captures and applies have begun.
    """

    has_log: asyncio.Event = field(default_factory=asyncio.Event)
    outbox_open: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    def clear(self) -> None:
        """Nothing of it holds any more."""
        for mark in (self.has_log, self.outbox_open, self.started):
            mark.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one life leaves to the next: nothing that somebody else has signed.

    Attributes:
        stop: set when captures are to finish what is in flight.
    """

    config: AgentConfig
    tpm: Tpm
    identity: Identity
    clock: SystemClock
    board: Board
    metrics: AgentMetrics
    audit: FileAudit
    told: PolicyAudit
    stop: asyncio.Event
    marks: Marks = field(default_factory=Marks)


class Life:
    """One life; `start` begins it, `end` ends it for good.

    Args:
        policies: made for this life, and loaded: its TLS context rests on the CAs, too.
        spawn: runs a coroutine beside the others.
    """

    def __init__(self, kept: Kept, policies: PolicyRepository, spawn: Spawn) -> None:
        self._kept = kept
        self._config = kept.config
        self._beside = spawn
        self._tasks: set[asyncio.Task[None]] = set()
        self._captures: list[asyncio.Task[None]] = []
        self._told = Told()
        self._host: Host | None = None
        self._readers: Readers | None = None
        self._log: KafkaLog | None = None
        self._outbox: Outbox | None = None
        policy, me = policies.policy, kept.config.agent.host
        self._telemetry = Telemetry(kept.board, kept.metrics, kept.audit, policy=kept.told)
        self._telemetry.approved(policy, me)
        self.view = WorldView(
            me, policy, rejected=self._telemetry.control_rejected, latest=kept.clock.latest
        )
        self._policing = Policing(policies, self.view, self._telemetry, kept.clock)
        self._attesting = self._make_attesting()

    def _make_attesting(self) -> Attesting:
        # Never the SVID: an expired one would keep this host from attesting again.
        context = tls.client_context(None, None, self._config.tls.ca)
        self._authority = AuthorityClient(self._config.authority.url, lambda: context)
        return Attesting(
            self._kept.identity,
            self.view,
            tpm=self._kept.tpm,
            authority=self._authority,
            clock=self._kept.clock,
            board=self._kept.board,
            hooks=Hooks(
                heads=self._heads,
                attested=self._attested,
                failed=self._telemetry.not_attested,
            ),
            event_log=self._config.tpm.event_log,
        )

    def _heads(self) -> tuple[bytes, ...]:
        topics = {topic for capture in self._config.capture for topic in capture.tables.values()}
        topics |= {*self._config.outbox.topics}
        view = self.view
        return self._told.next(self._kept.identity.state, topics, view.policy, view.me)

    def _attested(self, result: Result) -> None:
        self._telemetry.attested(result)

    def _context(self) -> ssl.SSLContext:
        return self._kept.identity.context()

    def _ended(self) -> datetime | None:
        """When this host's certificate has ended; None while it runs."""
        end = self._kept.identity.certificate_end
        return end if end is not None and end <= self._kept.clock.now() else None

    # Starting

    def start(self) -> None:
        """Start every part."""
        refresh_s = self._config.policy.refresh_s
        self._supervise(POLICY, lambda: self._policing.run(refresh_s))
        self._supervise(ATTESTATION, self._attesting.run)
        for capture in self._config.capture:
            self._kept.board.expect(f"capture {capture.source}")
        self._supervise("start", self._begin)

    def spawn(self, part: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine for as long as this life lasts."""
        task = self._beside(part)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _supervise(self, part: str, run: Callable[[], Coroutine[object, object, None]]) -> None:
        self.spawn(supervise(part, run, self._kept.board))

    async def _begin(self) -> None:
        """Once there is a certificate: the log, the views, then captures and applies."""
        await self._attesting.ready.wait()
        config, marks = self._config, self._kept.marks
        host = self._host = self._make_host()
        after_s = config.agent.custody_after_s
        self._readers = Readers(host, self.spawn, custody_after_s=after_s)
        marks.has_log.set()
        show = self._kept.board.show
        self._supervise(
            "view", lambda: self.view.follow(host.log, lambda *told: show("view", *told))
        )
        self._supervise("figures", self._watch)
        heads = config.audit.head_interval_s
        audit, metrics = self._kept.audit, self._kept.metrics
        self._supervise("audit", lambda: publish_host_heads(host, audit, metrics, heads))
        await self.view.wait_caught_up()
        self._supervise(TICKS, self._ticking().run)
        for capture in config.capture:
            self._start_capture(host, capture)
        if config.outbox.topics:
            self._start_outbox(host)
        for number, apply in enumerate(config.apply):
            self._readers.apply(number, apply)
        marks.started.set()

    def _make_host(self) -> Host:
        config = self._config
        refusals = RefusalsClient(config.gateway.refusals, self._context)
        self._log = KafkaLog(
            config.broker.bootstrap,
            config.gateway.bootstrap,
            self._context,
            client_id=f"fabric-{config.agent.host.principal}",
            reason_of=refusals.reason_of,
            ended=self._ended,
        )
        return Host(
            identity=self._kept.identity,
            view=self.view,
            log=self._log,
            clock=self._kept.clock,
            telemetry=self._telemetry,
            receipts=config.receipts,
        )

    def _ticking(self) -> Ticking:
        return Ticking(
            self.view,
            self._authority,
            self._kept.clock,
            show=lambda *told: self._kept.board.show(TICKS, *told),
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
        name = self._config.outbox.source
        origin = origin_of(self.view.me, name)
        outbox = self._outbox = Outbox(
            self._config.agent.folder / OUTBOX_FILE,
            lambda change: demand_room(self.view.policy, origin, change),
        )

        def make() -> ChangeSource:
            return outbox.source(source_tables(host, tables))

        opened = self._kept.marks.outbox_open
        self._run_capture(host, f"capture {name}", name, topics=topics, make=make, opened=opened)

    def _run_capture(
        self, host: Host, part: str, source: str, *, topics: list[Topic],
        make: Callable[[], ChangeSource], opened: asyncio.Event | None = None,
    ) -> None:  # fmt: skip
        stop = self._kept.stop

        async def run() -> None:
            forget_withdrawn(host, topics)
            datasets = datasets_of(host, topics)
            host.telemetry.captures(source)
            made = await publisher(
                host, part, source, reads=make(), topics=topics, block=self._config.block,
                stop=stop,
            )  # fmt: skip
            made.on_open(opened)
            await run_publisher(host, made, datasets)

        self._captures.append(self.spawn(supervise(part, run, self._kept.board, stop=stop)))

    # Running

    @property
    def host(self) -> Host:
        """The host's tools, once `has_log` is set."""
        assert self._host is not None
        return self._host

    @property
    def readers(self) -> Readers:
        """What starts readers, once `has_log` is set."""
        assert self._readers is not None
        return self._readers

    @property
    def outbox(self) -> Outbox:
        """The outbox, once `outbox_open` is set."""
        assert self._outbox is not None
        return self._outbox

    async def _watch(self) -> None:
        """Carry what the view has seen into clock and metrics, for ever."""
        self._kept.board.show("figures", None)
        while True:
            members = self.view.members
            if members.heartbeat is not None:
                self._kept.clock.observe(members.heartbeat)
            self._kept.metrics.revocations(members.revocation_number, members.heartbeat)
            await asyncio.sleep(1.0)

    # Ending

    async def finish(self) -> None:
        """Wait until captures have finished what is in flight; `Kept.stop` is set."""
        if self._captures:
            await asyncio.wait(self._captures)

    async def end(self) -> None:
        """End every part where it is, and forget what others have signed; may be called again."""
        self._kept.marks.clear()
        await end(self._tasks)
        await self.close()
        self._kept.identity.forget_context()
        self._kept.clock.forget()
        self._kept.board.clear()

    async def close(self) -> None:
        """Give back what the parts have left open; they have ended."""
        if self._readers is not None:
            await self._readers.close()
        if self._outbox is not None:
            await self._outbox.close()
        if self._log is not None:
            await self._log.close()
