"""Run parts of test hosts beside a test, and wait with a deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from fabric.agent.parts import apply_partition, datasets_of, publisher, run_publisher
from fabric.agent.sinks import SinkHolder
from fabric.agent.supervisor import supervise
from fabric.config import BlockConfig
from fabric.model.names import Topic
from fabric.ports import SourceTable
from tests.fakes.platform import NOTES, SECRET, Platform, TestHost
from tests.fakes.source import MemoryDatabase, MemorySource
from tests.fakes.table import MemorySink, MemoryStore

_TICK_S = 0.1
BLOCK = BlockConfig(changes_max=20, linger_s=0.005, silence_s=0.5)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `condition` holds, however busy the machine is; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def table(topic: Topic = SECRET) -> SourceTable:
    """The source's table of a dataset."""
    return SourceTable(table=str(topic), topic=topic, schema=NOTES)


class Running:
    """Parts of hosts that run beside a test."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.all: list[asyncio.Task[None]] = []
        self._ticking: list[Platform] = []

    def spawn(self, part: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """Run a coroutine until the block ends."""
        task = self._tasks.create_task(part)
        self.all.append(task)
        return task

    async def view(self, host: TestHost, *topics: Topic) -> None:
        """Follow the control topics, and the grants of `topics`."""
        view, log = host.host.view, host.platform.log
        if host.platform not in self._ticking:
            self._ticking.append(host.platform)
            host.platform.tick()
            self.spawn(_tick(host.platform))
        self.spawn(view.follow(log, lambda *told: host.board.show("view", *told)))
        for topic in topics:
            self.spawn(view.follow_grants(log, topic))
        await asyncio.sleep(0)  # the followers begin: what an earlier life had seen counts not
        await asyncio.sleep(0)
        await view.wait_caught_up()

    def capture(
        self,
        host: TestHost,
        database: MemoryDatabase,
        *topics: Topic,
        stop: asyncio.Event | None = None,
    ) -> "asyncio.Task[None]":
        """Publish a database; `topics` default to the secret notes."""
        sent = topics or (SECRET,)
        ending = stop or asyncio.Event()

        async def run() -> None:
            datasets = datasets_of(host.host, sent)
            made = await publisher(
                host.host,
                "capture main",
                "main",
                reads=MemorySource(database),
                topics=sent,
                block=BLOCK,
                stop=ending,
            )
            await run_publisher(host.host, made, datasets)

        return self.spawn(supervise("capture main", run, host.board, stop=ending))

    def apply(
        self, host: TestHost, to: MemoryStore | SinkHolder, topic: Topic = SECRET
    ) -> "asyncio.Task[None]":
        """Apply a dataset to a table in memory, or to one of a target that others share."""
        holder = to if isinstance(to, SinkHolder) else self._holder(host, to, topic)
        part = f"apply {topic}:0"

        async def run() -> None:
            await apply_partition(host.host, part, holder, topic, 0)

        return self.spawn(supervise(part, run, host.board))

    @staticmethod
    def _holder(host: TestHost, store: MemoryStore, topic: Topic) -> SinkHolder:
        return SinkHolder({topic: str(topic)}, lambda: MemorySink(store), host.host.view)


async def _tick(platform: Platform) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        if platform.is_ticking:
            platform.tick()


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Run parts; they end with the block."""
    async with asyncio.TaskGroup() as tasks:
        made = Running(tasks)
        try:
            yield made
        finally:
            for task in made.all:
                task.cancel()
