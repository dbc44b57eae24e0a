"""fabric.database.postgresql_whole"""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from fabric.database import postgresql_whole
from fabric.database.postgresql_token import Gone
from fabric.database.postgresql_whole import whole
from fabric.model.change import Op, Row, Run
from fabric.ports import Captured
from tests.contract.postgresql_cases import ITEMS, TOPIC, item


class Table:
    """A session's table: rows by key, and the groups that were read of it."""

    def __init__(self, notes: dict[int, str]) -> None:
        self.notes = notes
        self.groups: list[int] = []
        self.ends: set[float | None] = set()

    def fit(self, _topic: str) -> Any:
        return SimpleNamespace(table=SimpleNamespace(schema=ITEMS))

    async def fetch(
        self, topic: str, rows: Sequence[Row], xid: int, *, ends: float | None = None
    ) -> list[Row | None]:
        assert (topic, xid) == (str(TOPIC), 7)
        self.groups.append(len(rows))
        self.ends.add(ends)
        keys: list[Any] = [row["id"] for row in rows]
        return [item(key, "later", self.notes[key]) if key in self.notes else None for key in keys]


def parts(*keys: int) -> Captured:
    """Changes of items from ordinal 11 on, without their notes."""
    rows = [item(key, f"n{key}") for key in keys]
    run = Run(op=Op.UPSERT, position=5, ordinal=11, commit_us=0, rows=rows, absent=("note",))
    return Captured(topic=TOPIC, run=run)


def gone(*keys: int) -> Gone:
    return Gone(until=9, keys=frozenset((key,) for key in keys) or None)


async def made(table: Table, captured: Captured, lacking: Gone) -> list[Run]:
    read: Any = table
    return [each.run async for each in whole(read, captured, lacking, 7)]


async def test_rows_that_are_made_whole_together_are_one_run() -> None:
    (run,) = await made(Table({1: "a", 2: "b"}), parts(1, 2), gone())
    assert (run.ordinal, run.absent) == (11, ())
    assert run.rows == [item(1, "n1", "a"), item(2, "n2", "b")]


async def test_rows_that_readers_have_stay_parts_and_those_not_there_keep_their_ordinals() -> None:
    runs = await made(Table({2: "b", 5: "e"}), parts(1, 2, 3, 4, 5), gone(2, 3, 5))
    assert [([row["id"] for row in run.rows], run.ordinal, run.absent) for run in runs] == [
        ([1], 11, ("note",)),
        ([2], 12, ()),
        ([4], 14, ("note",)),
        ([5], 15, ()),
    ]


async def test_a_group_is_given_out_before_the_next_is_read() -> None:
    table = Table(dict.fromkeys(range(20), "x" * 300000))
    read: Any = table
    async for each in whole(read, parts(*range(20)), gone(), 7):
        assert each.run.count == table.groups[-1] <= 4
    assert table.groups == [4, *[1] * 16]


async def test_small_rows_are_read_in_groups_that_grow_to_a_limit() -> None:
    table = Table(dict.fromkeys(range(400), "x"))
    await made(table, parts(*range(400)), gone())
    assert table.groups == [4, 8, 16, 32, 64, 100, 100, 76]


async def test_a_run_waits_for_its_rows_once_and_not_while_others_take_them(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    table = Table(dict.fromkeys(range(12), "x"))
    read: Any = table
    async for _ in whole(read, parts(*range(12)), gone(), 7):
        now += 100
    assert table.ends == {30.0, 130.0}


def test_a_row_takes_what_the_log_leaves_out_and_nothing_else() -> None:
    found = item(1, "later", "note")
    assert postgresql_whole.filled(item(1, "now"), found, ("note",)) == item(1, "now", "note")
