"""The Python API on a real platform: subscribe, ack, reopen, publish.

The agents' processes of A and B are stopped when the test opens an `Agent` with the
same configuration: same folder, same TPM, same state.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing

import pytest

import fabric
from fabric.agent import life
from fabric.agent.subscription import Position
from fabric.demo import intruder
from fabric.demo.layout import OTHER, PUBLIC, SECRET
from fabric.demo.people import residents
from fabric.demo.world import World
from fabric.model.change import Change, Op
from fabric.model.errors import ConfigInvalid, DeniedError, Malformed, Reason, UsageError
from fabric.seal.envelope import parse
from tests.support.pages import API, example
from tests.support.world import running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROWS = 60
FIRST_NOTE = {"id": 1, "text": "Giấy khai sinh số 88 đã cấp lại"}
_OPEN_S = 40


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world(rows=ROWS, target="sqlite") as running:
        running.parts["B"].stop()
        yield running


@asynccontextmanager
async def agent_of(world: World, letter: str) -> AsyncIterator[fabric.Agent]:
    async with fabric.Agent.from_config(world.host(letter).config) as agent:
        async with asyncio.timeout(_OPEN_S):
            await agent.wait_started()
        yield agent


async def take(
    agent: fabric.Agent, topic: str, count: int, *, ops: frozenset[Op] = frozenset({Op.UPSERT})
) -> list[tuple[Change, Position]]:
    """The next `count` changes that are rows."""
    found = []
    async with asyncio.timeout(_OPEN_S), aclosing(agent.subscribe(topic)) as changes:
        async for change, position in changes:
            if change.op in ops:
                found.append((change, position))
                if len(found) == count:
                    break
    return found


async def test_blocks_bring_the_same_rows_and_are_acknowledged_whole(world: World) -> None:
    topic, seen = str(SECRET), []
    async with agent_of(world, "B") as agent:
        async with asyncio.timeout(_OPEN_S), aclosing(agent.subscribe_blocks(topic)) as deliveries:
            async for delivery in deliveries:
                seen += [row["id"] for run in delivery.block.runs for row in run.rows]
                if len(seen) >= ROWS:
                    break
        assert seen == [row.id for row in residents(ROWS)]


async def test_a_subscriber_gets_rows_again_until_it_acknowledges_them(world: World) -> None:
    topic = str(SECRET)
    async with agent_of(world, "B") as agent:
        first = await take(agent, topic, ROWS)
    people = {row.id: row for row in residents(ROWS)}
    assert [change.row["id"] for change, _ in first if change.row] == [*people]
    for change, _ in first:
        assert change.row is not None
        assert change.row["full_name"] == people[change.row["id"]].full_name
        assert str(change.topic) == topic
    sequences = [change.sequence for change, _ in first]
    assert sequences == sorted(set(sequences))
    # Nothing was acknowledged: all of it comes again, the same and in the same order.
    async with agent_of(world, "B") as agent:
        again = await take(agent, topic, ROWS)
        assert [change for change, _ in again] == [change for change, _ in first]
        await agent.ack(again[19][1])
    # In the midst of a block: what lies behind the acknowledged change, and nothing before it.
    async with agent_of(world, "B") as agent:
        rest = await take(agent, topic, ROWS - 20)
        assert [change for change, _ in rest] == [change for change, _ in first[20:]]
        await agent.ack(rest[-1][1])
    assert world.registry is not None
    world.registry.change(5_000, 4)
    async with agent_of(world, "B") as agent:
        news = await take(agent, topic, 5, ops=frozenset({Op.UPSERT, Op.DELETE}))
        assert min(change.sequence for change, _ in news) > sequences[-1]
        assert {change.row["id"] for change, _ in news if change.row} <= set(range(5_000, 5_004))


async def test_an_open_dataset_can_be_subscribed_to_as_well(world: World) -> None:
    async with agent_of(world, "B") as agent:
        found = await take(agent, str(PUBLIC), 10, ops=frozenset(Op))
    assert found[0][0].op is Op.SNAPSHOT_BEGIN
    assert all(change.row and change.row["name"] for change, _ in found[1:])


async def test_what_a_publishes_arrives_sealed_at_a_subscriber_of_b(world: World) -> None:
    topic = str(OTHER)
    world.parts["A"].stop()
    try:
        async with agent_of(world, "A") as sender, agent_of(world, "B") as receiver:
            async with asyncio.timeout(_OPEN_S):
                sequence = await sender.publish(topic, FIRST_NOTE)
                await sender.publish(topic, {"id": 2, "text": "hai"})
                await sender.publish(topic, {"id": 2}, op=Op.DELETE)
            found = await take(receiver, topic, 3, ops=frozenset({Op.UPSERT, Op.DELETE}))
            assert [change.op for change, _ in found] == [Op.UPSERT, Op.UPSERT, Op.DELETE]
            assert found[0][0].row == FIRST_NOTE
            assert found[0][0].sequence == sequence
            assert str(found[0][0].origin) == "G01/registry/outbox"
            await receiver.ack(found[-1][1])
            anew = [(Op.SNAPSHOT_BEGIN, None), (Op.UPSERT, FIRST_NOTE), (Op.SNAPSHOT_END, None)]
            for op, row in anew:
                await sender.publish(topic, row or {}, op=op)  # type: ignore[arg-type]  # a plain dict
            again = await take(receiver, topic, 3, ops=frozenset(Op))
            assert [(change.op, change.row) for change, _ in again] == anew
            await receiver.ack(again[-1][1])
            await refuses_what_is_wrong(sender)
    finally:
        world.parts["A"].start()
    stored = intruder.read(world.broker.address, world.platform("admin"), topic)
    assert stored
    assert all(parse(value).header.suite == "hybrid" for value in stored)
    assert FIRST_NOTE["text"].encode() not in b"".join(stored)  # type: ignore[attr-defined]
    outbox = world.host("A").folder / "state" / "outbox.db"
    with closing(sqlite3.connect(outbox)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def refuses_what_is_wrong(agent: fabric.Agent) -> None:
    for topic, row in (
        (str(OTHER), {"id": "one", "text": "wrong type"}),
        (str(OTHER), {"text": "no key"}),
        (str(SECRET), {"id": 1}),
    ):
        with pytest.raises(UsageError):
            await agent.publish(topic, row)
    for size in (1_000_000, 20_000_000):
        with pytest.raises(UsageError, match=r"bytes, more than one block holds") as caught:
            await agent.publish(str(OTHER), {"id": 3, "text": "x" * size})
        assert caught.value.reason is Reason.TOO_LARGE
    with pytest.raises(Malformed):
        await agent.publish("no topic", {})
    with pytest.raises(DeniedError):
        await anext(agent.subscribe("secret.G01.nothing"))
    with pytest.raises(Malformed):
        await anext(agent.subscribe("../residents"))


async def test_published_changes_reach_a_subscriber_until_it_acknowledges_them(
    world: World,
) -> None:
    topic, notes = str(OTHER), [{"id": i, "text": f"note {i}"} for i in range(5)]
    some = frozenset({Op.UPSERT, Op.DELETE})
    world.parts["A"].stop()
    try:
        async with agent_of(world, "A") as sender, agent_of(world, "B") as reader:
            places = [await sender.publish(topic, note) for note in notes]
            assert places == sorted(places)
            await sender.publish(topic, {"id": 3}, op=fabric.Op.DELETE)
            wanted = [*((Op.UPSERT, note) for note in notes), (Op.DELETE, {"id": 3})]
            found = await take(reader, topic, 6, ops=some)
            assert [(change.op, change.row) for change, _ in found] == wanted
            await reader.ack(found[1][1])
    finally:
        world.parts["A"].start()
    async with agent_of(world, "B") as again:
        found = await take(again, topic, 4, ops=some)
        assert [(change.op, change.row) for change, _ in found] == wanted[2:]
        await again.ack(found[-1][1])
        async with asyncio.timeout(20):
            while again.problems:
                await asyncio.sleep(0.05)


async def test_a_stored_row_that_no_block_holds_is_named_and_is_all_that_has_to_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, outbox = str(OTHER), world.host("A").folder / "state" / "outbox.db"
    world.parts["A"].stop()
    try:
        async with agent_of(world, "A") as sender, agent_of(world, "B") as receiver:
            with monkeypatch.context() as patched:  # as a version that did not look stored it
                patched.setattr(life, "demand_room", lambda *_: None)
                stuck = await sender.publish(topic, {"id": 50, "text": "x" * 20_000_000})
            said = f"too_large: the change at {stuck.position} of {topic} is too large for a block"
            async with asyncio.timeout(_OPEN_S):
                while sender.problems.get("capture outbox") != said:
                    await asyncio.sleep(0.05)
            await sender.publish(topic, {"id": 51, "text": "while the capture is held"})
            with closing(sqlite3.connect(outbox, timeout=30)) as file, file:
                file.execute("DELETE FROM fabric_outbox WHERE id = ?", (stuck.position,))
            ((change, position),) = await take(receiver, topic, 1, ops=frozenset({Op.UPSERT}))
            assert change.row == {"id": 51, "text": "while the capture is held"}
            await receiver.ack(position)
    finally:
        world.parts["A"].start()


async def test_the_pages_example_keeps_its_table_in_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = world.host("B")
    with closing(sqlite3.connect(host.folder / "state" / "agent.state")) as state:
        state.execute("DELETE FROM position WHERE topic = ?", (str(SECRET),))
        state.commit()
    monkeypatch.chdir(host.config.parent)

    names = example(API)
    begun: list[Position] = []
    acknowledged: list[Position] = []
    write, ack = names["write"], fabric.Agent.ack

    def counted(db: sqlite3.Connection, delivery: fabric.Delivery) -> None:
        begun.append(delivery.position)
        write(db, delivery)

    async def noted(agent: fabric.Agent, position: Position) -> None:
        await ack(agent, position)
        acknowledged.append(position)

    names["write"] = counted
    monkeypatch.setattr(fabric.Agent, "ack", noted)

    async def until_equal() -> None:
        async with asyncio.timeout(_OPEN_S):
            while _held("residents.db") != _held(world.urls["A"]) or acknowledged != begun:
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(names["main"]())
        await until_equal()
        assert world.registry is not None
        world.registry.change(6_000, 8)
        await until_equal()
        running.cancel()
    # It has acknowledged what it holds: the next subscriber gets nothing of it again.
    world.registry.change(7_000, 1)
    async with agent_of(world, "B") as agent:
        ((change, _),) = await take(agent, str(SECRET), 1)
    assert change.row is not None
    assert change.row["id"] == 7_000


def _held(database: str) -> list[tuple[int, str, str]]:
    with closing(sqlite3.connect(database, timeout=30)) as file:
        file.executescript(example(API)["TABLES"] if database == "residents.db" else "")
        return file.execute("SELECT id, full_name, address FROM residents ORDER BY id").fetchall()


async def test_two_agents_cannot_share_a_folder(world: World) -> None:
    async with fabric.Agent.from_config(world.host("B").config):
        with pytest.raises(ConfigInvalid, match=r"agent\.folder"):
            async with fabric.Agent.from_config(world.host("B").config):
                pass


async def test_an_agent_that_is_closed_at_once_leaves_nothing_running(world: World) -> None:
    async with asyncio.timeout(30):
        async with fabric.Agent.from_config(world.host("B").config):
            pass
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []
