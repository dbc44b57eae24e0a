"""Reading an open dataset: duplicates go, order stays, garbage is passed over."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from fabric.agent import open_form, open_reading
from fabric.agent.open_form import Gathered, try_decode
from fabric.agent.open_reading import next_step
from fabric.agent.read_machine import Log
from fabric.model.block import Block
from fabric.model.change import Op, Run, Sequence
from fabric.model.names import Stream
from fabric.policy.types import Dataset
from tests.fakes.platform import OPEN, ORIGIN, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore

LOG = Log(cluster="c", topic_id="t")
STREAM = Stream(ORIGIN, OPEN, 0)


def gathered(first: int, count: int, offset: int = 9) -> Gathered:
    rows = [{"id": i, "text": "x"} for i in range(count)]
    run = Run(op=Op.UPSERT, position=5, ordinal=first, commit_us=1, rows=rows)
    block = Block(
        stream=STREAM,
        after=Sequence(1, 5, first - 1),
        upto=Sequence(1, 5, first + count - 1),
        runs=(run,),
    )
    return Gathered(block=block, offset=offset)


def test_only_what_is_new_is_applied() -> None:
    first = next_step(None, gathered(1, 4), LOG)
    assert first is not None
    block, state = first
    assert (block.count, state.high, state.offset) == (4, Sequence(1, 5, 4), 10)
    assert next_step(state, gathered(1, 4), LOG) is None
    more = next_step(state, gathered(3, 4, offset=20), LOG)
    assert more is not None
    assert [(run.ordinal, run.count) for run in more[0].runs] == [(5, 2)]
    assert more[0].after == state.high
    assert more[1].offset == 21


def test_a_new_generation_is_new_whatever_its_position() -> None:
    step = next_step(None, gathered(1, 4), LOG)
    assert step is not None
    newer = gathered(1, 1)
    low = replace(newer.block, after=Sequence(2, 0, 0), upto=Sequence(2, 5, 1))
    anew = next_step(step[1], replace(newer, block=low), LOG)
    assert anew is not None
    assert (step[1].incomplete, anew[1].incomplete) == (False, True)


async def test_a_replayed_log_changes_nothing(platform: Platform, a: TestHost, b: TestHost) -> None:
    database, store = MemoryDatabase([table(OPEN)]), MemoryStore()
    database.upsert(table(OPEN), [{"id": i, "text": "first"} for i in range(30)])
    a.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b)
        parts.capture(a, database, OPEN)
        parts.apply(b, store, OPEN)
        await until(lambda: len(store.rows(OPEN)) == 30)
        database.upsert(table(OPEN), [{"id": 3, "text": "second"}])
        await until(lambda: store.rows(OPEN) == database.held(table(OPEN)))
        for value in platform.log.values(str(OPEN)):
            platform.log.put(str(OPEN), 0, None, value)
        platform.log.put(str(OPEN), 0, None, b"garbage")
        await until(
            lambda: (
                b.metric("fabric_rejected_records_total", level="public", reason="malformed") == 1
            )
        )
    assert store.rows(OPEN) == database.held(table(OPEN))
    assert b.metric("fabric_applied_records_total", level="public", outcome="duplicate") >= 1
    assert a.metric("fabric_produce_duration_seconds_count", level="public") > 0
    assert b.metric("fabric_apply_duration_seconds_count", level="public") > 0
    assert b.board.is_ready


async def test_a_poll_of_rich_records_is_taken_some_at_a_time(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is refused stops none of the others, before and after it."""
    database, store = MemoryDatabase([table(OPEN)]), MemoryStore()
    database.upsert(table(OPEN), [{"id": i, "text": "first"} for i in range(30)])
    a.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database, OPEN)
        await until(lambda: len(platform.log.values(str(OPEN))) >= 30)
        platform.log.put(str(OPEN), 0, None, b"garbage")
        database.upsert(table(OPEN), [{"id": 3, "text": "second"}])
        await until(lambda: b"second" in platform.log.values(str(OPEN))[-1])
        sizes = []

        def some(pairs: list[tuple[int, bytes | None]], it: Dataset) -> Any:
            sizes.append(len(pairs))
            return try_decode(pairs, it)

        monkeypatch.setattr(open_reading, "try_decode", some)
        monkeypatch.setattr(open_form, "OPEN_VALUES_MAX", 20)
        await parts.view(b)
        parts.apply(b, store, OPEN)
        await until(lambda: store.rows(OPEN) == database.held(table(OPEN)))
    assert b.metric("fabric_rejected_records_total", level="public", reason="malformed") == 1
    assert sizes[0] > 30
    # Of five values each; what is refused may have cost more.
    assert max(more - fewer for more, fewer in pairwise(sizes)) == 4
