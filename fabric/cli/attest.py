"""`fabric attest`: what the platform knows of this host, and rules for boots like one."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml

from fabric.agent.attesting import read_event_log
from fabric.agent.identity import STATE
from fabric.attest import event_log
from fabric.attest.keys import Alg, Kem, PublicKey, Use
from fabric.attest.members import Members, MemberState
from fabric.attest.messages import PCR_MAX
from fabric.attest.notices import HEARTBEAT_KEY, result_key
from fabric.attest.result import Result
from fabric.cli import output
from fabric.cli.access import Config, as_host, log_of, policy_of
from fabric.cli.noticed import noticed
from fabric.cli.topics import records
from fabric.cli.unattested import closed, explained
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid, DeniedError, Malformed, PeerError
from fabric.model.names import MEMBERS, RESULTS
from fabric.policy.event_types import EVENT_TYPES
from fabric.ports import Record
from fabric.store.sealed import read_sealed_key

app = typer.Typer(help="Attestation of this host.", no_args_is_help=True)
_STAMPED_EARLIER = timedelta(hours=1)
"""By so much may the broker's clock, which stamps a result, be behind the authority's."""


@app.command()
def show(config: Config = None, form: output.Output = output.Form.TABLE) -> None:
    """Show the host's result: level, clearance, keys, until when; exit 12 when it has none."""
    loaded = as_host(config)
    assert config is not None
    output.record(form, asyncio.run(standing(loaded, config)))


@app.command()
def rules(
    log: Annotated[Path, typer.Argument(help="firmware's event log of a good boot")],
    pcrs: Annotated[str, typer.Option(help="PCRs that the rules own")] = "0,1,2,3,4,5,6,7",
    form: output.Output = output.Form.TABLE,
) -> None:
    """Print the part of an approval that accepts exactly this boot, to be widened by hand."""
    try:
        document = approval_part(read_event_log(log), _numbers(pcrs))
    except Malformed as exc:
        raise Malformed(f"{log}: {exc.args[0]}; give binary_bios_measurements") from exc
    if form is output.Form.TABLE:
        typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
    else:
        output.line(document)


def approval_part(log: bytes, pcrs: Sequence[int]) -> dict[str, object]:
    """`pcrs`, `digests` and `event_log` of an approval for the boot that a log tells of.

    The log is taken at its word: compare the digest with the host's before anyone signs.

    Raises:
        Malformed: the log does not parse.
        DeniedError: STATE_REFUSED, the boot has what no rule can allow.
    """
    boot = event_log.parse(log)
    names = {number: name for name, number in EVENT_TYPES.items()}
    return {
        "pcrs": list(pcrs),
        "digests": [event_log.replayed(boot, pcrs).hex()],
        "event_log": [
            {
                "pcr": rule.pcr,
                "steps": [
                    {"type": names[step.type], "digests": [step.digests[0].hex()]}
                    for step in rule.steps
                ],
            }
            for rule in event_log.rules_of(boot, pcrs)
        ],
    }


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) <= PCR_MAX for number in numbers):
        raise ConfigInvalid(f"--pcrs: must be numbers from 0 to {PCR_MAX}, joined by commas")
    return sorted({int(number) for number in numbers})


async def standing(config: AgentConfig, path: Path) -> dict[str, object]:
    """The host's current result in words; raises DeniedError with why there is none.

    Args:
        path: the agent.toml, for the agent's pages: it knows best why it has none. While it
            is down, the authority's notices are asked for.
    """
    members, now = await _current(config, path), datetime.now(UTC)
    result = members.current(config.agent.host, now)
    return {
        "host": str(result.host),
        "state": "attested",
        "level": result.level,
        "clearance": str(result.clearance),
        "evidence": result.evidence,
        "approval": result.approval,
        "policy_version": result.policy_version,
        "issued": result.issued,
        "expires": result.expires,
        "seconds_left": int((result.expires - now).total_seconds()),
        "result": result.id.hex(),
        "keys": [
            f"{key.use.value} {named(key)} {key.thumbprint.hex()[:16]}" for key in result.keys
        ],
        "last_notice": members.revocation_number,
        "certificate": str(Path(config.agent.folder) / "svid.pem"),
        "sealed_states": sealed_states(config),
    }


def named(key: PublicKey) -> str:
    """A key's algorithm as docs/format.md calls it; its number where this release has no name."""
    kinds = Kem if key.use is Use.HPKE else Alg
    known = {int(kind): kind.name.replace("_", "-") for kind in kinds}
    return known.get(key.alg, str(key.alg)).replace("ED25519", "Ed25519")


async def result_of(config: AgentConfig, path: Path) -> Result:
    """The host's current result, as it was published; raises as `standing`."""
    members, host = await _current(config, path), config.agent.host
    # The view keeps heads as anchors alone, and has read no other result.
    return replace(members.current(host, datetime.now(UTC)), heads=members.carried(host))


async def _current(config: AgentConfig, path: Path) -> Members:
    """Members that know the host's current result; raises DeniedError with why there is none."""
    async with noticed(config), explained(config, path):
        members = await _read_host(config)
        members.current(config.agent.host, datetime.now(UTC))
    return members


def sealed_states(config: AgentConfig) -> int:
    """In how many approved states of the platform the state file opens; 0 when there is none.

    Raises:
        DeniedError: SEALED_STATE_LOST, it is no state file.
        UnavailableError: OVERLOADED, it cannot be read now.
    """
    sealed = read_sealed_key(Path(config.agent.folder) / STATE)
    return 0 if sealed is None else len(sealed.states)


async def read_members(config: AgentConfig) -> Members:
    """Members and results as they stand now, all of them, read from the broker and verified."""
    members = await _nothing_yet(config)
    async with log_of(config) as log:
        for topic in (RESULTS, MEMBERS):
            async with aclosing(records(log, topic)) as items:
                async for record in items:
                    _feed(members, record)
    return members


async def _read_host(config: AgentConfig) -> Members:
    """What tells how this host stands: every state and notice, and the result it is named by.

    Results of every host are kept for weeks; to verify them all takes minutes.
    """
    members = await _nothing_yet(config)
    async with log_of(config) as log:
        try:
            async with aclosing(records(log, MEMBERS)) as items:
                async for record in items:
                    if record.key != HEARTBEAT_KEY:
                        _feed(members, record)
        except DeniedError as exc:
            raise closed(exc) from exc
        state = members.hosts.get(config.agent.host)
        if state is None or state.state is not MemberState.ATTESTED:
            return members
        wanted = result_key(state.result_id)
        since = await log.offset_at(RESULTS, 0, state.since - _STAMPED_EARLIER)
        async with aclosing(records(log, RESULTS, since=since)) as items:
            async for record in items:
                if record.key == wanted:
                    _feed(members, record)
    return members


async def _nothing_yet(config: AgentConfig) -> Members:
    policy = await asyncio.to_thread(policy_of, config)
    return Members(policy.trust)


def _feed(members: Members, record: Record) -> None:
    try:
        members.feed(record.topic, record.key or b"", record.value or b"")
    except PeerError:
        return  # a forged record changes nothing; the agent counts it
