"""Hosts, a platform in memory, and helpers that wait with a deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fabric.agent.parts import apply_partition, publisher, run_publisher
from fabric.agent.sinks import SinkHolder
from fabric.agent.supervisor import supervise
from fabric.config import BlockConfig
from fabric.model.names import Topic
from fabric.ports import SourceTable
from tests.fakes.platform import NOTES, OPEN, SECRET, A, B, Platform, TestHost
from tests.fakes.source import MemoryDatabase, MemorySource
from tests.fakes.table import MemorySink, MemoryStore

BLOCK = BlockConfig(changes_max=20, linger_s=0.005, silence_s=0.5)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    made.admit(A)
    return made


@pytest.fixture
def a(platform: Platform, tmp_path: Path) -> TestHost:
    return TestHost(platform, A, tmp_path / "a").open()


@pytest.fixture
def b(platform: Platform, tmp_path: Path) -> TestHost:
    return TestHost(platform, B, tmp_path / "b").open()


def table(topic: Topic = SECRET) -> SourceTable:
    return SourceTable(table=str(topic), topic=topic, schema=NOTES)


class Running:
    """Parts of hosts that run beside a test."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks

    async def view(self, host: TestHost, *topics: Topic) -> None:
        view, log = host.host.view, host.platform.log
        self.tasks.create_task(view.follow(log, lambda *told: host.board.show("view", *told)))
        for topic in topics:
            self.tasks.create_task(view.follow_grants(log, topic))
        await view.wait_caught_up()

    def capture(
        self, host: TestHost, database: MemoryDatabase, topics: tuple[Topic, ...] = (SECRET,)
    ) -> tuple["asyncio.Task[None]", asyncio.Event]:
        stop = asyncio.Event()

        async def run() -> None:
            made = await publisher(
                host.host,
                "capture main",
                "main",
                reads=MemorySource(database),
                topics=topics,
                block=BLOCK,
                stop=stop,
            )
            await run_publisher(host.host, made, topics)

        task = self.tasks.create_task(supervise("capture main", run, host.board, stop=stop))
        return task, stop

    def apply(
        self, host: TestHost, store: MemoryStore, topic: Topic = SECRET
    ) -> asyncio.Task[None]:
        holder = SinkHolder({topic: "notes"}, lambda: MemorySink(store), host.host.view)
        part = f"apply {topic}:0"
        return self.tasks.create_task(
            supervise(part, lambda: apply_partition(host.host, part, holder, topic, 0), host.board)
        )


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Run parts; they end with the block."""
    tasks = asyncio.TaskGroup()
    async with tasks:
        made = Running(tasks)
        mine = asyncio.current_task()
        try:
            yield made
        finally:
            for task in asyncio.all_tasks():
                if task is not mine and task.get_name().startswith("Task-"):
                    task.cancel()


__all__ = ["OPEN"]
