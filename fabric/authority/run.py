"""The authority's process: put the parts together, start and stop them."""

import asyncio
import contextlib
import logging
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from aiohttp import web

from fabric.attest.audit_chain import Link
from fabric.attest.audit_head import Head, head_record
from fabric.attest.keys import SigningKey
from fabric.authority.keeper import Keeper
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.ledger_file import AUDIT_FILE, LEDGER
from fabric.authority.listing import judged
from fabric.authority.pki import Ca, decode_verifier_keys, load_ca
from fabric.authority.policy_files import folder_of
from fabric.authority.publisher import Publisher
from fabric.authority.refused import RefusedCount
from fabric.authority.routes import Routes
from fabric.authority.service import Authority, Parts
from fabric.authority.ticks import Ticks
from fabric.config import AuthorityConfig
from fabric.kafka.admin import AdminTls, KafkaAdmin
from fabric.kafka.heads import publish_heads
from fabric.kafka.log import KafkaLog
from fabric.metrics import AGENT_STATES, AuthorityMetrics
from fabric.model.errors import ConfigInvalid, FabricError, UnavailableError
from fabric.model.names import AUTHORITY
from fabric.policy.types import Policy
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository, open_repository
from fabric.repository.keys import decode_signer
from fabric.repository.timestamp import Renewal
from fabric.store.audit import Bounds, FileAudit
from fabric.store.clock import SigningClock
from fabric.store.files import own_folder
from fabric.tls import certificate_end, client_context, server_context
from fabric.web.lateness import telling_lateness
from fabric.web.listener import Listener
from fabric.web.server import serving

_log = logging.getLogger(__name__)
_COUNT_S = 2.0
"""How often hosts are counted for metrics."""


async def run(
    config: AuthorityConfig, *, stop: asyncio.Event | None = None, forgets_time: bool = False
) -> None:
    """Serve until `stop` is set; `forgets_time`: though the ledger holds a later time than now.

    Raises:
        UsageError: a setting, key or policy is wrong, with the remedy.
    """
    async with _opened(config, forgets_time=forgets_time) as process:
        await process.run(stop or asyncio.Event())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """The parts of a running authority."""

    config: AuthorityConfig
    policies: PolicyRepository
    renewal: Renewal | None
    clock: SigningClock
    ticks: Ticks
    ledger: LedgerThread
    keeper: Keeper
    publisher: Publisher
    routes: Routes
    refusals: RefusedCount
    metrics: AuthorityMetrics
    signers: tuple[SigningKey, ...]
    log: KafkaLog
    audit: FileAudit
    told: PolicyAudit

    async def run(self, stop: asyncio.Event) -> None:
        """Run every part until `stop`; the first that fails ends all."""
        runner = web.AppRunner(self.routes.application(), access_log=None, handle_signals=False)
        await runner.setup()
        tls = self.config.tls
        context = server_context(tls.certificate, tls.key, tls.ca, demand=False)
        assert runner.server is not None
        listener = Listener(runner.server, context, setting="authority.listen")
        try:
            async with (
                serving(self.metrics.registry, self._ready, self.config.web),
                listener.listening(self.config.authority.listen),
                asyncio.TaskGroup() as group,
            ):
                tasks = [
                    group.create_task(part)
                    for part in (
                        self._refresh(),
                        self.keeper.run(),
                        self._publish(),
                        self._count(),
                        self.refusals.run(),
                    )
                ]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        except* FabricError as failures:
            raise _first(failures) from failures
        finally:
            await runner.cleanup()

    async def _publish(self) -> None:
        await self.keeper.is_made.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.publisher.run(self.policies.policy.trust))
            group.create_task(
                publish_heads(
                    self.log,
                    self.audit,
                    self._sign_head,
                    interval_s=self.config.audit.head_interval_s,
                    unsigned=self.metrics.audit_unsigned,
                )
            )

    def _sign_head(self, link: Link) -> tuple[bytes, bytes]:
        head = Head(component=AUTHORITY, link=link, at=self.clock.confirmed())
        return head_record(head, self.signers)

    async def _refresh(self) -> None:
        """Take a newer policy into force; a broken one changes nothing and is said."""
        pause_s = 0.0  # a timestamp that ended while we were off is signed as soon as it may be
        with contextlib.suppress(UnavailableError):
            await self.ticks.opened()
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self.config.policy.refresh_s
            try:
                now = self.clock.now()
                # One that is signed ahead would hide a newer policy until that time has come.
                renewal = None if self.clock.is_in_doubt else self.renewal
                policy = await asyncio.to_thread(look, self.policies, renewal, now)
            except FabricError as exc:
                self.metrics.policy_refused()
                self.told.refused(exc, self.policies.policy)
                self.told.looked(self.policies.policy)
                _log.error("policy: %s", exc)
                continue
            self.told.looked(self.policies.policy)
            if policy is not None:
                self._took(policy)
                self.keeper.check_soon()
            fault = fault_of(self.policies.policy, self.signers, now)
            if fault is not None:  # serve on: the notices must go out
                self.metrics.policy_refused()
                _log.error("policy: %s", fault)

    def _took(self, policy: Policy) -> None:
        self.metrics.policy(policy.version, policy.expires)
        self.told.taken(policy)
        if policy.renew_by is not None:
            self.metrics.signatures.set(policy.renew_by.timestamp())
        _log.info("policy version %d is in force", policy.version)

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(FabricError):
                await self.ledger.do(Ledger.try_again)
                now = self.clock.now()
                found = await self.ledger.do(partial(Ledger.shown, now=now))
                shown = [word for word, _ in judged(found, self.policies.policy, now)]
                for state in AGENT_STATES:
                    self.metrics.hosts(state, shown.count(state))
                number = await self.ledger.do(Ledger.last_number)
                self.metrics.revocations(number, self.publisher.last_beat)
            await asyncio.sleep(_COUNT_S)

    def _ready(self) -> Mapping[str, str | None]:
        clock: str | None = None
        try:
            policy = fault_of(self.policies.policy, self.signers, self.clock.now())
        except FabricError as exc:
            clock, policy = str(exc), "not judged while the clock is wrong"
        return {
            "clock": clock,
            "policy": policy or (str(fault) if (fault := self.policies.fault) else None),
            "ledger": self.ledger.why_not_ready,
            "broker": self.keeper.why_not_ready,
            "gateway": self.publisher.why_not_ready,
        }


