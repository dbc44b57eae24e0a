"""One measured client process: takes jobs as JSON lines, answers each with one line.

`python -m loadtest.worker peers` or `python -m loadtest.worker host AGENT_TOML BROKERS`.
One job at a time, so that one client has the machine to itself.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from fabric.config import BlockConfig
from loadtest import peers
from loadtest.hosts import BenchHost
from loadtest.links import Route
from loadtest.meter import Measured
from loadtest.open_records import open_encoder
from loadtest.rows import Row, logical, read_pool

Job: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[[Job], Awaitable[Measured]]


class Peers:
    """Jobs of the peers."""

    def __init__(self) -> None:
        self._confluent: dict[str, peers.Confluent] = {}
        self._pool: list[Row] = []

    async def __call__(self, job: Job) -> Measured:
        """Do one job."""
        is_logical = bool(job.get("logical"))
        if job["op"] == "produce":
            return await self._produce(job, is_logical)
        route, topic = Route.of(job["route"]), job["topic"]
        span = (job["first"], job["end"])
        if job["peer"] == "aiokafka":
            codec = peers.fastavro_codec(logical=is_logical)
            return await peers.aiokafka_consume(route, topic, span, codec)
        return peers.confluent_consume(route, topic, span, self._peer(job, is_logical))

    async def _produce(self, job: Job, is_logical: bool) -> Measured:
        rows = _pool(self._pool, job)
        load = peers.Load(
            route=Route.of(job["route"]),
            topic=job["topic"],
            rows=[logical(row) for row in rows] if is_logical else rows,
            seconds=job["seconds"],
            records_max=job["records_max"],
        )
        if job["peer"] == "aiokafka":
            encode = peers.schemaless(peers.fastavro_codec(logical=is_logical))
            return await peers.aiokafka_produce(load, encode)
        if job["peer"] == "aiokafka-open":
            encode = open_encoder(job["origin"], job["schema_id"])
            return await peers.aiokafka_produce(load, encode)
        return peers.confluent_produce(load, self._peer(job, is_logical))

    def _peer(self, job: Job, is_logical: bool) -> peers.Confluent:
        topic = job["topic"]
        if topic not in self._confluent:
            encrypted = job["peer"] == "csfle"
            self._confluent[topic] = peers.Confluent(topic, encrypted=encrypted, logical=is_logical)
        return self._confluent[topic]


class Hosts:
    """Jobs of one fabric host."""

    def __init__(self, host: BenchHost) -> None:
        self._host = host
        self._pool: list[Row] = []

    async def __call__(self, job: Job) -> Measured:
        """Do one job."""
        match job["op"]:
            case "ready":
                await self._host.ready()
                return {}
            case "produce":
                return await self._host.produce(
                    job["topics"],
                    Route.of(job["route"]),
                    _pool(self._pool, job),
                    seconds=job["seconds"],
                    records_max=job["records_max"],
                    block=BlockConfig(**job.get("block", {})),
                    transaction=job.get("transaction", 1_000),
                )
            case "consume":
                return await self._host.consume(job["topic"], job["records"])
            case _:
                return await self._host.subscribe(job["topic"], job["records"])


def _pool(pool: list[Row], job: Job) -> list[Row]:
    if not pool:
        pool.extend(read_pool(Path(job["pool"])))
    return pool


async def _serve(answer: Answer) -> None:
    """Answer jobs until the input ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        gc.collect()
        try:
            told: dict[str, Any] = {"ok": await answer(job)}
        except Exception as exc:  # the bench wants to know, whatever it was
            told = {"error": f"{type(exc).__name__}: {exc}"}
            import traceback

            traceback.print_exc()
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def _main(kind: str, arguments: list[str]) -> None:
    if kind == "peers":
        await _serve(Peers())
        return
    async with BenchHost(*arguments) as host:
        await _serve(Hosts(host))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
