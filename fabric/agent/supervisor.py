"""Keep the agent's parts running: each fails alone, is shown, and is started again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.model.limits import RETRY_S_MIN
from fabric.trace import trace

_HOLD_S = 10.0
_PAUSE_S_MAX = 5.0
"""Longest pause of a part that is unavailable: rows wait it out when a database is back."""
_PATIENCE_S = 8.0
"""Longer than any part needs to close: a capture of SQLite may wait 5 s for the application."""
_FAMILIES: tuple[type[FabricError], ...] = (UsageError, PeerError, DeniedError, UnavailableError)
_log = logging.getLogger("fabric.agent")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one part, for people."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason.value


class Board:
    """What every part says of itself; /readyz shows it."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem | None] = {}

    def expect(self, part: str) -> None:
        """A part that has not spoken yet is a problem."""
        self._problems.setdefault(part, Problem(Reason.NOT_READY, "starting"))

    def show(self, part: str, reason: Reason | None, detail: str = "") -> None:
        """State a part's condition; None means well."""
        problem = None if reason is None else Problem(reason, detail)
        before = self._problems.get(part)
        self._problems[part] = problem
        if problem is None and before is not None and before.reason is not Reason.NOT_READY:
            _log.info("%s: well again", part)
        elif problem is not None and (before is None or before.reason is not problem.reason):
            _log.warning("%s: %s", part, problem)

    def forget(self, part: str) -> None:
        """A part that ended by design is no problem."""
        self._problems.pop(part, None)

    def clear(self) -> None:
        """Forget every part: those that begin will say how they are."""
        self._problems.clear()

    @property
    def problems(self) -> Mapping[str, str]:
        """Part to problem, for every part that has one."""
        return {part: str(problem) for part, problem in self._problems.items() if problem}

    @property
    def parts(self) -> Mapping[str, str | None]:
        """Every part, with its problem or None."""
        return {part: str(p) if p else None for part, p in self._problems.items()}

    def reasons(self) -> Mapping[str, Reason]:
        """Part to reason, for metrics."""
        return {part: problem.reason for part, problem in self._problems.items() if problem}

    @property
    def is_ready(self) -> bool:
        """Whether every part is well."""
        return not self.problems


def cause_of(error: BaseException) -> FabricError | None:
    """The FabricError that an exception (or group) is or holds; the gravest of several.

    None when something in it is none of ours: a bug.
    """
    if isinstance(error, FabricError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    causes = [cause_of(inner) for inner in error.exceptions]
    found = [cause for cause in causes if cause is not None]
    return min(found, key=_gravity) if len(found) == len(causes) else None


def _gravity(error: FabricError) -> int:
    return next((n for n, family in enumerate(_FAMILIES) if isinstance(error, family)), 0)


async def supervise(
    name: str,
    run: Callable[[], Awaitable[None]],
    board: Board,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a part again and again until it returns; its failures end nothing else.

    A part that is unavailable comes back with growing pauses; any other failure waits
    longer, because a person or a policy must change something. After a run that was longer
    than any pause the next one is short again: such a part asks nobody too often.

    Args:
        stop: when set, a part that fails is not started again.
    """
    board.expect(name)
    delay = RETRY_S_MIN
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await run()
        except Exception as exc:  # noqa: BLE001  # the last line: a bug ends one part only
            cause = cause_of(exc)
            if cause is None:
                _log.error("%s failed: %s", name, trace(exc))
                cause = FabricError(Reason.INTERNAL, f"{type(exc).__name__}; see the log")
            board.show(name, cause.reason, str(cause.args[0]))
        else:
            board.forget(name)
            return
        if clock() - began > _PAUSE_S_MAX:
            delay = RETRY_S_MIN
        is_passing = isinstance(cause, UnavailableError)
        if await _pause(delay if is_passing else max(delay, _HOLD_S), stop):
            return
        delay = min(delay * 2, _PAUSE_S_MAX)


async def _pause(seconds: float, stop: asyncio.Event | None) -> bool:
    """Wait; whether `stop` was set meanwhile."""
    if stop is None:
        await asyncio.sleep(seconds)
        return False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until each has ended, those too that come meanwhile.

    Once is not enough: libraries lose a cancellation now and then.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_PATIENCE_S)
