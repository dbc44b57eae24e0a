"""`fabric status` and `fabric lag`: how a running agent fares, in a terminal or for a program."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fabric.cli import output
from fabric.cli.access import Config, as_host, policy_of
from fabric.cli.figures import (
    HEALTHY,
    Lag,
    Problem,
    Row,
    State,
    Way,
    flows,
    lags_of,
    problem_of,
    problems,
    row_of,
)
from fabric.cli.measuring import AGE_MAX, Measured
from fabric.cli.page import read_page
from fabric.cli.samples import Page, Samples
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid, FabricError, PeerError, UnavailableError
from fabric.policy.types import Policy

_EVERY_S = 1.0
_WIDTH = 200
_COLUMNS = ("dataset", "", "peer", "form", "rows", "lag", "lag s", "last change", "state")
_NUMBERS = frozenset({"rows", "lag", "lag s"})
_STYLES = {**dict.fromkeys(HEALTHY, "green"), State.STARTING: "yellow"}


class Sort(StrEnum):
    """By what `fabric lag` puts the worst first."""

    SECONDS = "seconds"
    RECORDS = "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at an agent; `page` is None when it did not answer."""

    host: str
    at: datetime
    page: Page | None
    rows: Sequence[Row]
    problems: Sequence[Problem]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return self.page is not None and not self.problems


def status(
    config: Config = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="again every second")] = False,
    exit_when_healthy: Annotated[
        bool, typer.Option("--exit-when-healthy", help="wait until nothing is wrong, then exit 0")
    ] = False,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Show how the running agent fares: every dataset, and what is wrong. 10 when unhealthy."""
    loaded, path = as_host(config), _named(config)
    is_terminal = sys.stdout.isatty()
    if watch and form is not output.Form.JSONL and not (is_terminal and form is output.Form.TABLE):
        raise ConfigInvalid("--watch fills a terminal or prints lines; add -o jsonl")
    if watch:
        last = asyncio.run(_watch(loaded, path, form, until_healthy=exit_when_healthy))
    elif exit_when_healthy:
        last = asyncio.run(_wait(loaded, path))
        _print(last, form)
    else:
        last = asyncio.run(look(loaded, path))
        _print(last, form)
    raise typer.Exit(output.OK if last.is_healthy else output.UNHEALTHY)


def lag(
    topics: Annotated[
        list[str] | None, typer.Argument(metavar="TOPIC", help="these alone; else every dataset")
    ] = None,
    config: Config = None,
    *,
    sort: Annotated[Sort, typer.Option("--sort", help="worst first, by this")] = Sort.SECONDS,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Show how far each dataset is behind, worst first. 10 when one of them is unhealthy."""
    loaded, path = as_host(config), _named(config)
    page = asyncio.run(read_page(loaded, path))
    rows = rows_of(loaded, path, page)
    known = sorted({str(row.flow.topic) for row in rows})
    if missing := [topic for topic in topics or () if topic not in known]:
        has = ", ".join(known) or "none"
        raise ConfigInvalid(f"{missing[0]} is no dataset of {path}; it has: {has}")
    chosen = [row for row in rows if not topics or str(row.flow.topic) in topics]
    found = [item for row in chosen for item in lags_of(row, page)]
    found.sort(key=lambda item: _worst(item, sort), reverse=True)
    said = [_lag_fields(item) for item in found]
    if form is output.Form.TABLE:
        said = [
            {**fields, "measured": _ago(item.lag, page.at)}
            for fields, item in zip(said, found, strict=True)
        ]
    output.rows(form, said, empty="agent.toml names no dataset")
    _say([problem for row in chosen for problem in row.problems])
    is_well = all(row.state in HEALTHY for row in chosen)
    raise typer.Exit(output.OK if is_well else output.UNHEALTHY)


# Looking


def rows_of(config: AgentConfig, path: Path, page: Page) -> list[Row]:
    """Every dataset's figures; a policy that does not load takes nothing but names away."""
    return [row_of(flow, page, str(path)) for flow in flows(config, _policy(config))]


def _policy(config: AgentConfig) -> Policy | None:
    try:
        return policy_of(config)
    except FabricError:
        return None  # the agent says so itself, under its part "policy"


async def look(config: AgentConfig, path: Path) -> Look:
    """Look once; raises as read_page."""
    page, now = await read_page(config, path), datetime.now(UTC)
    rows = await asyncio.to_thread(rows_of, config, path, page)
    found = problems(page, rows, now)
    return Look(host=str(config.agent.host), at=now, page=page, rows=rows, problems=found)


async def _try_look(config: AgentConfig, path: Path) -> Look:
    """Look once; an agent that does not answer is seen as such."""
    try:
        return await look(config, path)
    except (UnavailableError, PeerError) as exc:
        silent = problem_of("agent", str(exc))
        now = datetime.now(UTC)
        return Look(host=str(config.agent.host), at=now, page=None, rows=(), problems=[silent])


async def _wait(config: AgentConfig, path: Path) -> Look:
    while True:
        seen = await _try_look(config, path)
        if seen.is_healthy:
            return seen
        await asyncio.sleep(_EVERY_S)


async def _watch(
    config: AgentConfig, path: Path, form: output.Form, *, until_healthy: bool
) -> Look:
    """Show the agent every second, until it is healthy or the user has seen enough."""
    is_table = form is output.Form.TABLE
    console = Console()
    shown = Live(console=console, auto_refresh=False, screen=False) if is_table else None
    with shown or contextlib.nullcontext():
        while True:
            seen = await _try_look(config, path)
            if shown is None:
                output.line(_document(seen))
            else:
                shown.update(_picture(seen), refresh=True)
            if until_healthy and seen.is_healthy:
                return seen
            await asyncio.sleep(_EVERY_S)


