"""`fabric audit verify` and `fabric audit heads`: whether a log is the one that was written."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from fabric.attest.audit_chain import ChainBroken, Walk, read_line
from fabric.attest.audit_head import Head, parse_head, verify_head
from fabric.attest.members import Members
from fabric.cli import output
from fabric.cli.access import Config, as_host, log_of, policy_of
from fabric.cli.proving import prove
from fabric.cli.topics import read_all
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid, FabricError, Malformed, PeerError
from fabric.model.limits import AUDIT_LINE_BYTES_MAX
from fabric.model.names import AUDIT, RESULTS
from fabric.ports import Record
from fabric.store.audit import rotated

app = typer.Typer(help="Audit logs, their signed heads, and proofs.", no_args_is_help=True)
app.command("prove")(prove)

Files = Annotated[
    list[Path], typer.Argument(help="audit.jsonl, or files in order", exists=True, dir_okay=False)
]
Heads = Annotated[
    str, typer.Option("--heads", help="`broker`, or a file that `fabric audit heads` wrote")
]
Part = Annotated[bool, typer.Option("--part", help="the files need not hold the log's beginning")]
_BROKER = "broker"
_NO_LOG = "name a process's audit.jsonl; if this is one, it was changed: keep it as evidence"


@dataclass(frozen=True, slots=True)
class _Signed:
    """Verified heads, and how many records were none."""

    heads: list[Head] = field(default_factory=list)
    refused: int = 0


@app.command()
def verify(
    files: Files,
    heads: Heads = "",
    config: Config = None,
    *,
    part: Part = False,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Check an audit log line by line, and against signed heads; exit 1 names the first wrong line.

    With one file, older files of the same log beside it are read first.
    """
    paths = [*rotated(files[0]), files[0]] if len(files) == 1 else files
    signed = _load(heads, config) if heads else _Signed()
    place = _Place(paths)
    try:
        found = _walk(place, signed, whole=not part, demanded=bool(heads))
    except ChainBroken as broken:
        path, line = place.of(broken.line)
        if form is output.Form.TABLE:
            typer.echo(f"fabric: {path}: line {line} {broken.why}", err=True)
        else:
            fields = {"holds": False, "file": str(path), "line": line, "why": broken.why}
            output.record(form, fields)
        raise typer.Exit(output.ERROR) from None
    output.record(form, {"holds": True, **found, "heads_refused": signed.refused})


@app.command("heads")
def heads_(config: Config = None, form: output.Output = output.Form.JSONL) -> None:
    """Write every signed head and the results behind them, for `verify --heads FILE`.

    Always as JSON Lines, whatever -o says.
    """
    del form  # one form only: lines that verify reads
    for record in asyncio.run(_fetch(as_host(config))):
        value, key = record.value or b"", record.key or b""
        output.line({"topic": record.topic, "key": _text(key), "value": _text(value)})


class _Place:
    """Counts lines of files, so that a line of all of them is a line of one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._begun: list[tuple[Path, int]] = []
        self._seen = 0

    def lines(self) -> Iterator[bytes]:
        """Lines without their line feed; raises ChainBroken for a torn or endless one."""
        for path in self.paths:
            self._begun.append((path, self._seen))
            with path.open("rb") as file:
                while line := file.readline(AUDIT_LINE_BYTES_MAX + 2):
                    self._seen += 1
                    if not line.endswith(b"\n"):
                        raise ChainBroken(self._seen, "is torn or too long")
                    yield line[:-1]

    def of(self, line: int) -> tuple[Path, int]:
        """File and line in it."""
        found = [(path, line - before) for path, before in self._begun if before < line]
        return found[-1] if found else (self.paths[0], line)


def _walk(place: _Place, signed: _Signed, *, whole: bool, demanded: bool) -> dict[str, object]:
    lines = place.lines()
    first = next(lines, None)
    if first is None:
        raise ChainBroken(1, "is missing: the log is empty")
    walk = Walk(_heads_of(first, signed, demanded=demanded), whole=whole)
    walk.take(first)
    for data in lines:
        walk.take(data)
    walk.end()
    assert walk.last is not None
    return {
        "log": walk.last.log.hex(),
        "files": len(place.paths),
        "lines": walk.lines,
        "first": walk.first,
        "last": walk.last.number,
        "hash": walk.last.hash.hex(),
        "signed_up_to": walk.anchored,
        "not_signed_yet": walk.last.number - max(walk.anchored, walk.first - 1),
    }


def _heads_of(first: bytes, signed: _Signed, *, demanded: bool) -> dict[int, bytes]:
    try:
        log = read_line(first).log
    except Malformed as exc:
        raise ChainBroken(1, f"{exc.args[0]}; {_NO_LOG}") from exc
    found: dict[int, bytes] = {}
    for head in signed.heads:
        if head.link.log != log:
            continue
        if found.setdefault(head.link.number, head.link.hash) != head.link.hash:
            raise ChainBroken(1, f"begins a log with two signed heads for {head.link.number}")
    if demanded and not found:
        raise ChainBroken(1, f"begins log {log.hex()}, of which there is no signed head")
    return found


def _load(heads: str, config: Path | None) -> _Signed:
    host = as_host(config)
    if heads == _BROKER:
        return _verified(asyncio.run(_pairs(host)), host)
    path = Path(heads)
    try:
        with path.open("rb") as file:
            return _verified([_pair(line) for line in file], host)
    except OSError as exc:
        raise ConfigInvalid(f"{path}: heads cannot be read ({exc.strerror})") from exc


def _verified(records: Sequence[tuple[str, bytes, bytes]], host: AgentConfig) -> _Signed:
    trust = policy_of(host).trust
    members = Members(trust)
    heads: list[Head] = []
    refused = 0
    for topic, key, value in records:
        if topic == RESULTS:
            _feed(members, key, value)
    for topic, key, value in records:
        if topic != AUDIT:
            continue
        try:
            heads.append(verify_head(parse_head(key, value), trust, members.result))
        except FabricError:
            refused += 1  # whoever can write a bad head can write many: they prove nothing
    return _Signed(heads, refused)


def _feed(members: Members, key: bytes, value: bytes) -> None:
    try:
        members.feed(RESULTS, key, value)
    except PeerError:
        return  # forged: its heads will be refused


async def _fetch(host: AgentConfig) -> list[Record]:
    async with log_of(host) as log:
        return [record for topic in (RESULTS, AUDIT) for record in await read_all(log, topic)]


async def _pairs(host: AgentConfig) -> list[tuple[str, bytes, bytes]]:
    return [(r.topic, r.key or b"", r.value or b"") for r in await _fetch(host)]


def _pair(line: bytes) -> tuple[str, bytes, bytes]:
    try:
        found = json.loads(line)
        key, value = (base64.b64decode(found[name], validate=True) for name in ("key", "value"))
        return str(found["topic"]), key, value
    except (ValueError, KeyError, TypeError) as exc:
        raise Malformed("heads file does not hold what fabric audit heads writes") from exc


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
