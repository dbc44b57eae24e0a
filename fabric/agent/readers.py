"""Keep what reads a topic as the policy has it now: a reader a partition, and the grants.

Policy may publish a dataset while the agent runs, withdraw it, and bring it back. Whoever
reads a topic looks at each change and starts what is missing, once. Of a topic that is
no dataset the first partition's reader stays, says so and waits; the others end.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from fabric.agent.custody import Custody
from fabric.agent.host import Host
from fabric.agent.parts import apply_partition, subscribe_partition
from fabric.agent.sinks import SinkHolder
from fabric.agent.subscription import Subscription
from fabric.agent.supervisor import end, supervise
from fabric.config import Apply
from fabric.database.registry import open_sink
from fabric.metrics_lag import DATABASES
from fabric.model.errors import FabricError, Reason
from fabric.model.names import Topic

Spawn = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]

_LOOK_S = 60.0
_COUNT_S = 10.0


def target_name(number: int, apply: Apply) -> tuple[str, str]:
    """What metrics call the database of the apply that stands at `number`, from 0."""
    return DATABASES[1], apply.name or str(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A topic that somebody reads, partition by partition.

    Attributes:
        name: on the status board, in two halves: the partition stands between them.
        read: reads one partition, for ever; gets the part's name and the partition.
    """

    topic: Topic
    name: tuple[str, str]
    read: Callable[[str, int], Coroutine[object, object, None]]

    def part(self, partition: int) -> str:
        """The name of a partition's reader."""
        return f"{self.name[0]}:{partition}{self.name[1]}"


class Readers:
    """What one agent reads.

    Args:
        spawn: runs a coroutine for as long as the agent runs.
        custody_after_s: how long a sender is away before we act for it, seconds.
    """

    def __init__(self, host: Host, spawn: Spawn, *, custody_after_s: float) -> None:
        self._host = host
        self._view = host.view
        self._board = host.telemetry.board
        self._spawn = spawn
        self._custody_after_s = custody_after_s
        self._grants: dict[Topic, list[asyncio.Task[None]]] = {}
        self._holders: list[SinkHolder] = []

    # Who reads

    def apply(self, number: int, apply: Apply) -> None:
        """Start to apply to one target; returns at once."""
        holder = SinkHolder(
            apply.tables,
            lambda: open_sink(apply.kind, apply.url),
            self._view,
            told=partial(self._host.telemetry.database, *target_name(number, apply)),
        )
        self._holders.append(holder)
        self._supervise(f"quarantine {number}", lambda: self._count_quarantine(holder, number))
        for topic in apply.tables:
            self._spawn(self.keep(self._applied(holder, topic, number)))

    def _applied(self, holder: SinkHolder, topic: Topic, number: int) -> Reading:
        async def read(part: str, partition: int) -> None:
            await apply_partition(self._host, part, holder, topic, partition)

        tail = f" ({number})" if number else ""
        return Reading(topic=topic, name=(f"apply {topic}", tail), read=read)

    async def subscribe(self, topic: Topic, subscription: Subscription) -> None:
        """Read a topic for a subscriber until this is cancelled."""

        async def read(part: str, partition: int) -> None:
            await subscribe_partition(self._host, part, subscription, topic, partition)

        await self.keep(Reading(topic=topic, name=(f"subscribe {topic}", ""), read=read))

    async def close(self) -> None:
        """Close the targets; nobody reads any more."""
        for holder in self._holders:
            await holder.close()

    async def _count_quarantine(self, holder: SinkHolder, number: int) -> None:
        """Carry the quarantine's size into metrics, for ever."""
        self._board.show(f"quarantine {number}", None)
        while True:
            with contextlib.suppress(FabricError):
                for topic, waiting in (await holder.count_quarantine()).items():
                    if self._view.dataset(topic) is not None:
                        self._host.telemetry.quarantine(topic, waiting)
            await asyncio.sleep(_COUNT_S)

    # What is started

    async def keep(self, reading: Reading) -> None:
        """Keep what a topic needs running, until this is cancelled."""
        part = "".join(reading.name)
        try:
            await supervise(part, lambda: self._look(part, reading), self._board)
        finally:
            self._board.forget(part)

    async def _look(self, part: str, reading: Reading) -> None:
        self._board.show(part, None)
        running: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                self.follow_grants(reading.topic)
                for partition in range(self._partitions(reading.topic)):
                    if partition not in running or running[partition].done():
                        running[partition] = self._spawn(self._reader(reading, partition))
                await self._view.changed_policy.wait(_LOOK_S)
        finally:
            await end(running.values())  # else they would speak for those who come after

    async def _reader(self, reading: Reading, partition: int) -> None:
        part = reading.part(partition)

        async def run() -> None:
            if await self._is_known(reading, part, partition):
                await reading.read(part, partition)

        try:
            await supervise(part, run, self._board)
        finally:
            self._board.forget(part)
            self._host.telemetry.streams.left(part)
            self._host.telemetry.ends(reading, reading.topic, partition)

    async def _is_known(self, reading: Reading, part: str, partition: int) -> bool:
        """Wait for the dataset; False where it is not this partition's to wait, or has it not."""
        topic, telemetry = reading.topic, self._host.telemetry
        while partition < self._partitions(topic):
            if self._view.dataset(topic) is not None:
                telemetry.begins(reading, topic, partition)
                return True
            telemetry.ends(reading, topic, partition)
            waits = f"{topic} is no dataset of the policy; waits until it is"
            self._board.show(part, Reason.TOPIC_UNKNOWN, waits)
            await self._view.changed_policy.wait(_LOOK_S)
        return False

    def _partitions(self, topic: Topic) -> int:
        dataset = self._view.dataset(topic)
        return 1 if dataset is None else dataset.partitions

    def follow_grants(self, topic: Topic) -> None:
        """Follow the grants of a topic, once; open levels have none, nor has what is withdrawn."""
        dataset = self._view.dataset(topic)
        parts = (f"grants {topic}", f"custody {topic}")
        if dataset is None:
            for part, task in zip(parts, self._grants.pop(topic, ()), strict=False):
                task.cancel()
                self._board.forget(part)
            return
        if topic in self._grants or not self._view.policy.rules[topic.level].sealed:
            return

        async def run() -> None:
            self._board.show(parts[0], None)
            await self._view.follow_grants(self._host.log, topic)

        async def keep() -> None:
            self._board.show(parts[1], None)
            await Custody(self._host, topic, after_s=self._custody_after_s).run()

        self._grants[topic] = [self._supervise(*it) for it in zip(parts, (run, keep), strict=True)]

    def _supervise(
        self, part: str, run: Callable[[], Coroutine[object, object, None]]
    ) -> asyncio.Task[None]:
        return self._spawn(supervise(part, run, self._board))
