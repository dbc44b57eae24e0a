"""The fabric's two hosts in the load test: a sender and a subscriber without databases.

The sender's source is memory; everything behind it is the agent's own: publish machine,
lanes, epochs, log. What is measured is therefore what `fabric agent run` does for a row,
apart from the database. The subscriber is the public API, `Agent.subscribe_blocks` and
`Agent.subscribe`, with everything before it: verification, chain, opening.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import fabric
from fabric.agent.host import Host
from fabric.agent.parts import datasets_of, publisher, run_publisher
from fabric.config import BlockConfig
from fabric.kafka.log import KafkaLog
from fabric.model.names import Topic
from fabric.ports import Stored
from loadtest.links import Route
from loadtest.memory_source import MemorySource
from loadtest.meter import Measured, Meter
from loadtest.rows import Row, slices

_WAIT_S_MAX = 120.0
_ACK_S = 0.5
"""A position is made durable so often, as a subscriber would; what came since comes again."""
_LOOK_EVERY = 10_000
_SOURCE = "bench"


class _Timed(KafkaLog):
    """The log, noting when the last append to a topic was acknowledged."""

    def on_append(self, topics: Sequence[str], call: Callable[[], None]) -> None:
        """Call `call` after each acknowledged append to one of `topics`."""
        self._watched, self._call = frozenset(topics), call

    async def append(self, topic: str, partition: int, records: Any) -> Stored:
        """As KafkaLog."""
        stored = await super().append(topic, partition, records)
        if topic in self._watched:
            self._call()
        return stored


class BenchHost:
    """One agent of the load test; use it with `async with`."""

    def __init__(self, config: str, brokers: str) -> None:
        self._agent = fabric.Agent.from_config(config)
        self._brokers = brokers
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "BenchHost":
        await self._stack.enter_async_context(self._agent)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait until the host is attested."""
        async with asyncio.timeout(_WAIT_S_MAX):
            await self._agent.wait_started()

    async def _host(self) -> Host:
        return await self._agent._core.host()

    async def produce(
        self,
        topics: list[str],
        route: Route,
        rows: Sequence[Row],
        *,
        seconds: float,
        records_max: int,
        block: BlockConfig,
        transaction: int = 1_000,
    ) -> Measured:
        """Publish slices of `rows` through the agent's publisher to gateway or broker.

        Args:
            route: the gateway with this host's own certificate, or the broker with a
                super-user's, which is the way round the gateway.
            transaction: rows of one committed transaction of the source.
        """
        host = await self._host()
        context = host.identity.context()
        if route.certificate.name != "svid.pem":
            context = route.context()
        log = _Timed([self._brokers], [route.bootstrap], _keep(context), client_id="loadtest")
        names = [Topic.parse(topic) for topic in topics]
        source = MemorySource(
            names, slices(rows, transaction), seconds=seconds, records_max=records_max
        )
        log.on_append(topics, lambda: source.meter.mark(0))
        stop = asyncio.Event()
        datasets = datasets_of(host, names)
        made = await publisher(
            replace(host, log=log), f"capture {_SOURCE}", _SOURCE,
            reads=source, topics=names, block=block, stop=stop,
        )  # fmt: skip
        try:
            await _until(source.released.wait(), run_publisher(host, made, datasets), stop)
        finally:
            await log.close()
        source.meter.records = source.given
        return source.meter.result()

    async def consume(self, topic: str, records: int) -> Measured:
        """Take `records` changes with `Agent.subscribe_blocks`, each row as a dict."""
        meter, taken, acked = Meter(), 0, time.monotonic()
        async with (
            asyncio.timeout(_WAIT_S_MAX),
            aclosing(self._agent.subscribe_blocks(topic)) as deliveries,
        ):
            async for delivery in deliveries:
                rows = sum(1 for run in delivery.block.runs for _row in run.rows)
                taken += rows
                if rows:
                    meter.first_then_mark(rows)
                if taken >= records or time.monotonic() >= acked + _ACK_S:
                    await self._agent.ack(delivery.position)
                    acked = time.monotonic()
                if taken >= records:
                    break
        return meter.result()

    async def subscribe(self, topic: str, records: int) -> Measured:
        """Take `records` changes with `Agent.subscribe`, acknowledging now and then."""
        meter, taken, burst, acked = Meter(), 0, 0, time.monotonic()
        async with (
            asyncio.timeout(_WAIT_S_MAX),
            aclosing(self._agent.subscribe(topic)) as changes,
        ):
            async for _change, position in changes:
                taken += 1
                burst += 1
                if not meter.started:
                    meter.start()
                    burst = 0
                if taken >= records:
                    break
                if burst >= _LOOK_EVERY:
                    if time.monotonic() >= acked + _ACK_S:
                        await self._agent.ack(position)
                        acked = time.monotonic()
                    meter.mark(burst)
                    burst = 0
            await self._agent.ack(position)
            meter.mark(burst)
        return meter.result()


def _keep(context: ssl.SSLContext) -> Callable[[], ssl.SSLContext]:
    return lambda: context


async def _until(done: Awaitable[object], running: Any, stop: asyncio.Event | None = None) -> None:
    """Run `running` until `done`; then stop it, kindly when it listens to `stop`."""
    async with asyncio.timeout(_WAIT_S_MAX), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(running)
        await done
        if stop is None:
            task.cancel()
        else:
            stop.set()
