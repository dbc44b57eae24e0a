"""The Python API on a whole fabric: publish on one host, subscribe on another."""

import asyncio
from collections.abc import Iterator

import pytest

import fabric
from fabric.demo.layout import OTHER, PUBLIC
from fabric.demo.world import World
from tests.support.world import running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A platform with two enrolled hosts whose agents a test may run itself."""
    with running_world(source="sqlite", target="sqlite", rows=20) as made:
        for letter in ("A", "B"):
            made.parts[letter].stop()
        yield made


async def take(
    agent: fabric.Agent, topic: str, count: int, *, ack: int
) -> list[tuple[fabric.Op, object]]:
    """The next changes of a topic; acknowledges the first `ack` of them."""
    found: list[tuple[fabric.Op, object]] = []
    async with asyncio.timeout(40):
        async for change, position in agent.subscribe(topic):
            found.append((change.op, change.row))
            if len(found) <= ack:
                await agent.ack(position)
            if len(found) == count:
                break
    return found


async def test_published_changes_reach_a_subscriber_at_least_once(world: World) -> None:
    topic, notes = str(OTHER), [{"id": i, "text": f"note {i}"} for i in range(5)]
    configs = [world.host(letter).config for letter in "AB"]
    sender, reader = (fabric.Agent.from_config(config) for config in configs)
    async with sender, reader:
        async with asyncio.timeout(40):
            await sender.wait_started()
            await reader.wait_started()
        places = [await sender.publish(topic, note) for note in notes]
        assert places == sorted(places)
        await sender.publish(topic, {"id": 3}, op=fabric.Op.DELETE)
        wanted = [*((fabric.Op.UPSERT, note) for note in notes), (fabric.Op.DELETE, {"id": 3})]
        assert await take(reader, topic, 6, ack=2) == wanted
        with pytest.raises(fabric.UsageError):
            await sender.publish(topic, {"id": "no number", "text": "x"})
        with pytest.raises(fabric.UsageError):
            await sender.publish(str(PUBLIC), notes[0])
    async with fabric.Agent.from_config(configs[1]) as again:
        assert await take(again, topic, 4, ack=4) == wanted[2:]
        async with asyncio.timeout(20):
            while again.problems:
                await asyncio.sleep(0.05)


async def test_an_open_dataset_is_subscribed_to_alike(world: World) -> None:
    async with fabric.Agent.from_config(world.host("B").config) as agent:
        found = await take(agent, str(PUBLIC), 50, ack=50)
    assert found[0][0] is fabric.Op.SNAPSHOT_BEGIN
    assert all(op is fabric.Op.UPSERT for op, _ in found[1:])
