"""The public API's edges; its whole way is an integration test."""

import ast
import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

import fabric
from fabric.agent import api
from fabric.agent.api import Agent
from fabric.agent.subscription import Delivery, Position, Subscription
from fabric.config import AgentConfig
from fabric.model import errors
from fabric.model.block import Block
from fabric.model.change import ZERO, Change, Run
from fabric.model.errors import ConfigInvalid, Malformed, Reason, UnavailableError, UsageError
from fabric.model.names import Stream, Topic
from fabric.ports import StreamState
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.running import until
from tests.fakes.sealing import STREAM

RESIDENTS = "secret.G01.residents"
STATE = StreamState(high=ZERO, chain=b"", offset=0, cluster="", topic_id="", incomplete=False)
CALLS: dict[str, Callable[[Agent], Awaitable[object]]] = {
    "ack": lambda it: it.ack(Position(STREAM, STATE)),
    "publish": lambda it: it.publish(RESIDENTS, {"id": 1}),
    "subscribe": lambda it: anext(it.subscribe(RESIDENTS)),
    "subscribe_blocks": lambda it: anext(it.subscribe_blocks(RESIDENTS)),
    "wait_started": lambda it: it.wait_started(),
}
OUTBOX = """
[outbox]
topics = ["secret.G01.residents"]
"""


def agent(folder: Path, more: str = "") -> Agent:
    return Agent(AgentConfig.load(write_agent(folder, more=more)), tpm=DrawerTpm())


def test_the_package_gives_the_public_names_and_no_others() -> None:
    assert fabric.Agent is Agent
    typed = ast.parse(Path(fabric.__file__).with_suffix(".pyi").read_text())
    names = [a.name for node in typed.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert sorted(names) == dir(fabric)
    assert all(hasattr(fabric, name) for name in names)
    with pytest.raises(AttributeError):
        _ = fabric.nothing


def test_a_star_import_gives_every_public_name() -> None:
    got: dict[str, object] = {}
    exec("from fabric import *", got)
    assert sorted(got.keys() - {"__builtins__"}) == dir(fabric)


@pytest.mark.parametrize("owner", [Agent, Change, Delivery, Position, Run, Block, Stream])
def test_what_the_public_api_takes_and_gives_has_a_public_name(owner: type) -> None:
    columns = {"Value": object}  # a row's values are plain
    hints = [get_type_hints(owner, localns=columns)]
    for name, member in vars(owner).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not name.startswith("_") and callable(function):
            hints.append(get_type_hints(function, localns=columns))
    public = {getattr(fabric, name) for name in dir(fabric) if name != "Row"}
    used = {kind for hint in hints for each in hint.values() for kind in _classes(each)}
    assert {kind for kind in used if kind.__module__.startswith("fabric.")} <= public


def _classes(hint: object) -> Iterator[type]:
    for part in get_args(hint):
        yield from _classes(part)
    if isinstance(hint, type):
        yield hint


def test_the_errors_that_docstrings_name_have_a_public_name() -> None:
    methods = [Agent.from_config, Agent.subscribe, Agent.subscribe_blocks, Agent.publish, Agent.ack]
    text = " ".join(method.__doc__ or "" for method in methods)
    named = {name for name in vars(errors) if re.search(rf"\b{name}\b", text)}
    assert {"ConfigInvalid", "Malformed", "UsageError"} <= named <= {*dir(fabric)}


def test_a_wrong_setting_names_key_and_remedy(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    config.write_text(config.read_text().replace('host = "G01/registry/host-a"', 'host = "g01"'))
    with pytest.raises(ConfigInvalid, match=r"agent\.host"):
        Agent.from_config(config)


async def test_an_agent_says_what_is_not_well_and_ends_soon(tmp_path: Path) -> None:
    async with agent(tmp_path) as it:
        await until(lambda: "authority_unavailable" in it.problems.get("attestation", ""))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await it.wait_started()
        async with asyncio.timeout(5):
            await it.__aexit__(None, None, None)


async def test_what_the_body_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="the user's own"):
        async with agent(tmp_path):
            raise LookupError("the user's own")


async def test_a_start_that_fails_gives_everything_back(tmp_path: Path) -> None:
    it = agent(tmp_path)
    (tmp_path / "policy" / "metadata" / "1.root.json").unlink()
    with pytest.raises(fabric.UsageError):
        await it.__aenter__()
    async with agent(tmp_path):
        pass


async def test_publishing_before_the_start_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "REQUEST_S_MAX", 0.2)
    async with agent(tmp_path, OUTBOX) as it:
        with pytest.raises(UnavailableError, match="has not started"):
            await it.publish("secret.G01.residents", {"id": 1, "name": "x", "phone": None})


async def test_acknowledging_before_the_start_says_what_to_wait_for(tmp_path: Path) -> None:
    async with agent(tmp_path) as it:
        with pytest.raises(UnavailableError, match=r"wait_started") as caught:
            await it.ack(Position(STREAM, STATE))
    assert caught.value.reason is Reason.NOT_READY


