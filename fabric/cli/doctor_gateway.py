"""`fabric gateway doctor`: every part that a gateway depends on, also while it is down."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fabric.authority.topics import specs
from fabric.cli import certificates, output, parts
from fabric.cli.access import policy_of
from fabric.cli.checks import Check, Once, run_doctor
from fabric.cli.doctor_agent import package
from fabric.config import GatewayConfig
from fabric.database.finding import Finding, ill, well
from fabric.gateway.auditing import FILE
from fabric.kafka.log import KafkaLog
from fabric.kafka.metadata import TopicRights
from fabric.locks import holder
from fabric.model.errors import Reason
from fabric.policy.types import Policy
from fabric.tls import client_context

_CONTROL = "fabric."
_NAMED_MAX = 3
_MAKES = "start the authority: it makes topics and the gateway's rights"


def examine(config: Path, form: output.Form) -> None:
    """Check a gateway's file and everything that it names; see run_doctor."""
    run_doctor(form, config, GatewayConfig.load, _checks)


def _checks(config: GatewayConfig) -> Sequence[Check]:
    policy = Once(lambda: policy_of(config))
    held = holder(config.gateway.folder / FILE)
    pid = held.pid if held is not None else None
    addresses = (
        ("gateway.listen", config.gateway.listen),
        ("gateway.side_listen", config.gateway.side_listen),
    )
    return [
        ("package", package),
        ("process", lambda: parts.process("gateway", held)),
        ("certificate", lambda: _certificate(config)),
        ("policy", lambda: _policy(config)),
        ("room", lambda: parts.room(config.gateway.folder, config.policy.state)),
        *(
            (f"broker {address}", lambda address=address: _broker(config, address))
            for address in config.broker.bootstrap
        ),
        ("topics", lambda: _topics(config, policy)),
        ("ticks", lambda: _ticks(config, policy)),
        *((key, partial(parts.listening, key, listen, pid)) for key, listen in addresses),
        *parts.pages(config.web, pid),
    ]


async def _certificate(config: GatewayConfig) -> str:
    tls = config.tls
    return await asyncio.to_thread(
        certificates.look,
        tls.certificate,
        tls.key,
        tls.ca,
        common_name="gateway",
        hosts=[address.host for address in config.gateway.advertised],
    )


async def _policy(config: GatewayConfig) -> str:
    policy = await parts.policy(config.policy, config.tls.ca)
    return f"version {policy.version}, ends {policy.expires:%Y-%m-%d %H:%M} UTC"


async def _broker(config: GatewayConfig, address: str) -> str:
    return await parts.broker(address, _context(config))


async def _topics(config: GatewayConfig, policy: Once[Policy]) -> Sequence[Finding]:
    """Whether the topics are there, and this certificate may write them."""
    names = [spec.name for spec in specs(await policy.get(), 1)]
    found = await parts.some_broker(config.broker.bootstrap, _context(config), names)
    control = {name: rights for name, rights in found.items() if name.startswith(_CONTROL)}
    data = {name: rights for name, rights in found.items() if name not in control}
    return [of_topics("of control", control), of_topics("of data", data)]


def of_topics(part: str, found: Mapping[str, TopicRights]) -> Finding:
    """What a broker's word on topics means to a gateway."""
    hidden = [name for name, rights in found.items() if not rights.exists]
    headless = [name for name, rights in found.items() if rights.leaderless]
    denied = [
        name
        for name, rights in found.items()
        if rights.exists and not (rights.may_write and rights.may_read)
    ]
    if hidden:
        return ill(part, Reason.TOPIC_DRIFT, f"missing or hidden: {_listed(hidden)}", _MAKES)
    if denied:
        seen = f"our certificate may not read and write {_listed(denied)}"
        return ill(part, Reason.NOT_A_PRODUCER, seen, _MAKES)
    if headless:
        seen = f"partitions without a leader: {_listed(headless)}"
        return ill(part, Reason.BROKER_UNAVAILABLE, seen, "start the brokers that hold them")
    return well(part, f"{len(found)} topics, which our certificate may write" if found else "none")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


async def _ticks(config: GatewayConfig, policy: Once[Policy]) -> str:
    trust, context = (await policy.get()).trust, _context(config)
    log = KafkaLog(config.broker.bootstrap, (), lambda: context, client_id=parts.CLIENT_ID)
    try:
        return await parts.ticks(log, trust, config.gateway.heartbeat_interval_s)
    finally:
        await log.close()


def _context(config: GatewayConfig) -> ssl.SSLContext:
    return client_context(config.tls.certificate, config.tls.key, config.tls.ca)