# For programs


def _document(seen: Look) -> dict[str, object]:
    samples = seen.page.samples if seen.page else Samples({})
    expires = samples.time("attestation_expiry_timestamp_seconds")
    version = samples.value("policy_version")
    notice = samples.value("revocation_list_number")
    return {
        "host": seen.host,
        "at": seen.at,
        "healthy": seen.is_healthy,
        "answers": seen.page is not None,
        "attested_until": expires,
        "policy_version": None if version is None else int(version),
        "policy_expires": samples.time("policy_expiry_timestamp_seconds"),
        "last_notice": None if notice is None else int(notice),
        "datasets": [_fields(row) for row in seen.rows],
        "problems": [asdict(problem) for problem in seen.problems],
    }


def _fields(row: Row) -> dict[str, object]:
    flow = row.flow
    return {
        "dataset": str(flow.topic),
        "way": flow.way.value,
        "table": flow.table,
        "source": flow.source,
        "peers": list(flow.peers),
        "sealed": flow.sealed,
        "suite": flow.suite,
        "state": row.state.value,
        "rows": row.rows,
        "lag_records": row.lag.records,
        "lag_seconds": row.lag.seconds,
        "lag_bytes": row.lag.log_bytes,
        "measured": row.lag.at,
        "last_change": row.last_change,
        "wrong": [problem.wrong for problem in row.problems],
        "remedy": [problem.remedy for problem in row.problems],
    }


def _lag_fields(item: Lag) -> dict[str, object]:
    row = item.row
    return {
        "dataset": str(row.flow.topic),
        "way": row.flow.way.value,
        "partition": item.partition,
        "records": item.lag.records,
        "seconds": None if item.lag.seconds is None else round(item.lag.seconds, 3),
        "bytes": item.lag.log_bytes,
        "measured": item.lag.at,
        "last_change": row.last_change,
        "state": row.state.value,
    }


def _worst(item: Lag, sort: Sort) -> tuple[bool, float]:
    """What nobody knows is worse than any figure: it may be anything."""
    value = item.lag.seconds if sort is Sort.SECONDS else item.lag.records
    return not item.lag.is_known, -1.0 if value is None else float(value)


# For people


def _print(seen: Look, form: output.Form) -> None:
    if form is not output.Form.TABLE:
        output.record(form, _document(seen))
        return
    width = None if sys.stdout.isatty() else _WIDTH
    Console(width=width, highlight=False).print(_picture(seen))


def _picture(seen: Look) -> Group:
    """Host, datasets, then what is wrong and what to do."""
    lines = [_headline(seen), Text()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        justify: Literal["right", "left"] = "right" if column in _NUMBERS else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in seen.rows:
        table.add_row(*_cells(row, seen.at))
    wrong = [_trouble(problem) for problem in seen.problems]
    return Group(*lines, *([table] if seen.rows else []), *([Text(), *wrong] if wrong else []))


def _headline(seen: Look) -> Text:
    text = Text(seen.host, style="bold")
    text.append("  healthy" if seen.is_healthy else "  unhealthy", _colour(seen.is_healthy))
    if seen.page is None:
        return text.append("  does not answer")
    samples = seen.page.samples
    expires = samples.time("attestation_expiry_timestamp_seconds")
    left = "not attested"
    if expires is not None:
        lives = expires > seen.at
        left = f"attested for {_span(expires - seen.at)} more" if lives else "attestation ended"
    version = samples.value("policy_version") or 0
    text.append(f"  {left}  policy {version:.0f}  {seen.at:%H:%M:%S} UTC", "not bold")
    return text


def _cells(row: Row, now: datetime) -> list[Text]:
    flow = row.flow
    arrow = "sends to" if flow.way is Way.SENDS else "applies from"
    form = "-" if flow.sealed is None else f"sealed {flow.suite}" if flow.sealed else "open"
    cells = [
        str(flow.topic),
        arrow,
        ", ".join(flow.peers) or "-",
        form,
        f"{row.rows:,}",
        "-" if row.lag.records is None else f"{row.lag.records:,}",
        "-" if row.lag.seconds is None else f"{row.lag.seconds:.1f}",
        "-" if row.last_change is None else f"{_span(now - row.last_change)} ago",
    ]
    style = _STYLES.get(row.state, "red")
    return [*map(Text, cells), Text(row.state.value, style=style)]


def _trouble(problem: Problem) -> Text:
    text = Text(f"{problem.part}: ", style="bold")
    text.append(problem.wrong, "red not bold")
    return text.append(f"\n  do: {problem.remedy}", "not bold")


def _say(found: Sequence[Problem]) -> None:
    """Problems beside a listing: to standard error, so that a program reads the listing alone."""
    for problem in dict.fromkeys(found):
        typer.echo(f"{problem.part}: {problem.wrong}\n  do: {problem.remedy}", err=True)


def _ago(lag: Measured, now: datetime) -> str:
    if lag.at is None:
        return "never"
    if lag.at > now and not lag.is_known:
        return "ahead of the clock"
    span = _span(now - lag.at)
    is_fresh = lag.is_known or now - lag.at <= AGE_MAX
    return f"{span} ago" if is_fresh else f"not for {span}"


def _colour(is_well: bool) -> str:
    return "green" if is_well else "red"


def _span(length: timedelta) -> str:
    """A duration in its two largest units that matter to a person."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _named(config: Path | None) -> Path:
    """The file behind --config; `as_host` has refused its absence."""
    return config or Path()