async def _first(found: AsyncGenerator[object]) -> object:
    return await anext(found, None)


WAITING: dict[str, Callable[[Agent], Coroutine[object, object, object]]] = {
    "subscribe": lambda it: _first(it.subscribe(RESIDENTS)),
    "subscribe_blocks": lambda it: _first(it.subscribe_blocks(RESIDENTS)),
}


@pytest.mark.parametrize("name", WAITING)
async def test_iterators_that_wait_for_the_start_end_with_their_agent(
    tmp_path: Path, name: str
) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        async with agent(tmp_path) as it:
            waiting = tasks.create_task(WAITING[name](it))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting is None


@pytest.mark.parametrize("name", ["publish", "wait_started"])
async def test_who_waits_for_the_start_is_told_when_the_agent_ends(
    tmp_path: Path, name: str
) -> None:
    async def told(it: Agent) -> None:
        with pytest.raises(UnavailableError, match="has ended") as caught:
            await CALLS[name](it)
        assert caught.value.reason is Reason.NOT_READY

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks, agent(tmp_path, OUTBOX) as it:
        waiting = tasks.create_task(told(it))
        await asyncio.sleep(0.05)
        assert not waiting.done()


async def subscribed(it: Agent, monkeypatch: pytest.MonkeyPatch, ends: asyncio.Event) -> None:
    """Subscribe, break out, and return once the iterator is closed; its reader ends by `ends`."""
    begun = asyncio.Event()

    async def host() -> object:
        return SimpleNamespace(view=it._core._current.view)

    async def subscribe(topic: Topic, subscription: Subscription) -> None:
        begun.set()
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await ends.wait()

    monkeypatch.setattr(it._core, "host", host)
    monkeypatch.setattr(it._core, "subscribe", subscribe)
    async with aclosing(it.subscribe_blocks(RESIDENTS)) as deliveries, asyncio.TaskGroup() as tasks:

        async def wait() -> None:
            await anext(deliveries)

        waiting = tasks.create_task(wait())
        await begun.wait()
        waiting.cancel()


async def test_a_closed_iterator_has_no_reader_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = asyncio.Event()
    async with agent(tmp_path) as it, asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(subscribed(it, monkeypatch, ends))
        await asyncio.sleep(0.05)
        was_done = closing.done()
        ends.set()
        assert not was_done
        async with asyncio.timeout(1):
            await closing


async def test_a_reader_that_does_not_end_holds_its_iterator_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "STOP_S_MAX", 0.1)
    ends = asyncio.Event()
    async with agent(tmp_path) as it:
        async with asyncio.timeout(5):
            await subscribed(it, monkeypatch, ends)
        ends.set()


async def test_a_topic_must_be_one(tmp_path: Path) -> None:
    async with agent(tmp_path) as it:
        with pytest.raises(Malformed):
            async for _ in it.subscribe("no topic"):
                pass
        with pytest.raises(Malformed):
            await anext(it.subscribe_blocks("no topic"))


@pytest.mark.parametrize("name", CALLS)
async def test_an_agent_is_used_inside_its_block_only(tmp_path: Path, name: str) -> None:
    it = agent(tmp_path)
    with pytest.raises(UsageError, match="inside `async with`"):
        await CALLS[name](it)
    async with it:
        pass
    with pytest.raises(UsageError, match="inside `async with`"):
        await CALLS[name](it)


async def test_an_agent_is_entered_once(tmp_path: Path) -> None:
    it = agent(tmp_path)
    async with it:
        with pytest.raises(UsageError, match="make another"):
            await it.__aenter__()
    with pytest.raises(UsageError, match="make another"):
        await it.__aenter__()
    async with agent(tmp_path):
        pass


async def test_a_topic_has_one_subscriber_at_a_time(tmp_path: Path) -> None:
    async with agent(tmp_path) as it, asyncio.TaskGroup() as tasks:

        async def wait() -> None:
            async with aclosing(it.subscribe(RESIDENTS)) as changes:
                await anext(changes)

        for _ in range(2):  # once the first is closed another may come
            first = tasks.create_task(wait())
            await asyncio.sleep(0.05)
            assert not first.done()
            for again in (it.subscribe, it.subscribe_blocks):
                with pytest.raises(UsageError, match=r"secret\.G01\.residents has a subscriber"):
                    await anext(again(RESIDENTS))
            other = tasks.create_task(anext(it.subscribe("secret.G01.notes")))
            await asyncio.sleep(0.05)
            assert not other.done()
            for task in (first, other):
                task.cancel()
            await asyncio.wait([first, other])


def test_what_subscribe_gives_can_be_closed() -> None:
    given = get_type_hints(Agent.subscribe)["return"]
    assert given == AsyncGenerator[tuple[Change, Position]]