@contextlib.asynccontextmanager
async def _opened(config: AuthorityConfig, *, forgets_time: bool) -> AsyncIterator[_Process]:
    """Everything that must be right before the first byte is served."""
    part = config.authority
    own_folder(part.folder, "authority.folder")
    signers = verifier_keys(config)
    policies, renewal = _opened_policy(config, signers)
    async with contextlib.AsyncExitStack() as stack:
        ledger = LedgerThread(Ledger(part.folder / LEDGER))
        stack.callback(ledger.close)
        clock = SigningClock(None if forgets_time else await ledger.do(Ledger.newest))
        metrics = AuthorityMetrics()
        stack.enter_context(telling_lateness(metrics.loop_late))
        metrics.certificate(certificate_end(config.tls.certificate))
        audit = _audit_of(config, clock, metrics)
        stack.callback(audit.close)
        newest = {"newest_time": "forgotten"} if forgets_time else {}
        audit.write("authority_started", {"listen": str(part.listen), **newest})
        log = log_of(config)
        stack.push_async_callback(log.close)
        every_s = part.heartbeat_interval_s
        ticks = Ticks(ledger, signers, now=clock.now, interval_s=every_s)
        publisher = Publisher(log, ledger, signers, ticks=ticks, clock=clock, interval_s=every_s)
        keeper = Keeper(
            admin_of(config),
            ledger,
            lambda: policies.policy,
            now=clock.now,
            replication_factor=part.replication_factor,
        )
        parts = Parts(
            policy=lambda: policies.policy,
            clock=clock,
            ledger=ledger,
            publisher=publisher,
            ticks=ticks,
            keeper=keeper,
            ca=issuing_ca(config),
            audit=audit,
            lifetime_s=part.result_lifetime_s,
            noticed=metrics.notice,
        )
        authority = Authority(parts)
        stack.callback(authority.refusals.flush)
        routes = Routes(
            authority,
            parts.policy,
            clock=clock,
            metrics=metrics,
            repository=folder_of(config.policy),
        )
        process = _Process(
            config=config,
            policies=policies,
            renewal=renewal,
            clock=clock,
            ticks=ticks,
            ledger=ledger,
            keeper=keeper,
            publisher=publisher,
            routes=routes,
            refusals=authority.refusals,
            metrics=metrics,
            signers=signers,
            log=log,
            audit=audit,
            told=PolicyAudit(audit, clock),
        )
        process._took(policies.policy)
        yield process


def _opened_policy(
    config: AuthorityConfig, signers: tuple[SigningKey, ...]
) -> tuple[PolicyRepository, Renewal | None]:
    """The policy in force, after a long stop an ended one, and what renews its timestamp."""
    policies, renewal = open_repository(config.policy, config.tls.ca), renewal_of(config)
    policies.load()
    check_start(policies.policy, signers)
    return policies, renewal


