"""Read one partition of a sealed dataset into a target: verify, open, judge, apply.

Records are verified and opened in worker threads, a few ahead of the one that is
applied; judging and applying go strictly in order, as the read machine says.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fabric.admit.reader import admit_read
from fabric.admit.view import Place
from fabric.agent import read_machine as m
from fabric.agent.view import WorldView
from fabric.model.block import Block
from fabric.model.errors import FabricError, Reason
from fabric.model.names import HostId, Stream, Topic
from fabric.policy.types import Dataset
from fabric.ports import Applied, ChangeSink, Clock, Log, Record, StreamState
from fabric.seal.epoch import VerifiedStart
from fabric.seal.hpke import HpkeKey
from fabric.seal.opening import open_
from fabric.seal.verify import VerifiedEnvelope

_AHEAD_MAX = 6
_PAUSE_S = 1.0
_LAG_S = 10.0


class ReadWatcher(Protocol):
    """Who is told how a reader fares: status board, metrics and audit."""

    def paused(self, topic: Topic, partition: int, reason: Reason | None) -> None:
        """The partition waits for `reason`; None: it goes on."""

    def stopped(self, stream: Stream, reason: Reason) -> None:
        """The stream ended."""

    def dropped(self, topic: Topic, offset: int, reason: Reason | None, outcome: str) -> None:
        """A record was passed over; one with a reason is audited."""

    def opened(self, block: Block, suite: str, *, sealed_bytes: int, seconds: float) -> None:
        """A record was verified and opened; `suite` is empty for the open form."""

    def applied(self, block: Block, applied: Applied) -> None:
        """A block's changes are in the target."""

    def lag(self, topic: Topic, partition: int, *, records: int, heard_s: float) -> None:
        """How many records the log is ahead of the target; seconds since one came."""


class LogWithIdentity(Log, Protocol):
    """A log that says which log it is."""

    async def identity(self, topic: str) -> tuple[str, str]:
        """Cluster id and topic id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What every reader of this host needs."""

    me: HostId
    view: WorldView
    log: LogWithIdentity
    clock: Clock
    keys: Callable[[], Sequence[HpkeKey]]
    watcher: ReadWatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """A record after admission, and, where it could be opened, its block."""

    first: m.Came | m.Refused
    second: m.Opened | m.NotOpened | None


