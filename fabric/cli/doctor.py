"""`fabric doctor`: check every part this host depends on; each failure with cause and remedy."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import typer
from cryptography import x509

from fabric.cli import output
from fabric.cli.access import Config, as_host, log_of, policy_of, sinks_of, svid
from fabric.cli.attest import standing
from fabric.cli.remedies import remedy_of
from fabric.config import Address, AgentConfig
from fabric.model.errors import ConfigInvalid, DeniedError, FabricError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX

Check = tuple[str, Callable[[], Awaitable[str]]]


def doctor(config: Config = None, form: output.Output = output.Form.TABLE) -> None:
    """Check everything; exit 10 when a check fails."""
    loaded = as_host(config)
    found = asyncio.run(_examine(loaded, config or Path()))
    output.rows(form, found)
    raise typer.Exit(output.OK if all(item["ok"] for item in found) else output.UNHEALTHY)


async def _examine(config: AgentConfig, path: Path) -> list[dict[str, object]]:
    found = []
    for name, check in _checks(config, path):
        try:
            seen, ok, remedy = await check(), True, ""
        except FabricError as error:
            seen, ok = str(error), False
            remedy = remedy_of(error.reason)
        found.append({"check": name, "ok": ok, "seen": seen, "remedy": remedy})
    return found


def _checks(config: AgentConfig, path: Path) -> list[Check]:
    return [
        ("package", _package),
        ("policy", lambda: _policy(config)),
        ("tpm", lambda: _tpm(config)),
        ("keys", lambda: _keys(config)),
        ("certificate", lambda: _certificate(config)),
        ("authority", lambda: _reach(config, config.authority.url.removeprefix("https://"), "a")),
        *(
            (f"gateway {address}", lambda address=address: _reach(config, address, "g"))
            for address in config.gateway.bootstrap
        ),
        ("attestation", lambda: _attestation(config)),
        *(
            (f"topic {topic}", lambda topic=str(topic): _topic(config, topic))
            for part in config.apply
            for topic in part.tables
        ),
        *(
            (f"source {part.source}", lambda part=part: _source(part.kind, part.url))
            for part in config.capture
        ),
        *([("targets", lambda: _targets(path))] if config.apply else []),
    ]


async def _package() -> str:
    version = metadata.version("agency-fabric")
    with contextlib.suppress(metadata.PackageNotFoundError):
        other = metadata.version("fabric")
        raise ConfigInvalid(
            f"the unrelated distribution fabric {other} is installed and may shadow ours;"
            " remove it: pip uninstall fabric, then reinstall agency-fabric"
        )
    return f"agency-fabric {version}"


async def _policy(config: AgentConfig) -> str:
    from fabric.policy.decide import approval_of
    from fabric.repository.client import fetch_once

    now = datetime.now(UTC)
    policy = await asyncio.to_thread(fetch_once, config.policy, config.tls.ca)
    if policy.expires <= now:
        raise DeniedError(Reason.POLICY_EXPIRED, f"version {policy.version} has expired")
    approval = approval_of(policy, config.agent.host, now)
    if approval.ak_name is None:
        raise DeniedError(
            Reason.NOT_APPROVED,
            "the approval lacks the attestation key; see fabric authority enrolments",
        )
    return f"version {policy.version}, approval {approval.number}, level {approval.security_level}"


async def _tpm(config: AgentConfig) -> str:
    from fabric.agent.attesting import read_event_log
    from fabric.attest.appraise import check_state
    from fabric.policy.decide import approval_of
    from fabric.tpm.device import TpmDevice

    approval = approval_of(policy_of(config), config.agent.host, datetime.now(UTC))
    device = TpmDevice(config.tpm.tcti)
    digest = await asyncio.to_thread(device.pcr_digest, approval.pcrs)
    log = read_event_log(config.tpm.event_log) if config.tpm.event_log else b""
    try:
        check_state(digest, approval, log)
    except DeniedError as exc:
        raise DeniedError(exc.reason, f"PCR digest {digest.hex()[:16]}: {exc.args[0]}") from exc
    return f"PCR digest {digest.hex()[:16]} is approved"


async def _keys(config: AgentConfig) -> str:
    """Where signing keys are made; a token is not shown the PIN, which would wear it out."""
    keys = config.keys
    if keys.module is None or keys.token is None or keys.pin_file is None:
        return "in the state file"
    from fabric.store.token_keys import TokenKeys

    found = await asyncio.to_thread(TokenKeys(keys.module, keys.token, keys.pin_file).probe)
    names = ", ".join(sorted(alg.name for alg in found)) or "nothing that a suite needs"
    return f"on token {keys.token}, which makes {names}"


async def _certificate(config: AgentConfig) -> str:
    certificate, _ = svid(config)
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    left = parsed.not_valid_after_utc - datetime.now(UTC)
    if left.total_seconds() <= 0:
        raise DeniedError(Reason.NOT_ATTESTED, "the certificate has expired")
    return f"{parsed.subject.rfc4514_string()}, {int(left.total_seconds())} s left"


async def _reach(config: AgentConfig, address: str, whom: str) -> str:
    from fabric.tls import client_context

    host, port = Address.parse(address)
    context = client_context(*svid(config), config.tls.ca)
    try:
        async with asyncio.timeout(REQUEST_S_MAX):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            tls = writer.get_extra_info("ssl_object")
            seen = f"{address} {tls.version() if isinstance(tls, ssl.SSLObject) else ''}".strip()
            writer.close()
    except (OSError, TimeoutError) as exc:
        authority, gateway = Reason.AUTHORITY_UNAVAILABLE, Reason.GATEWAY_UNAVAILABLE
        raise UnavailableError(
            authority if whom == "a" else gateway, f"{address}: {type(exc).__name__}"
        ) from exc
    return seen


async def _attestation(config: AgentConfig) -> str:
    fields = await standing(config)
    return f"level {fields['level']}, {fields['seconds_left']} s left"


async def _topic(config: AgentConfig, topic: str) -> str:
    async with log_of(config) as log:
        first, end = await log.bounds(topic, 0)
    return f"offsets {first} to {end}"


async def _source(kind: str, url: str) -> str:
    def connect() -> str:
        if kind == "postgresql":
            import psycopg

            try:
                with psycopg.connect(url, connect_timeout=10) as server:
                    return f"PostgreSQL {server.info.server_version // 10000}"
            except psycopg.Error as exc:
                raise UnavailableError(
                    Reason.DATABASE_UNAVAILABLE, f"cannot connect: {type(exc).__name__}"
                ) from exc
        if not Path(url.removeprefix("sqlite:///")).is_file():
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the database file is missing")
        return "SQLite file"

    return await asyncio.to_thread(connect)


async def _targets(path: Path) -> str:
    async with sinks_of(path) as sinks:
        parked = [item for _, sink in sinks for item in await sink.quarantined(None)]
        return f"{len(sinks)} targets fit their schemas, {len(parked)} changes in quarantine"
