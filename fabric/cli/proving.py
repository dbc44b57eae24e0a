"""`fabric audit prove`: everything the log proves of one row change."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from fabric.admit.proof import (
    Acknowledged,
    Proof,
    Unproved,
    prove_block,
    prove_grants,
    prove_receipt,
    prove_start,
)
from fabric.admit.view import Place, View
from fabric.cli import output
from fabric.cli.access import Config, as_host, log_of, named, policy_of
from fabric.cli.anchored import anchored
from fabric.cli.attest import read_members
from fabric.cli.finding import find
from fabric.cli.topics import held_record, read_all
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import RECEIPTS, Topic, grants_topic
from fabric.policy import decide
from fabric.policy.types import Policy
from fabric.ports import Log, Record

Where = Annotated[str, typer.Argument(help="topic:partition:offset, or a topic with --key")]
Key = Annotated[
    str, typer.Option("--key", help="the row's key as JSON; this host opens blocks to find it")
]
Within = Annotated[
    int, typer.Option("--within", min=1, help="look for receipts so many seconds after the block")
]
_WITHIN_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    record: Record
    change: Mapping[str, object]


def prove(
    where: Where,
    config: Config = None,
    *,
    key: Key = "",
    within: Within = _WITHIN_S,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Show who sealed a change, under which approval and policy, and who has it.

    Everything is verified from the log. Exit 1 names the first thing that does not hold.
    """
    host = as_host(config)
    try:
        said = asyncio.run(_prove(host, where, key, timedelta(seconds=within)))
    except Unproved as broken:
        if form is output.Form.TABLE:
            typer.echo(f"fabric: {broken}", err=True)
        else:
            why = {"step": broken.step, "reason": broken.reason.value, "why": broken.args[0]}
            output.record(form, {"holds": False, **why})
        raise typer.Exit(output.ERROR) from None
    if form is not output.Form.TABLE:
        output.record(form, said)
        return
    _show(said)


async def _prove(host: AgentConfig, where: str, key: str, within: timedelta) -> dict[str, object]:
    view = View(await asyncio.to_thread(policy_of, host), await read_members(host))
    async with log_of(host) as log:
        found = await _locate(host, log, view, where, key)
        record = found.record
        place = Place(record.topic, record.partition)
        verified = prove_block(record.value or b"", place, view, appended=record.timestamp)
        anchor = await anchored(log, view, record, verified, now=datetime.now(UTC))
        topic = verified.envelope.header.topic
        starts = await read_all(log, grants_topic(topic))
        pairs = [(r.key or b"", r.value or b"") for r in starts]
        start = prove_start(verified, pairs, view)
        granted = prove_grants(start, pairs, view)
        receipts: list[Acknowledged] = []
        async for item in _receipts(log, record.timestamp, within):
            word = prove_receipt(
                item.key or b"",
                item.value or b"",
                verified,
                view,
                offset=item.offset,
                stored=item.timestamp,
            )
            if word is not None and word.reader not in {r.reader for r in receipts}:
                receipts.append(word)
    proof = Proof(verified=verified, start=start, granted=granted, receipts=tuple(receipts))
    said = described(proof, record, view.policy)
    return {"holds": True, **found.change, **said, "existed": anchor}


async def _locate(host: AgentConfig, log: Log, view: View, where: str, key: str) -> _Found:
    if key:
        record, change = await find(host, log, view, named("WHERE", Topic.parse, where), key)
        return _Found(record=record, change=change)
    parts = where.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        raise ConfigInvalid(f"{where} is not topic:partition:offset; or name a row with --key")
    record = await held_record(log, parts[0], int(parts[1]), int(parts[2]))
    return _Found(record=record, change={})


async def _receipts(log: Log, stored: datetime, within: timedelta) -> AsyncIterator[Record]:
    skew = timedelta(seconds=CLOCK_SKEW_S_MAX)
    since = await log.offset_at(RECEIPTS, 0, stored - skew)
    for record in await read_all(log, RECEIPTS, since=since, until=stored + within):
        yield record


def described(proof: Proof, record: Record, policy: Policy) -> dict[str, object]:
    """A proof in words, for `-o json` and for people."""
    header, result = proof.verified.envelope.header, proof.verified.result
    return {
        "block": {
            "place": f"{record.topic}:{record.partition}:{record.offset}",
            "envelope": proof.verified.envelope.hash.hex(),
            "origin": str(header.origin),
            "epoch": header.epoch_number,
            "counter": header.counter,
            "after": list(header.after),
            "upto": list(header.upto),
            "changes": header.count,
            "sealed_at": header.sealed_at,
            "stored_at": record.timestamp,
        },
        "sealed_by": {
            "host": str(result.host),
            "agency": policy.agencies.get(result.host.agency, result.host.agency),
            "suite": header.suite,
        },
        "attested": {
            "result": result.id.hex(),
            "approval": result.approval,
            "host_level": result.level,
            "clearance": str(result.clearance),
            "evidence": result.evidence,
            "quote_sha256": result.quote_digest.hex(),
            "issued": result.issued,
            "expires": result.expires,
        },
        "allowed_by": _allowed(policy, str(header.topic), header.policy_version),
        "granted_to": [str(host) for host in proof.granted],
        "acknowledged_by": [_acknowledged(item) for item in proof.receipts],
    }


def _allowed(policy: Policy, topic: str, version: int) -> dict[str, object]:
    dataset = decide.dataset_of(policy, topic)
    rule = decide.rule_of(policy, dataset)
    return {
        "policy_version": version,
        "checked_with_version": policy.version,
        "label": str(dataset.label),
        "rule": f"level {rule.name}: sealed with {', '.join(rule.suites)};"
        f" host level at least {rule.host_level_min}; evidence {', '.join(sorted(rule.evidence))}",
        "citation": rule.citation,
        "producers": [str(origin) for origin in dataset.producers],
        "consumers": list(dataset.consumers),
        "legal_basis": dataset.legal_basis,
    }


def _acknowledged(item: Acknowledged) -> dict[str, object]:
    return {
        "host": str(item.reader),
        "applied": item.receipt.applied,
        "names_the_envelope": item.by_hash,
        "upto": list(item.receipt.upto),
        "result": item.receipt.result_id.hex(),
        "receipt": f"{RECEIPTS}:0:{item.offset}",
    }


def _show(said: Mapping[str, object]) -> None:
    for name, value in said.items():
        if isinstance(value, Mapping):
            typer.echo(name.replace("_", " "))
            output.record(output.Form.TABLE, {f"  {k}": v for k, v in value.items()})
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            typer.echo(name.replace("_", " "))
            output.rows(output.Form.TABLE, value)
        elif name != "holds":
            shown = json.dumps(value) if not isinstance(value, str) else value
            typer.echo(f"{name.replace('_', ' ')}  {shown or 'nobody yet'}")
