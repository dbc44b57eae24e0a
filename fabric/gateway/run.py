"""The gateway as a process: parts put together, started, stopped."""

import asyncio
import logging
import ssl
from collections.abc import Mapping

from fabric.config import GatewayConfig
from fabric.config_fields import Address
from fabric.gateway import refusals, requests
from fabric.gateway.auditing import Auditing
from fabric.gateway.cluster import Directory
from fabric.gateway.judge import Judge
from fabric.gateway.parts import Parts
from fabric.gateway.refusals import RefusalLog
from fabric.gateway.replay import Replays
from fabric.gateway.server import Door
from fabric.gateway.upstream import Exchange
from fabric.gateway.view import Keeper
from fabric.kafka import broker_answers
from fabric.kafka.log import KafkaLog
from fabric.metrics import GatewayMetrics
from fabric.model.errors import FabricError, Reason, UsageError
from fabric.repository.client import open_repository
from fabric.repository.waiting import first_policy
from fabric.store.clock import SystemClock
from fabric.tls import certificate_end, client_context, server_context
from fabric.web import server as pages
from fabric.web.lateness import telling_lateness

_log = logging.getLogger(__name__)
_ASK_AGAIN_S = 3.0
_ASK_SOON_S = 1.0
_PROBE_S = 2.0
_PROBE_S_MAX = 1.0


class _Stopped(Exception):
    """Somebody asked the gateway to stop."""


async def run(config: GatewayConfig, *, stop: asyncio.Event | None = None) -> None:
    """Serve producers until `stop` is set.

    Raises:
        UsageError: configuration or policy cannot be used; nothing was served.
    """
    policies = open_repository(config.policy, config.tls.ca)
    policy = await first_policy(policies)
    metrics = GatewayMetrics(tuple(policy.rules.values()))
    metrics.certificate(certificate_end(config.tls.certificate))
    clock = SystemClock()
    auditing = Auditing(config, metrics, clock)
    parts = _parts(config, metrics, clock, auditing)
    log = KafkaLog(
        config.broker.bootstrap,
        [str(address) for address in config.gateway.advertised],
        parts.upstream,
        client_id="fabric-gateway",
    )
    keeper = Keeper(
        parts.judge,
        policies,
        log,
        metrics=metrics,
        audit=auditing.policy,
        refresh_s=config.policy.refresh_s,
        latest=clock.latest,
    )
    try:
        with telling_lateness(metrics.loop_late):
            await _serve(config, parts, keeper, auditing, stop=stop or asyncio.Event())
    finally:
        await log.close()
        auditing.close()


def _parts(
    config: GatewayConfig, metrics: GatewayMetrics, clock: SystemClock, auditing: Auditing
) -> Parts:
    tls = config.tls
    upstream: ssl.SSLContext = client_context(tls.certificate, tls.key, tls.ca)
    interval_s = config.gateway.heartbeat_interval_s
    return Parts(
        judge=Judge(Replays(), heartbeat_interval_s=interval_s),
        directory=Directory(config.gateway.advertised),
        refusals=RefusalLog(),
        metrics=metrics,
        clock=clock,
        context=server_context(tls.certificate, tls.key, tls.ca),
        upstream=lambda: upstream,
        audit=auditing.refusals,
        bootstrap=tuple(Address.parse(text) for text in config.broker.bootstrap),
    )


async def _serve(
    config: GatewayConfig,
    parts: Parts,
    keeper: Keeper,
    auditing: Auditing,
    *,
    stop: asyncio.Event,
) -> None:
    gateway = config.gateway
    knows_broker = asyncio.Event()

    def ready() -> Mapping[str, str | None]:
        broker = None if knows_broker.is_set() else Reason.BROKER_UNAVAILABLE
        return {
            **keeper.readiness(parts.clock, gateway.heartbeat_interval_s),
            "broker": broker,
        }

    side = refusals.serving(
        parts.refusals,
        gateway.side_listen,
        context=server_context(config.tls.certificate, config.tls.key, config.tls.ca),
        trust_domain=lambda: parts.trust_domain,
    )
    failures: list[BaseException] = []
    try:
        async with (
            pages.serving(parts.metrics.registry, ready, config.web) as web_port,
            side as side_port,
            asyncio.TaskGroup() as group,
        ):
            _log.info("refusal log on port %d, pages on port %d", side_port, web_port)
            group.create_task(keeper.run())
            group.create_task(auditing.run(parts))
            group.create_task(_ask_broker(parts, knows_broker))
            group.create_task(_probe(parts.directory))
            group.create_task(Door(parts, hurry=keeper.hurry).serve(gateway.listen, _say))
            group.create_task(_until(stop))
    except* _Stopped:
        _log.info("stopped")
    except* UsageError as found:
        failures.extend(found.exceptions)
    for failure in failures:
        raise failure


def _say(port: int) -> None:
    _log.info("serving producers on port %d", port)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _Stopped


async def _ask_broker(parts: Parts, known: asyncio.Event) -> None:
    """Keep nodes and served versions known, also before the first client comes."""
    broker = Exchange(parts.bootstrap, parts.upstream)
    try:
        while True:
            try:
                frame = await broker.ask(requests.ask_api_versions())
                parts.directory.offered(broker_answers.read_api_versions(frame))
                frame = await broker.ask(requests.ask_metadata(()))
                said = broker_answers.read_metadata(requests.OWN_METADATA_VERSION, frame)
                parts.directory.learn(said.cluster)
                known.set()
            except FabricError as exc:
                _log.info("broker does not answer: %s", exc)
                known.clear()
                await broker.close()
            await asyncio.sleep(_ASK_AGAIN_S if known.is_set() else _ASK_SOON_S)
    finally:
        await broker.close()


async def _probe(directory: Directory) -> None:
    """Find out which gateways accept connections, so that clients are not sent to dead ones."""
    while len(directory.advertised) > 1:
        async with asyncio.TaskGroup() as group:
            probes = {
                address: group.create_task(_accepts(Address(*address)))
                for address in directory.advertised
            }
        directory.alive(address for address, probe in probes.items() if probe.result())
        await asyncio.sleep(_PROBE_S)


async def _accepts(address: Address) -> bool:
    try:
        async with asyncio.timeout(_PROBE_S_MAX):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError:
        return False
    writer.close()
    return True
