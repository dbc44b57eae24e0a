"""`fabric authority doctor`: every part that the authority depends on, also while it is down."""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509

from fabric.attest.keys import Alg
from fabric.authority import admin, ledger, run
from fabric.authority.ledger_file import AUDIT_FILE, LEDGER
from fabric.authority.topics import specs
from fabric.cli import certificates, output, parts
from fabric.cli.access import policy_of
from fabric.cli.checks import Check, Once, run_doctor
from fabric.cli.doctor_agent import package
from fabric.cli.figures import problem_of
from fabric.cli.page import read_parts
from fabric.config import AuthorityConfig, Credential, ServerTls
from fabric.database.finding import Finding, ill, well
from fabric.locks import holder
from fabric.model.errors import ConfigInvalid, DeniedError, Reason
from fabric.model.names import AUTHORITY
from fabric.policy.types import Policy
from fabric.repository.published import read_published
from fabric.repository.timestamp import check_key
from fabric.tls import client_context

_SIGNATURES_LEFT_MIN = timedelta(days=7)
"""People need days to sign; the alert PolicySignaturesExpiring comes three weeks earlier."""
_NAMED_MAX = 3


def examine(config: Path, form: output.Form) -> None:
    """Check the authority's file and everything that it names; see run_doctor."""
    run_doctor(form, config, AuthorityConfig.load, _checks)


def _checks(config: AuthorityConfig) -> Sequence[Check]:
    policy = Once(lambda: policy_of(config))
    held = holder(config.authority.folder / AUDIT_FILE)
    pid = held.pid if held is not None else None
    listen = config.authority.listen
    return [
        ("package", package),
        ("process", lambda: parts.process("authority", held)),
        ("certificate", lambda: _certificate(config, config.tls, AUTHORITY)),
        ("certificate of admin", lambda: _certificate(config, config.admin, "admin")),
        ("verifier keys", lambda: _verifier_keys(config, policy)),
        ("issuing CA", lambda: _issuing_ca(config)),
        ("policy", lambda: _policy(config)),
        ("timestamp key", lambda: _timestamp_key(config)),
        ("ledger", lambda: _ledger(config, pid)),
        ("room", lambda: parts.room(config.authority.folder, config.policy.state)),
        *(
            (f"gateway {address}", lambda address=address: _gateway(config, address))
            for address in config.gateway.bootstrap
        ),
        *(
            (f"broker {address}", lambda address=address: _broker(config, address))
            for address in config.broker.bootstrap
        ),
        ("topics", lambda: _topics(config, policy)),
        ("ticks", lambda: _ticks(config, policy)),
        ("authority.listen", partial(parts.listening, "authority.listen", listen, pid)),
        *parts.pages(config.web, pid),
        *([("https", lambda: _https(config))] if pid is not None else []),
    ]


async def _certificate(config: AuthorityConfig, part: Credential | ServerTls, name: str) -> str:
    return await asyncio.to_thread(
        certificates.look, part.certificate, part.key, config.tls.ca, common_name=name
    )


async def _verifier_keys(config: AuthorityConfig, policy: Once[Policy]) -> str:
    signers = await asyncio.to_thread(run.verifier_keys, config)
    run.check_keys(await policy.get(), signers)
    return f"{' and '.join(Alg(key.public.alg).name for key in signers)}, as the policy names them"


async def _issuing_ca(config: AuthorityConfig) -> str:
    ca = await asyncio.to_thread(run.issuing_ca, config)
    certificate = x509.load_pem_x509_certificate(ca.cert_pem)
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta(0):
        raise ConfigInvalid("authority.issuing_certificate has ended; make a new CA and trust it")
    trusted = x509.load_pem_x509_certificates(config.tls.ca.read_bytes())
    if certificate not in trusted:
        raise ConfigInvalid(
            "authority.issuing_certificate is not in tls.ca: nobody would take a host's"
            " certificate; add it to the CAs of every part and broker"
        )
    return f"{certificate.subject.rfc4514_string()}, {left.days} days left"


async def _policy(config: AuthorityConfig) -> Sequence[Finding]:
    try:
        policy = await parts.policy(config.policy, config.tls.ca)
    except DeniedError as exc:
        return [ill("", exc.reason, str(exc.args[0]), _lapsed(config))]
    return [of_policy(policy, datetime.now(UTC))]


