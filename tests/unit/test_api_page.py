"""The examples of README.md and docs/api.md do what the pages say, with the API as it is."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.agent import core
from fabric.agent.api import Agent
from fabric.agent.subscription import Delivery
from fabric.model.block import Block
from fabric.model.change import ZERO, Change, Op, Row, Run, end_of
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import StreamState
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.running import until
from tests.support.pages import API, README, example

TOPIC = Topic.parse("secret.G01.residents")
FIRST = Stream(Origin.parse("G01/registry/main"), TOPIC, 0)
SECOND = Stream(Origin.parse("G01/registry/main"), TOPIC, 1)
AN, BINH, CHI = ({"id": n, "full_name": f"Tên {n}", "address": f"Số {n}"} for n in (1, 2, 3))


class Copy:
    """The example's table, given blocks as a subscriber gets them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._page = example(API)
        self._db = db
        self._position = 0
        db.executescript(self._page["TABLES"])

    def give(
        self, op: Op, *rows: Row, stream: Stream = FIRST, absent: tuple[str, ...] = ()
    ) -> Delivery:
        self._position += 1
        run = Run(
            op=op,
            position=self._position,
            ordinal=1,
            commit_us=0,
            rows=rows,
            absent=absent,
        )
        upto = end_of(1, self._position)
        block = Block(stream=stream, after=ZERO, upto=upto, runs=(run,))
        after = StreamState(
            high=upto, chain=b"", offset=1, cluster="c", topic_id="t", incomplete=False
        )
        delivery = Delivery(block=block, before=None, after=after)
        self.again(delivery)
        return delivery

    def again(self, delivery: Delivery) -> None:
        self._page["write"](self._db, delivery)

    @property
    def held(self) -> list[Row]:
        names = ("id", "full_name", "address")
        found = self._db.execute(f"SELECT {', '.join(names)} FROM residents ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in found]


@pytest.fixture
def copy() -> Iterator[Copy]:
    db = sqlite3.connect(":memory:")
    yield Copy(db)
    db.close()


def test_rows_come_change_and_go(copy: Copy) -> None:
    copy.give(Op.UPSERT, AN, BINH)
    copy.give(Op.UPSERT, {**AN, "address": "Số 9"})
    copy.give(Op.DELETE, {"id": 2})
    copy.give(Op.SCHEMA)
    assert copy.held == [{**AN, "address": "Số 9"}]


def test_what_was_not_sent_stays_as_it_is(copy: Copy) -> None:
    copy.give(Op.UPSERT, AN)
    copy.give(Op.UPSERT, {"id": 1, "full_name": "Mới", "address": None}, absent=("address",))
    copy.give(Op.UPSERT, {"id": 2, "full_name": "Không", "address": None})
    assert copy.held == [
        {**AN, "full_name": "Mới"},
        {"id": 2, "full_name": "Không", "address": None},
    ]


def test_a_truncate_empties_its_own_stream(copy: Copy) -> None:
    copy.give(Op.UPSERT, AN, BINH)
    copy.give(Op.UPSERT, CHI, stream=SECOND)
    copy.give(Op.TRUNCATE)
    assert copy.held == [CHI]


def test_a_snapshots_end_removes_what_did_not_come(copy: Copy) -> None:
    copy.give(Op.UPSERT, AN, BINH)
    copy.give(Op.UPSERT, CHI, stream=SECOND)
    copy.give(Op.SNAPSHOT_BEGIN)
    copy.give(Op.UPSERT, BINH)
    assert copy.held == [AN, BINH, CHI]
    end = copy.give(Op.SNAPSHOT_END)
    assert copy.held == [BINH, CHI]
    copy.give(Op.UPSERT, AN)
    copy.again(end)  # without a begin it means nothing
    assert copy.held == [AN, BINH, CHI]


def test_a_snapshot_that_begins_anew_counts_anew(copy: Copy) -> None:
    copy.give(Op.SNAPSHOT_BEGIN)
    copy.give(Op.UPSERT, AN, BINH)
    copy.give(Op.SNAPSHOT_BEGIN)
    copy.give(Op.UPSERT, BINH)
    copy.give(Op.SNAPSHOT_END)
    assert copy.held == [BINH]


def test_a_block_that_comes_again_does_no_harm(copy: Copy) -> None:
    given = [
        copy.give(Op.UPSERT, CHI),
        copy.give(Op.SNAPSHOT_BEGIN),
        copy.give(Op.UPSERT, AN, BINH),
        copy.give(Op.SNAPSHOT_END),
        copy.give(Op.DELETE, {"id": 1}),
    ]
    for first in range(len(given)):
        for delivery in given[first:]:
            copy.again(delivery)
        assert copy.held == [BINH]


@pytest.mark.parametrize("page", [README, API], ids=["README", "api"])
async def test_an_example_starts_an_agent_and_waits_for_its_topic(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_agent(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(core, "device", lambda _tcti: DrawerTpm())
    entered: list[Agent] = []
    enter = Agent.__aenter__

    async def noting(self: Agent) -> Agent:
        entered.append(self)
        return await enter(self)

    monkeypatch.setattr(Agent, "__aenter__", noting)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(example(page)["main"]())
        await until(lambda: bool(entered and entered[0].problems.get("attestation")))
        assert not task.done()
        task.cancel()


def test_page_and_docstring_say_what_each_operation_asks_for() -> None:
    text, words = API.read_text(), Change.__doc__ or ""
    assert [op for op in Op if f"\n| `{op.name}` |" not in text or op.name not in words] == []
