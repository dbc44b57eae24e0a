"""Run a doctor's checks side by side, each with a deadline, and print what they found.

A check that hangs must not hold the others back, nor doctor's end: whatever blocks
runs in threads that die with the process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any, Generic, TypeAlias, TypeVar

import typer

from fabric.cli import output
from fabric.cli.remedies import remedy_of
from fabric.database.finding import Finding, failed, ill, well
from fabric.model.errors import ConfigInvalid, FabricError, Reason

T = TypeVar("T")
Look: TypeAlias = Callable[[], Awaitable[str | Sequence[Finding]]]
"""Says how its part is, or raises with what is wrong; of several parts, a finding each."""
Check: TypeAlias = tuple[str, Look]
"""A part's name and how to look at it."""

CHECK_S_MAX = 25.0
"""Deadline of one check, above that of any one request."""
_AT_ONCE = 8


def run_doctor(
    form: output.Form,
    path: Path,
    load: Callable[[Path], T],
    checks: Callable[[T], Sequence[Check]],
) -> None:
    """Load the file, run its checks, print them; exit 0, 10 when one fails, 2 for the file.

    Args:
        load: raises ConfigInvalid.
    """
    # Libraries tell a log what a finding says better.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        config = load(path)
    except ConfigInvalid as exc:
        _print(form, [_row("config", failed("", exc))])
        raise typer.Exit(output.USAGE) from exc
    found = [_row("config", well("", str(path))), *asyncio.run(examine(checks(config)))]
    _print(form, found)
    raise typer.Exit(output.OK if all(item["ok"] for item in found) else output.UNHEALTHY)


async def examine(
    checks: Sequence[Check], *, deadline_s: float = CHECK_S_MAX
) -> list[dict[str, object]]:
    """What every check found, in the checks' order."""
    asyncio.get_running_loop().set_default_executor(_Threads())
    turns = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_examined(name, look, turns, deadline_s)) for name, look in checks
        ]
    return [row for task in tasks for row in task.result()]


async def _examined(
    name: str, look: Look, turns: asyncio.Semaphore, deadline_s: float
) -> list[dict[str, object]]:
    async with turns:
        try:
            async with asyncio.timeout(deadline_s) as limit:
                found = await look()
        except FabricError as exc:
            found = [failed("", exc)]
        except TimeoutError:
            # What the check asks may have given up sooner, by a deadline of its own.
            when = f"in {deadline_s:.0f} s" if limit.expired() else "in time"
            hint = "find out what hangs: device, disk, network"
            found = [ill("", Reason.NOT_READY, f"no answer {when}", hint)]
        except Exception as exc:  # noqa: BLE001  # a bug in one check must not hide the others
            # Its text may hold anything, a password in a URL too.
            found = [ill("", Reason.INTERNAL, f"the check itself failed ({type(exc).__name__})")]
    if isinstance(found, str):
        found = [well("", found)]
    return [_row(f"{name} {item.part}".strip(), item) for item in found]


def _row(name: str, found: Finding) -> dict[str, object]:
    if found.reason is None:
        return {"check": name, "ok": True, "seen": found.seen, "remedy": ""}
    return {
        "check": name,
        "ok": False,
        "seen": f"{found.reason}: {found.seen}",
        "remedy": found.remedy or remedy_of(found.reason, found.seen),
    }


def _print(form: output.Form, found: Sequence[Mapping[str, object]]) -> None:
    """For people a line each, and below a failed one what to do."""
    if form is not output.Form.TABLE:
        output.rows(form, found)
        return
    width = max(len(str(item["check"])) for item in found)
    for item in found:
        mark = "ok  " if item["ok"] else "FAIL"
        typer.echo(f"{mark}  {item['check']:<{width}}  {item['seen']}")
        if not item["ok"]:
            typer.echo(f"      {'':<{width}}  -> {item['remedy']}")


class Once(Generic[T]):
    """Something that several checks need: asked for once, its error told to each of them."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._answer: T | None = None
        self._error: FabricError | None = None

    async def get(self) -> T:
        """The answer; raises FabricError, the same each time. `ask` runs in a thread."""
        async with self._lock:
            if self._answer is None and self._error is None:
                try:
                    self._answer = await asyncio.to_thread(self._ask)
                except FabricError as exc:
                    self._error = exc
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer


class _Threads(ThreadPoolExecutor):
    """A daemon thread for each call: the interpreter waits for a pool's own threads."""

    def submit(self, call: Callable[..., T], /, *args: Any, **named: Any) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(*args, **named))
            except BaseException as exc:  # noqa: BLE001  # it belongs to whoever waits
                future.set_exception(exc)

        Thread(target=run, daemon=True).start()
        return future