def _lapsed(config: AuthorityConfig) -> str:
    if config.authority.timestamp_key is None:
        return (
            "have the ended roles signed anew: fabric policy show WORK; then fabric policy publish"
        )
    return (
        "start the authority, which signs the timestamp anew; when another role has ended: fabric"
        " policy sign WORK --key K --renew, then fabric policy publish"
    )


def of_policy(policy: Policy, now: datetime) -> Finding:
    """How long a policy still holds: its end, and that of the first person's signature."""
    until = policy.renew_by
    if until is not None and until - now < _SIGNATURES_LEFT_MIN:
        return ill(
            "",
            Reason.POLICY_EXPIRED,
            f"a person's signature ends {until:%Y-%m-%d %H:%M} UTC",
            "fabric policy show WORK says whose; let them run: fabric policy sign WORK --key K"
            " --renew; then fabric policy publish",
        )
    signed = "" if until is None else f", signatures until {until:%Y-%m-%d}"
    return well("", f"version {policy.version}, ends {policy.expires:%Y-%m-%d %H:%M} UTC{signed}")


async def _timestamp_key(config: AuthorityConfig) -> str:
    renewal = run.renewal_of(config)
    if renewal is None:
        return "none here: somebody else keeps the policy's timestamp fresh"
    await asyncio.to_thread(lambda: check_key(read_published(renewal.folder), renewal.signer))
    return f"the repository's; signs for {renewal.valid_s / 3600:.0f} h"


async def _ledger(config: AuthorityConfig, pid: int | None) -> str | Sequence[Finding]:
    path = config.authority.folder / LEDGER
    if pid is not None:
        return await _told_ledger(config)
    is_there = path.exists()
    if is_there and path.stat().st_size:
        hosts, last = await asyncio.to_thread(ledger.look, path)
        return f"{hosts} hosts, last notice {last}"
    if (config.authority.folder / AUDIT_FILE).exists():
        seen = f"{path} is {'empty' if is_there else 'gone'}, and the authority has run here"
        remedy = "restore it from its backup before the authority starts: enrolments are in it"
        return [ill("", Reason.DATABASE_UNAVAILABLE, seen, remedy)]
    return "not there yet; the authority makes it when it starts"


async def _told_ledger(config: AuthorityConfig) -> str | Sequence[Finding]:
    """A ledger whose file is held, as the process that holds it says."""
    told = await read_parts(config.web)
    if told is None or "ledger" not in told:
        return "the running authority has it open; its /readyz says more"
    wrong = told["ledger"]
    if wrong is None:
        return "the running authority has it open, and no write fails"
    return [ill("", Reason(problem_of("ledger", wrong).reason), wrong.partition(": ")[2])]


async def _gateway(config: AuthorityConfig, address: str) -> str:
    return await parts.reach(address, _context(config, config.tls), Reason.GATEWAY_UNAVAILABLE)


async def _broker(config: AuthorityConfig, address: str) -> str:
    await parts.broker(address, _context(config, config.admin))
    return await parts.broker(address, _context(config, config.tls))


async def _topics(config: AuthorityConfig, policy: Once[Policy]) -> Sequence[Finding]:
    """Every topic of the policy with its partitions and settings, as the administrator sees it."""
    # The administrator's client waits long for a broker that is away.
    await parts.some_broker(config.broker.bootstrap, _context(config, config.admin))
    wanted = specs(await policy.get(), config.authority.replication_factor)
    drift = await run.admin_of(config).drift(wanted)
    if not drift:
        return [well("", f"{len(wanted)} topics are as the policy has them")]
    more = len(drift) - _NAMED_MAX
    seen = "; ".join(drift[:_NAMED_MAX]) + (f"; and {more} more" if more > 0 else "")
    remedy = "start the authority: it makes topics and puts them right within a minute"
    return [ill("", Reason.TOPIC_DRIFT, seen, remedy)]


async def _ticks(config: AuthorityConfig, policy: Once[Policy]) -> str:
    trust, log = (await policy.get()).trust, run.log_of(config)
    try:
        return await parts.ticks(log, trust, config.authority.heartbeat_interval_s)
    finally:
        await log.close()


async def _https(config: AuthorityConfig) -> str:
    hosts = await admin.list_hosts(config)
    return f"answers its administrator, {len(hosts)} hosts"


def _context(config: AuthorityConfig, part: Credential | ServerTls) -> ssl.SSLContext:
    return client_context(part.certificate, part.key, config.tls.ca)
