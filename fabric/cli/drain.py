"""`fabric agent drain`: wait until everything that a host has sent is carried by a result.

Drained means: no snapshot runs, the platform has acknowledged every change that was committed
at the sources when the drain began, and published results carry the last block of each stream.
Once its approval is withdrawn no result of the host is published any more, so what no
result carries until then strands every reader that has not read it. The agent goes on
meanwhile: nothing is changed here, it is only watched.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import typer

from fabric.agent.identity import STATE
from fabric.attest.result import Result
from fabric.cli.attest import result_of
from fabric.cli.figures import Row, State, Way, problem_of
from fabric.cli.page import read_page
from fabric.cli.status import rows_of
from fabric.config import AgentConfig
from fabric.model.errors import FabricError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.store.sealed import read_heads

LOOK_S = 1.0
AGAIN = timedelta(seconds=1)
"""Between two measurements of a lag that both say that nothing waits."""
Heads: TypeAlias = Mapping[str, bytes]
"""Hash of the last acknowledged envelope, by stream."""


@dataclass(slots=True, kw_only=True)
class Drain:
    """What was seen since the last time that something waited.

    A head that is seen once nothing waits leads back to every change of its stream; a result
    that carries it, or a later one that was seen, carries them all.

    Attributes:
        since: a lag that was measured before tells nothing of now.
        ends: of the sources' logs, as they were when each was measured first.
        quiet: when the last source was measured as nothing waited for the first time.
    """

    since: datetime
    ends: dict[str, int] = field(default_factory=dict)
    quiet: datetime | None = None
    seen: dict[str, set[bytes]] = field(default_factory=dict)
    carried: set[str] = field(default_factory=set)

    def look(self, rows: Sequence[Row], heads: Heads, result: Result | None) -> list[str]:
        """Take one look; what is still waited for, nothing once the host is drained.

        Args:
            rows: what the agent says of every dataset.
            result: the newest that is published, None when it is not known.
        """
        sends = [row for row in rows if row.flow.way is Way.SENDS]
        busy = [why for row in sends if (why := self._why_busy(row))]
        if busy:
            self.quiet = None
            self.seen.clear()
            self.carried.clear()
            return busy
        if fresh := self._measured_once(sends):
            return fresh
        for stream, digest in heads.items():
            self.seen.setdefault(stream, set()).add(digest)
        if result is not None:
            told = frozenset(result.heads)
            self.carried |= {stream for stream, has in self.seen.items() if has & told}
        return [
            f"{stream}: no result carries its last block yet"
            for stream in sorted(self.seen.keys() - self.carried)
        ]

    def _why_busy(self, row: Row) -> str | None:
        if row.lag.at is None or row.lag.at < self.since:
            words = _words(row) or "its lag is not measured anew yet"
            return f"{row.flow.topic}: {words}"
        # A commit that the database has not given to the agent yet shows in no lag.
        is_behind = False
        if row.lag.log_released is not None:
            end = row.lag.log_released + (row.lag.log_bytes or 0)
            is_behind = row.lag.log_released < self.ends.setdefault(row.flow.source, end)
        if row.state is not State.IN_STEP:
            return f"{row.flow.topic}: {_words(row) or row.state.value}"
        if is_behind:
            return (
                f"{row.flow.topic}: its source's log of before is not read"
                " and acknowledged to its end"
            )
        return None

    def _measured_once(self, sends: Sequence[Row]) -> list[str]:
        """Who is quiet by one measurement alone, which may be of just before a last change."""
        times = [row.lag.at for row in sends if row.lag.at is not None]
        self.quiet = self.quiet or max(times, default=self.since)
        until = self.quiet + AGAIN
        return [
            f"{row.flow.topic}: nothing waits; its lag is to be measured once more"
            for row in sends
            if row.lag.at is None or row.lag.at < until
        ]


def _words(row: Row) -> str:
    return "; ".join(problem.wrong for problem in row.problems)


async def drain(config: AgentConfig, path: Path, within_s: float) -> dict[str, object]:
    """Watch the agent of `path`, an agent.toml, until it is drained or the time is over.

    Raises:
        ConfigInvalid, UnavailableError, Malformed: its agent does not answer at the first look.
    """
    await read_page(config, path)
    began = asyncio.get_running_loop().time()
    watched, shown = Drain(since=datetime.now(UTC)), ""
    newest = _Newest(config, path)
    while True:
        try:
            waits = await _look(watched, newest)
        except FabricError as exc:
            waits = [str(problem_of("agent", f"{exc.reason}: {exc.args[0]}").wrong)]
        passed_s = asyncio.get_running_loop().time() - began
        if not waits or passed_s >= within_s:
            return {
                "host": str(config.agent.host),
                "drained": not waits,
                "carried": len(watched.carried),
                "result": newest.result.id.hex() if newest.result else None,
                "seconds": round(passed_s, 1),
                "waits": waits,
            }
        says = f"waits for {len(waits)}: {waits[0]}"
        if says != shown:
            typer.echo(says, err=True)
            shown = says
        await asyncio.sleep(LOOK_S)


class _Newest:
    """The host's newest published result; read again only when the agent has another."""

    def __init__(self, config: AgentConfig, path: Path) -> None:
        self.config, self.path = config, path
        self.result: Result | None = None
        self._expires: datetime | None = None

    async def ask(self, expires: datetime | None) -> Result | None:
        """The result that ends at `expires`, by the agent's word, if it is in the log."""
        if self.result is None or expires != self._expires:
            try:
                async with asyncio.timeout(REQUEST_S_MAX):
                    self.result = await result_of(self.config, self.path)
            except TimeoutError as exc:
                raise UnavailableError(
                    Reason.BROKER_UNAVAILABLE, "the host's result could not be read in time"
                ) from exc
            self._expires = self.result.expires
        return self.result


async def _look(watched: Drain, newest: _Newest) -> list[str]:
    config = newest.config
    page = await read_page(config, newest.path)
    rows = await asyncio.to_thread(rows_of, config, newest.path, page)
    topics = sorted({str(row.flow.topic) for row in rows if row.flow.way is Way.SENDS})
    state = Path(config.agent.folder) / STATE
    # Before the result: what is carried next is then among what was seen.
    heads = await asyncio.to_thread(read_heads, state, topics)
    waits = watched.look(rows, heads, None)
    if not waits or not watched.seen:
        return waits
    expires = page.samples.time("attestation_expiry_timestamp_seconds")
    return watched.look(rows, heads, await newest.ask(expires))
