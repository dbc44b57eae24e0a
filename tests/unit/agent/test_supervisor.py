"""Parts that fail alone."""

import asyncio
import itertools

import pytest

from fabric.agent import supervisor
from fabric.agent.supervisor import Board, cause_of, end, supervise
from fabric.database import sqlite_thread
from fabric.model.errors import (
    DeniedError,
    PeerError,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.model.limits import RETRY_S_MIN
from tests.fakes.running import until

AWAY = UnavailableError(Reason.DATABASE_UNAVAILABLE, "database does not answer")
DENIED = DeniedError(Reason.NOT_A_CONSUMER, "reading is not allowed")


def test_a_board_shows_who_is_not_well_and_why() -> None:
    board = Board()
    board.expect("a")
    assert board.problems == {"a": "not_ready: starting"}
    board.show("a", None)
    board.show("b", Reason.GAP, "a block is missing")
    assert board.problems == {"b": "gap: a block is missing"}
    assert board.parts == {"a": None, "b": "gap: a block is missing"}
    assert board.reasons() == {"b": Reason.GAP}
    assert not board.is_ready
    board.forget("b")
    assert board.is_ready


def test_a_board_that_is_cleared_knows_nobody() -> None:
    board = Board()
    board.show("a", Reason.GAP, "a block is missing")
    board.clear()
    assert board.parts == {}


async def test_a_task_that_loses_a_cancellation_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_PATIENCE_S", 0.01)
    lost: list[int] = []

    async def lose() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.append(1)
        await asyncio.sleep(60)

    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(lose())}
        await asyncio.sleep(0)
        await end(tasks)
    assert lost == [1]
    assert all(task.cancelled() for task in tasks)


def test_patience_outlasts_a_capture_that_waits_for_the_application() -> None:
    assert supervisor._PATIENCE_S > sqlite_thread._BUSY_S_MAX + 1


def test_the_cause_of_a_group_is_its_gravest() -> None:
    usage = UsageError(Reason.SOURCE_UNFIT, "no primary key")
    group = ExceptionGroup("parts", [AWAY, ExceptionGroup("inner", [DENIED, usage])])
    assert cause_of(group) is usage
    assert cause_of(ExceptionGroup("parts", [AWAY, DENIED])) is DENIED
    assert cause_of(ExceptionGroup("parts", [AWAY, PeerError(Reason.GAP, "gap")])) is not AWAY
    assert cause_of(ExceptionGroup("parts", [AWAY, KeyError("a bug")])) is None
    assert cause_of(KeyError("a bug")) is None


async def test_an_unavailable_part_is_started_again_and_shown_meanwhile() -> None:
    board, tries = Board(), []

    async def run() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise AWAY

    async with asyncio.timeout(5):
        await supervise("part", run, board)
    assert len(tries) == 3
    assert "part" not in board.parts


async def test_a_failing_part_does_not_end_another() -> None:
    board = Board()
    ran = asyncio.Event()

    async def bug() -> None:
        raise KeyError("a bug")

    async def well() -> None:
        board.show("well", None)
        await asyncio.sleep(0.05)
        ran.set()
        await asyncio.sleep(60)

    async with asyncio.TaskGroup() as tasks:
        parts = [
            tasks.create_task(supervise("bug", bug, board)),
            tasks.create_task(supervise("well", well, board)),
        ]
        await until(ran.is_set)
        assert board.problems == {"bug": "internal: KeyError; see the log"}
        for part in parts:
            part.cancel()


async def test_a_bug_is_logged_with_its_place_and_without_what_it_quotes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def bug() -> None:
        try:
            int("secret row")
        except ValueError as exc:
            raise ExceptionGroup("secret row", [exc, AWAY]) from exc

    stop = asyncio.Event()
    stop.set()
    await supervise("bug", bug, Board(), stop=stop)
    assert "bug failed" in caplog.text
    assert "ValueError" in caplog.text
    assert "test_supervisor.py" in caplog.text
    assert "secret row" not in caplog.text


async def test_a_denied_part_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_HOLD_S", 60.0)
    tries = []

    async def run() -> None:
        tries.append(1)
        raise DENIED

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(supervise("part", run, Board()))
        await asyncio.sleep(0.3)
        task.cancel()
    assert len(tries) == 1


async def test_pauses_grow_to_seconds_and_are_short_again_after_a_run_longer_than_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    tries = itertools.count()

    async def note(seconds: float, stop: asyncio.Event | None) -> bool:
        pauses.append(seconds)
        return len(pauses) == 11

    async def run() -> None:
        if next(tries) == 9:
            monkeypatch.setattr(supervisor, "_PAUSE_S_MAX", 0.01)
            await asyncio.sleep(0.05)
        raise AWAY

    monkeypatch.setattr(supervisor, "_pause", note)
    await supervise("part", run, Board())
    assert pauses[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert pauses[9] == RETRY_S_MIN


async def test_a_part_that_fails_while_the_agent_stops_is_not_started_again() -> None:
    stop = asyncio.Event()

    async def run() -> None:
        raise DENIED

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervise("part", run, Board(), stop=stop))
        await asyncio.sleep(0.01)
        stop.set()
