"""Make the broker one that has run for days: requests until its JVM has little left to compile.

On two cores a compiler at work takes one of them, 30 ms at a time, from whoever is measured:
slow answers of that time say something of the broker's youth and nothing of its clients. What
is left to compile afterwards is done in idle time.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from loadtest.links import Route

_SPAN_S = 2.0
_BUSY_MAX = 0.05
_WRITERS = 3
_VALUES = (bytes(300), bytes(1_400), bytes(8_000))
_FETCH_MS = 100
_TICKS_S = os.sysconf("SC_CLK_TCK")
_IDLE_TIME = 19
"""The weakest of nice values."""


def _compilers(pid: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Thread ids of a JVM's compilers, and the rest of their `stat`, from the state on."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            told = (task / "stat").read_text()
        except OSError:  # it has just ended
            continue
        name, _, rest = told.partition(" (")[2].rpartition(") ")
        if name.startswith(("C1 ", "C2 ")):
            yield int(task.name), rest.split()


def compilers_cpu_s(pid: int) -> float:
    """CPU seconds that a JVM's compilers have used."""
    return sum(int(stat[11]) + int(stat[12]) for _, stat in _compilers(pid)) / _TICKS_S


def compile_when_idle(pid: int) -> None:
    """Let a JVM's compilers wait for everybody else."""
    for thread, _ in _compilers(pid):
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread, _IDLE_TIME)


def warm(route: Route, topic: str, pid: int, *, limit_s: float, say: Callable[[str], None]) -> None:
    """Send small requests until the broker's compilers rest, at most `limit_s`.

    Args:
        topic: of one partition, for nothing else.
        pid: the broker's process.
    """
    began, busy = time.perf_counter(), 1.0
    while busy > _BUSY_MAX and time.perf_counter() - began < limit_s:
        before, start = compilers_cpu_s(pid), time.perf_counter()
        asyncio.run(_requests(route, topic, _SPAN_S))
        busy = (compilers_cpu_s(pid) - before) / (time.perf_counter() - start)
    took = time.perf_counter() - began
    say(f"the broker's compilers take {busy:.0%} of a core after {took:.0f} s of small requests")


async def _requests(route: Route, topic: str, seconds: float) -> None:
    """Write as fast as acknowledgements come, and read it, for `seconds`."""
    place = TopicPartition(topic, 0)
    producers = [
        AIOKafkaProducer(**route.aiokafka(), acks="all", linger_ms=0) for _ in range(_WRITERS)
    ]
    consumer = AIOKafkaConsumer(**route.aiokafka(), group_id=None, auto_offset_reset="latest")
    clients: list[Any] = [*producers, consumer]
    started: list[Any] = []
    try:
        for client in clients:
            await client.start()
            started.append(client)
        consumer.assign([place])
        end = time.perf_counter() + seconds
        work: list[Coroutine[Any, Any, None]] = [_write(each, topic, end) for each in producers]
        async with asyncio.TaskGroup() as group:
            for part in (*work, _read(consumer, end)):
                group.create_task(part)
    finally:
        for client in started:
            await client.stop()


async def _write(producer: Any, topic: str, end: float) -> None:
    while time.perf_counter() < end:
        for value in _VALUES:
            await producer.send_and_wait(topic, value, partition=0)


async def _read(consumer: Any, end: float) -> None:
    while time.perf_counter() < end:
        await consumer.getmany(timeout_ms=_FETCH_MS)
