"""Looks that several doctors share: certificates, addresses, peers, policy, ticks.

Each says how its part is, or raises with the cause; none changes anything.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from fabric.attest.members import Members
from fabric.cli.certificates import look_at_pages
from fabric.cli.checks import Check
from fabric.config import PolicyConfig
from fabric.config_fields import Address
from fabric.config_web import WebConfig
from fabric.database.finding import Finding, ill, well
from fabric.kafka.metadata import TopicRights, rights
from fabric.locks import Holder
from fabric.model.disk import NO_ROOM
from fabric.model.errors import ConfigInvalid, DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import CLOCK_SKEW_S_MAX, HANDSHAKE_S_MAX, HEARTBEATS_MISSED_MAX
from fabric.model.names import MEMBERS
from fabric.policy.types import Policy, Trust
from fabric.ports import Log, Record
from fabric.store.room import free_room, why_no_room
from fabric.tls import why_not

CLIENT_ID = "fabric-doctor"
_HTTPS = 443
_CONNECT_S_MAX = 2.0
_TICKS_READ = 50
"""So many records of the members topic are read for a last tick; most of them are ticks."""
_TICK_S_MIN = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to look, not where to listen


async def process(name: str, held: Holder | None) -> str:
    """Whether it runs; a process that is down is no fault of a part."""
    return f"does not run; start it with: fabric {name} run" if held is None else f"runs, {held}"


def address_of(url: str) -> str:
    """`host:port` of an HTTPS URL."""
    found = urlsplit(url)
    return str(Address(found.hostname or "", found.port or _HTTPS))


async def reach(address: str, context: ssl.SSLContext, away: Reason) -> str:
    """A TLS handshake with a peer; raises UnavailableError with reason `away`."""
    host, port = Address.parse(address)
    try:
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, EOFError, TimeoutError) as exc:
        raise UnavailableError(away, f"{address}: {why_not(exc)}") from exc
    tls = writer.get_extra_info("ssl_object")
    seen = f"answers, {tls.version() if isinstance(tls, ssl.SSLObject) else 'no TLS'}"
    writer.close()
    return seen


async def broker(address: str, context: ssl.SSLContext) -> str:
    """One question to a broker: only its answer shows that it takes our certificate."""
    await rights(address, context, (), client_id=CLIENT_ID)
    return "answers, and takes our certificate"


async def some_broker(
    addresses: Sequence[str], context: ssl.SSLContext, topics: Sequence[str] = ()
) -> Mapping[str, TopicRights]:
    """What the first broker that answers says of these topics; raises as the last that does not."""
    for address in addresses[:-1]:
        with suppress(UnavailableError):
            return await rights(address, context, topics, client_id=CLIENT_ID)
    return await rights(addresses[-1], context, topics, client_id=CLIENT_ID)


async def policy(config: PolicyConfig, ca: Path) -> Policy:
    """The policy that the repository gives now.

    Raises:
        FabricError: it gives none that can be used; says until when the last good copy holds.
    """
    from fabric.repository.client import fetch_once

    try:
        found = await asyncio.to_thread(fetch_once, config, ca)
    except UnavailableError as exc:
        raise UnavailableError(exc.reason, f"{exc.args[0]}; {await _copy(config)}") from exc
    if found.expires <= datetime.now(UTC):
        raise DeniedError(Reason.POLICY_EXPIRED, f"version {found.version} has expired")
    return found


async def _copy(config: PolicyConfig) -> str:
    from fabric.repository.client import last_good

    try:
        copy = await asyncio.to_thread(last_good, config)
    except (UnavailableError, PeerError):
        return "there is no last good copy"
    return f"the last good copy, version {copy.version}, ends {copy.expires:%Y-%m-%d %H:%M} UTC"


async def room(*folders: Path) -> str:
    """The room that is left where a process writes, of several folders the least.

    Raises:
        UnavailableError: OVERLOADED, one of them has too little.
        ConfigInvalid: one may not be looked at.
    """
    left = [await asyncio.to_thread(_room, folder) for folder in folders]
    return f"{min(left) // (1024 * 1024)} MiB are free"


def _room(folder: Path) -> int:
    try:
        why, left = why_no_room(folder), free_room(folder)
    except OSError as exc:
        raise ConfigInvalid(f"{folder} cannot be looked at ({exc.strerror})") from exc
    if why is not None:
        raise UnavailableError(Reason.OVERLOADED, f"{NO_ROOM}: {why}")
    return left


async def listening(key: str, listen: Address, pid: int | None) -> Sequence[Finding]:
    """An address of our own: held by our process, or free for it.

    Args:
        key: the setting that names it.
        pid: our process, None when it does not run.
    """
    if not listen.port:
        return [well("", "any free port")]
    is_taken = await _accepts(Address(_EVERYWHERE.get(listen.host, listen.host), listen.port))
    if is_taken and pid is not None:
        return [well("", f"{listen}, the running process listens")]
    if is_taken:
        seen = f"another process listens on {listen}"
        remedy = f"end that process, or choose another address in {key}"
        return [ill("", Reason.CONFIG_INVALID, seen, remedy)]
    if pid is not None:
        return [ill("", Reason.NOT_READY, f"the process runs and nobody listens on {listen}")]
    fault = _bind_fault(listen)
    if fault is None:
        return [well("", f"{listen}, free")]
    seen = f"cannot listen on {listen}: {fault}"
    return [ill("", Reason.CONFIG_INVALID, seen, f"choose an address of this machine in {key}")]


def pages(web: WebConfig, pid: int | None) -> list[Check]:
    """Checks of /metrics, /livez and /readyz: where they are served, and with which certificate.

    Args:
        pid: our process, None when it does not run.
    """
    listens: list[Check] = [
        (key, partial(listening, key, listen, pid)) for key, listen in web.addresses
    ]
    if web.files is None:
        return listens
    return [*listens, ("web.certificate", partial(asyncio.to_thread, look_at_pages, *web.files))]


async def _accepts(address: Address) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_S_MAX):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _bind_fault(listen: Address) -> str | None:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as exc:
        return exc.strerror or type(exc).__name__
    return None


async def ticks(log: Log, trust: Trust, interval_s: float) -> str:
    """Wait for the authority's next tick and hold it against this machine's clock.

    Args:
        interval_s: how often a tick is due, seconds.

    Raises:
        DeniedError: MEMBERS_STALE, none came, or it came late; CLOCK_WENT_BACK.
        UnavailableError: NOT_READY, we may not read the topic, or there is none.
        FabricError: the topic cannot be read.
    """
    members = Members(trust)
    try:
        _, end = await log.bounds(MEMBERS, 0)
    except DeniedError as exc:
        if exc.reason is not Reason.NOT_A_CONSUMER:
            raise
        raise UnavailableError(
            Reason.NOT_READY,
            f"{MEMBERS} is missing, or closed to our certificate; the authority makes both",
        ) from exc
    wait_s = max(_TICK_S_MIN, HEARTBEATS_MISSED_MAX * interval_s + 1)
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await _fresh(log, members, end)
    now, last = datetime.now(UTC), members.from_future or members.heartbeat
    if last is None:
        raise DeniedError(Reason.MEMBERS_STALE, f"no tick of the authority in {wait_s:.0f} s")
    behind_s = (now - last).total_seconds()
    if behind_s < -CLOCK_SKEW_S_MAX:
        raise DeniedError(
            Reason.CLOCK_WENT_BACK,
            f"the authority's tick is {-behind_s:.0f} s ahead of this machine's clock",
        )
    if now - last > timedelta(seconds=HEARTBEATS_MISSED_MAX * interval_s):
        raise DeniedError(
            Reason.MEMBERS_STALE,
            f"the authority's last tick is {behind_s:.0f} s behind this machine's clock",
        )
    return f"one came, {abs(behind_s):.1f} s from this machine's clock"


async def _fresh(log: Log, members: Members, end: int) -> None:
    """Read the last ticks, and on until one comes that was not there before."""
    first, _ = await log.bounds(MEMBERS, 0)
    batches = cast(
        AsyncGenerator[Sequence[Record], None],
        log.read(MEMBERS, 0, max(first, end - _TICKS_READ)),
    )
    async with aclosing(batches):
        async for batch in batches:
            for record in batch:
                before = members.heartbeat, members.from_future
                latest = datetime.now(UTC) + timedelta(seconds=CLOCK_SKEW_S_MAX)
                with suppress(PeerError, DeniedError):  # forged, or of the future, which it keeps
                    members.feed(MEMBERS, record.key or b"", record.value or b"", latest=latest)
                if record.offset >= end and (members.heartbeat, members.from_future) != before:
                    return