def _audit_of(config: AuthorityConfig, clock: SigningClock, metrics: AuthorityMetrics) -> FileAudit:
    limits = config.audit
    return FileAudit(
        config.authority.folder / AUDIT_FILE,
        clock,
        failed=metrics.audit_failed,
        written=metrics.audit_written,
        bounds=Bounds(file_bytes_max=limits.file_bytes_max, files_max=limits.files_max),
    )


def look(policies: PolicyRepository, renewal: Renewal | None, now: datetime) -> Policy | None:
    """Renew the timestamp when it is due, then take what is new; as PolicyRepository.refresh."""
    if renewal is not None:
        renewal.renew(now, policies.timestamp)
    return policies.refresh()


def fault_of(policy: Policy, signers: tuple[SigningKey, ...], now: datetime) -> str | None:
    """Why nobody may, or would, act on what we say under this policy; None when all is well."""
    if now >= policy.expires:
        return "policy has expired; publish a newer version"
    try:
        check_keys(policy, signers)
    except ConfigInvalid as exc:
        return str(exc.args[0])
    return None


def check_start(policy: Policy, signers: tuple[SigningKey, ...]) -> None:
    """Keys that the policy lists as former ones will do to start with; raises ConfigInvalid.

    In the middle of a planned change everybody believes them still, and a restart must not
    end the fabric. That they are not today's shows as `fault_of`.
    """
    if not signers or _named(signers) != policy.trust.former_keys:
        check_keys(policy, signers)


def check_keys(policy: Policy, signers: tuple[SigningKey, ...]) -> None:
    """Today's keys are what an authority should have; raises ConfigInvalid."""
    if policy.trust.verifier_keys != _named(signers):
        raise ConfigInvalid(
            "authority.verifier_key: its keys are not the policy's trust.verifier.keys;"
            " publish a policy with these keys, or use the key file that belongs to it"
        )


def _named(signers: tuple[SigningKey, ...]) -> tuple[tuple[int, bytes], ...]:
    """Keys as a policy lists them."""
    return tuple((int(key.public.alg), key.public.data) for key in signers)


def renewal_of(config: AuthorityConfig) -> Renewal | None:
    """The key that keeps the policy's timestamp fresh, if this authority has it."""
    part, where = config.authority, config.policy.repository
    if part.timestamp_key is None:
        return None
    if not isinstance(where, Path):
        raise ConfigInvalid(
            "authority.timestamp_key: needs the repository itself; let policy.repository name"
            " its folder"
        )
    signer = decode_signer(_secret(part.timestamp_key, "authority.timestamp_key"))
    return Renewal(where, signer, valid_s=part.timestamp_valid_s)


def log_of(config: AuthorityConfig) -> KafkaLog:
    """The platform's log: read from the brokers, written through the gateways."""
    tls = config.tls
    context = client_context(tls.certificate, tls.key, tls.ca)
    return KafkaLog(
        config.broker.bootstrap, config.gateway.bootstrap, lambda: context, client_id=AUTHORITY
    )


def admin_of(config: AuthorityConfig) -> KafkaAdmin:
    """The brokers' administrator; raises ConfigInvalid."""
    admin = config.admin
    return KafkaAdmin(
        config.broker.bootstrap,
        AdminTls(certificate=admin.certificate, key=admin.key, ca=config.tls.ca),
        replication_factor=config.authority.replication_factor,
    )


def verifier_keys(config: AuthorityConfig) -> tuple[SigningKey, ...]:
    """The keys that sign everything we say; raises ConfigInvalid."""
    path = config.authority.verifier_key
    return decode_verifier_keys(_secret(path, "authority.verifier_key"))


def issuing_ca(config: AuthorityConfig) -> Ca:
    """The CA of the hosts' certificates; raises ConfigInvalid."""
    part = config.authority
    certificate = _file(part.issuing_certificate, "authority.issuing_certificate")
    return load_ca(certificate, _secret(part.issuing_key, "authority.issuing_key"))


def _file(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigInvalid(f"{key}: {path} cannot be read ({exc.strerror})") from exc


def _secret(path: Path, key: str) -> bytes:
    data = _file(path, key)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigInvalid(f"{key}: {path} is open to others; run chmod 600 on it")
    return data


def _first(failures: "BaseExceptionGroup[FabricError]") -> FabricError:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, FabricError)
    return failure
