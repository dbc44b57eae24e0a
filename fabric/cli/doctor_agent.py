"""`fabric doctor`: every part that an agent depends on, also while it is down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cryptography import x509

from fabric.cli import output, parts
from fabric.cli.access import log_of, policy_of, svid
from fabric.cli.attest import standing
from fabric.cli.checks import Check, Once, run_doctor
from fabric.cli.databases import outbox, source, target
from fabric.cli.figures import problem_of
from fabric.cli.page import read_page
from fabric.cli.unattested import check_open, explained, papers
from fabric.config import AgentConfig
from fabric.locks import holder
from fabric.model.errors import ConfigInvalid, DeniedError, FabricError, Reason
from fabric.model.limits import HEARTBEAT_INTERVAL_S
from fabric.policy.types import Policy
from fabric.ports import Log
from fabric.tls import client_context


def examine(config: Path, form: output.Form) -> None:
    """Check an agent's file and everything that it names; see run_doctor."""
    run_doctor(form, config, AgentConfig.load, lambda loaded: _checks(loaded, config))


def _checks(config: AgentConfig, path: Path) -> Sequence[Check]:
    policy = Once(lambda: policy_of(config))
    held = holder(config.agent.folder / "agent.lock")
    agent = held.pid if held is not None else None
    return [
        ("package", package),
        ("process", lambda: parts.process("agent", held)),
        ("policy", lambda: _policy(config)),
        ("room", lambda: parts.room(config.agent.folder, config.policy.state)),
        ("tpm", lambda: _tpm(config, policy)),
        ("keys", lambda: _keys(config)),
        ("certificate", lambda: _certificate(config, path)),
        ("authority", lambda: _authority(config)),
        *(
            (f"gateway {address}", lambda address=address: _gateway(config, path, address))
            for address in config.gateway.bootstrap
        ),
        *(
            (f"broker {address}", lambda address=address: _broker(config, path, address))
            for address in config.broker.bootstrap
        ),
        *(
            (f"refusals {url}", lambda url=url: _refusals(config, path, url))
            for url in config.gateway.refusals
        ),
        ("attestation", lambda: _attestation(config, path)),
        ("ticks", lambda: _ticks(config, path, policy)),
        *(
            (f"topic {topic}", lambda topic=str(topic): _topic(config, path, topic))
            for part in config.apply
            for topic in part.tables
        ),
        *(
            (f"source {part.source}", lambda part=part: source(config, part, policy, agent=agent))
            for part in config.capture
        ),
        *(
            (
                f"target {number}" if len(config.apply) > 1 else "target",
                lambda part=part: target(config, part, policy, agent=agent),
            )
            for number, part in enumerate(config.apply, 1)
        ),
        *([("outbox", lambda: outbox(config, policy))] if config.outbox.topics else []),
        *parts.pages(config.web, agent),
    ]


async def package() -> str:
    """Our distribution, and that no other of the same import name shadows it."""
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

    policy, now = await parts.policy(config.policy, config.tls.ca), datetime.now(UTC)
    approval = approval_of(policy, config.agent.host, now)
    if approval.ak_name is None:
        raise DeniedError(
            Reason.NOT_APPROVED,
            "the approval lacks the attestation key; see fabric authority enrolments",
        )
    return f"version {policy.version}, approval {approval.number}, level {approval.security_level}"


async def _tpm(config: AgentConfig, policy: Once[Policy]) -> str:
    from fabric.agent.attesting import read_event_log
    from fabric.attest.appraise import check_state
    from fabric.policy.decide import approval_of
    from fabric.tpm.device import TpmDevice

    approval = approval_of(await policy.get(), config.agent.host, datetime.now(UTC))
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


async def _certificate(config: AgentConfig, path: Path) -> str:
    certificate, _ = await papers(config, path)
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    left = parsed.not_valid_after_utc - datetime.now(UTC)
    return f"{parsed.subject.rfc4514_string()}, {int(left.total_seconds())} s left"


async def _authority(config: AgentConfig) -> str:
    """As the agent asks it: with the certificate while it holds, to have one without."""
    try:
        certificate, key = svid(config)
        context = client_context(certificate, key, config.tls.ca)
    except DeniedError:
        context = client_context(None, None, config.tls.ca)
    address = parts.address_of(config.authority.url)
    return await parts.reach(address, context, Reason.AUTHORITY_UNAVAILABLE)


async def _gateway(config: AgentConfig, path: Path, address: str) -> str:
    context = client_context(*await papers(config, path), config.tls.ca)
    return await parts.reach(address, context, Reason.GATEWAY_UNAVAILABLE)


async def _refusals(config: AgentConfig, path: Path, url: str) -> str:
    """Where the gateway says why it refused a record: the same certificate, another port."""
    return await _gateway(config, path, parts.address_of(url))


async def _broker(config: AgentConfig, path: Path, address: str) -> str:
    context = client_context(*await papers(config, path), config.tls.ca)
    return await parts.broker(address, context)


async def _attestation(config: AgentConfig, path: Path) -> str:
    fields = await standing(config, path)
    return f"level {fields['level']}, {fields['seconds_left']} s left"


async def _ticks(config: AgentConfig, path: Path, policy: Once[Policy]) -> str:
    trust = (await policy.get()).trust
    async with _log_of(config, path) as log:
        await check_open(log)
        return await parts.ticks(log, trust, HEARTBEAT_INTERVAL_S)


async def _topic(config: AgentConfig, path: Path, topic: str) -> str:
    async with _log_of(config, path) as log:
        try:
            first, end = await log.bounds(topic, 0)
        except DeniedError:
            await check_open(log)
            raise
    await _check_streams(config, path, topic)
    return f"offsets {first} to {end}"


async def _check_streams(config: AgentConfig, path: Path, topic: str) -> None:
    """Raise what the running agent says of a stream of this topic that has stopped."""
    try:
        page = await read_page(config, path)
    except FabricError:
        return  # it is down, as the check of the process says
    for part, wrong in page.parts.items():
        if wrong and part.startswith("stream ") and f"@{topic}:" in part:
            reason = Reason(problem_of(part, wrong).reason)
            raise DeniedError(reason, f"{part}: {wrong.partition(': ')[2]}")


@contextlib.asynccontextmanager
async def _log_of(config: AgentConfig, path: Path) -> AsyncIterator[Log]:
    """The platform's log; what is denied because this host is not attested says why it is not."""
    async with explained(config, path), log_of(config) as log:
        yield log