class SealedReader:
    """One partition while it is read; make a new one for every run.

    Args:
        sink: open, and serving the dataset's topic.
        well: called once reading has begun.
    """

    def __init__(
        self,
        reading: Reading,
        dataset: Dataset,
        partition: int,
        *,
        sink: ChangeSink,
        well: Callable[[], None],
    ) -> None:
        self._on = reading
        self._dataset = dataset
        self._topic = dataset.topic
        self._partition = partition
        self._sink = sink
        self._well = well
        self._book = reading.view.book(dataset.topic)
        self._position = 0
        self._heard_at = reading.clock.monotonic()

    async def run(self) -> None:
        """Read for ever.

        Raises:
            DeniedError: NOT_A_CONSUMER; HISTORY_LOST.
            UnavailableError: broker or database.
        """
        place = str(self._topic)
        cluster, topic_id = await self._on.log.identity(place)
        self._machine = m.ReadMachine(
            self._on.me, m.Log(cluster=cluster, topic_id=topic_id), await self._states()
        )
        first, end = await self._on.log.bounds(place, self._partition)
        self._position = self._machine.start_offset(first, end)
        self._well()
        async with asyncio.TaskGroup() as tasks:
            queue: asyncio.Queue[tuple[Record, asyncio.Task[_Looked]]] = asyncio.Queue(_AHEAD_MAX)
            tasks.create_task(self._fetch(queue, tasks))
            tasks.create_task(self._take(queue))
            tasks.create_task(self._measure())

    async def _states(self) -> Mapping[Stream, StreamState]:
        streams = await self._sink.streams(self._topic)
        return {s: state for s, state in streams.items() if s.partition == self._partition}

    async def _fetch(
        self, queue: "asyncio.Queue[tuple[Record, asyncio.Task[_Looked]]]", tasks: asyncio.TaskGroup
    ) -> None:
        async for records in self._on.log.read(str(self._topic), self._partition, self._position):
            for record in records:
                await queue.put((record, tasks.create_task(self._look(record))))

    async def _take(self, queue: "asyncio.Queue[tuple[Record, asyncio.Task[_Looked]]]") -> None:
        while True:
            record, task = await queue.get()
            await self._handle(record, await task)
            self._position = record.offset + 1
            self._heard_at = self._on.clock.monotonic()

    # Looking: no order matters

    async def _look(self, record: Record) -> _Looked:
        view, began = self._on.view, self._on.clock.monotonic()
        try:
            verified = await asyncio.to_thread(self._admit, record)
            start = self._book.start(verified.envelope.header.start_hash, view.members)
        except FabricError as exc:
            refused = m.Refused(offset=record.offset, reason=exc.reason)
            return _Looked(first=refused, second=None)
        envelope = verified.envelope
        came = m.Came(
            offset=record.offset, header=envelope.header, digest=envelope.hash, start=start
        )
        second = await self._open(verified, start)
        if isinstance(second, m.Opened):
            self._on.watcher.opened(
                second.block,
                envelope.header.suite,
                sealed_bytes=len(record.value or b""),
                seconds=self._on.clock.monotonic() - began,
            )
        return _Looked(first=came, second=second)

    def _admit(self, record: Record) -> VerifiedEnvelope:
        place = Place(record.topic, record.partition)
        return admit_read(record.value or b"", place, self._on.view.door, appended=record.timestamp)

    async def _open(
        self, verified: VerifiedEnvelope, start: VerifiedStart | None
    ) -> m.Opened | m.NotOpened | None:
        if start is None:
            return None
        try:
            secret = self._book.secret(start, self._on.keys(), self._on.view.members)
            block = await asyncio.to_thread(open_, verified, secret, self._dataset.schema)
        except FabricError as exc:
            return m.NotOpened(reason=exc.reason)
        return m.Opened(block=block)

    # Judging and applying: strictly in order

    async def _handle(self, record: Record, looked: _Looked) -> None:
        """Take one record through the machine until it is done with."""
        command = self._machine.step(looked.first)
        paused: Reason | None = None
        while not isinstance(command, m.Drop | m.Stop | m.Done):
            match command:
                case m.Open():
                    assert looked.second is not None
                    command = self._machine.step(looked.second)
                case m.Apply():
                    command = self._machine.step(await self._apply(command))
                case m.Pause():
                    paused = command.reason
                    looked = await self._pause(record, paused)
                    command = self._machine.step(looked.first)
                case m.Reload():
                    self._machine.load(command.stream, await self._sink.state(command.stream))
                    command = self._machine.step(looked.first)
        self._settle(record, command)
        if paused is not None:
            self._on.watcher.paused(self._topic, self._partition, None)

    def _settle(self, record: Record, command: m.Drop | m.Stop | m.Done) -> None:
        watcher = self._on.watcher
        if isinstance(command, m.Drop):
            watcher.dropped(self._topic, record.offset, command.reason, command.outcome)
        elif isinstance(command, m.Stop):
            watcher.stopped(command.stream, command.reason)

    async def _apply(self, command: m.Apply) -> m.Applied | m.NotApplied:
        try:
            applied = await self._sink.apply(command.block, command.expected, command.new)
        except FabricError as exc:
            if exc.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            return m.NotApplied(reason=exc.reason)
        self._on.watcher.applied(command.block, applied)
        return m.Applied(state=applied.state)

    async def _pause(self, record: Record, reason: Reason) -> _Looked:
        """Wait until the world has changed, then look at the same record again."""
        self._on.watcher.paused(self._topic, self._partition, reason)
        await self._on.view.changed.wait(_PAUSE_S)
        return await self._look(record)

    async def _measure(self) -> None:
        while True:
            _, end = await self._on.log.bounds(str(self._topic), self._partition)
            self._on.watcher.lag(
                self._topic,
                self._partition,
                records=max(0, end - self._position),
                heard_s=self._on.clock.monotonic() - self._heard_at,
            )
            await asyncio.sleep(_LAG_S)


__all__ = ["LogWithIdentity", "ReadWatcher", "Reading", "SealedReader"]
