"""The outbox across the runs of its capture."""

import asyncio
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from fabric.agent.outbox import Outbox
from fabric.model.change import Change, Op
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.ports import Captured, ChangeSource, Reached, SourceTable
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, note, person

NOTES_ONLY = [SourceTable(table="", topic=NOTES, schema=NOTES_SCHEMA)]
BOTH = [*NOTES_ONLY, SourceTable(table="", topic=PEOPLE, schema=PEOPLE_SCHEMA)]


def outbox(folder: Path) -> Outbox:
    return Outbox(folder / "outbox.db", lambda _: None)


async def read(source: ChangeSource) -> tuple[list[int], Reached]:
    """Positions of what waits, and the mark behind it."""
    found: list[int] = []
    async with asyncio.timeout(12), aclosing(source.read()) as events:
        async for event in events:
            if isinstance(event, Captured):
                found.append(event.run.position)
            elif isinstance(event, Reached):
                return found, event
    raise AssertionError


async def test_what_is_put_while_the_capture_is_held_is_stored_and_read_by_the_next_run(
    tmp_path: Path,
) -> None:
    it = outbox(tmp_path)
    run = it.source(BOTH)
    await run.open(None)
    before = await it.put(NOTES, Op.UPSERT, note("a", 1))
    assert (await read(run))[0] == [before.position]
    assert (await run.status())["lag_bytes"] > 0
    await run.release(before.position)
    assert await run.waits() is None
    await run.close()
    held = [await it.put(PEOPLE, Op.UPSERT, person(n)) for n in range(3)]
    again = it.source(BOTH)
    await again.open(None)
    after = await it.put(NOTES, Op.UPSERT, note("a", 2))
    assert (await read(again))[0] == [*(each.position for each in held), after.position]
    await it.close()


async def test_a_run_that_cannot_begin_leaves_the_one_before_in_place(tmp_path: Path) -> None:
    it = outbox(tmp_path)
    run = it.source(NOTES_ONLY)
    await run.open(None)
    await run.close()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
        other.execute("DROP TABLE fabric_outbox_life")
        other.execute("CREATE VIEW fabric_outbox_life AS SELECT 1")
        with pytest.raises(UnavailableError):
            await it.source(BOTH).open(None)
    assert (await it.put(NOTES, Op.UPSERT, note("a", 1))).position == 1
    with pytest.raises(UsageError):
        await it.put(PEOPLE, Op.UPSERT, person(1))
    await it.close()


async def test_the_datasets_are_those_of_the_newest_run(tmp_path: Path) -> None:
    it = outbox(tmp_path)
    await it.source(NOTES_ONLY).open(None)
    with pytest.raises(UsageError):
        await it.put(PEOPLE, Op.UPSERT, person(1))
    await it.source(BOTH).open(None)
    await it.put(PEOPLE, Op.UPSERT, person(1))
    await it.close()


async def test_before_the_first_run_and_after_the_end_one_may_try_again(tmp_path: Path) -> None:
    it = outbox(tmp_path)
    run = it.source(NOTES_ONLY)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="try again") as caught:
            await it.put(NOTES, Op.UPSERT, note("a", 1))
        assert caught.value.reason is Reason.NOT_READY
        await run.open(None)
        await it.put(NOTES, Op.UPSERT, note("a", 1))
        await it.close()
        await it.close()


async def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    def room(_: Change) -> None:
        raise DeniedError(Reason.TOO_LARGE, "is 7 bytes, more than one block holds")

    it = Outbox(tmp_path / "outbox.db", room)
    await it.source(NOTES_ONLY).open(None)
    with pytest.raises(UsageError, match="make it smaller"):
        await it.put(NOTES, Op.UPSERT, note("a", 1, "x" * 200_000))
    await it.close()
