"""Run one capture: the source's events through the publish machine into the lanes.

The shell only moves things: what is cut, stored and let go is the machine's word,
and how a block reaches the platform is the lane's.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fabric.agent.host import Host
from fabric.agent.lane import Lane
from fabric.agent.progress import Progress
from fabric.agent.publish_machine import (
    Advance,
    Event,
    Feed,
    Limits,
    PublishMachine,
    Store,
    Stored,
    Tick,
)
from fabric.metrics_lag import DATABASES
from fabric.model.block import Block
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import FabricError
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import ChangeSource
from fabric.store.state import SourceState

_T = TypeVar("_T")
_FLUSH_S = 0.5
_DRAIN_S_MAX = 5.0
_MAINTAIN_S = 1.0
_TICK_S_MAX = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One capture as it is to run.

    Attributes:
        part: name on the status board.
        resume: where an earlier life stopped, None for a new capture.
        upto: per stream, what earlier lives had acknowledged.
    """

    part: str
    origin: Origin
    feeds: Sequence[Feed]
    limits: Limits
    resume: SourceState | None
    upto: Mapping[Stream, ChangeSequence]


class Publisher:
    """One capture while it runs; make a new one for every run.

    Args:
        lanes: one for each dataset.
        stop: set when the agent is to end.
    """

    def __init__(
        self,
        host: Host,
        plan: Plan,
        source: ChangeSource,
        *,
        lanes: Mapping[Topic, Lane],
        progress: Progress,
        stop: asyncio.Event,
    ) -> None:
        self._plan = plan
        self._source = source
        self._lanes = lanes
        self._progress = progress
        self._host = host
        self._stop = stop
        self._queues: dict[Stream, asyncio.Queue[tuple[int, Block]]] = {}
        self._ready: dict[Stream, asyncio.Queue[Block]] = {}
        self._cut: dict[Stream, int] = {}
        self._sent: dict[Stream, int] = {}
        self._room = asyncio.Event()
        self._captured = asyncio.Event()
        self._moved = asyncio.Event()
        self._advance: Advance | None = None
        self._stopping = False
        self._opened: asyncio.Event | None = None

    def on_open(self, opened: asyncio.Event | None) -> None:
        """Set `opened` once the source is open."""
        self._opened = opened

    async def run(self) -> None:
        """Publish until `stop` is set; then finish what is in flight and return.

        Raises:
            FabricError: the source or a lane failed; nothing that was not acknowledged
                is let go.
        """
        resume = self._plan.resume
        opened = await self._asked(self._source.open(resume.resume if resume else None))
        self._generation = opened.generation
        self._machine = PublishMachine(
            self._plan.origin,
            self._plan.feeds,
            generation=opened.generation,
            upto=self._plan.upto,
            limits=self._plan.limits,
        )
        self._host.telemetry.board.show(self._plan.part, None)
        if self._opened is not None:
            self._opened.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(part) for part in self._parts()]
                await self._stop.wait()
                self._stopping = True
                await self._drain()
                for task in running:
                    task.cancel()
        finally:
            # Whoever ends a capture may lose patience while heads are written.
            try:
                await self._progress.flush()
            finally:
                await self._source.close()

    def _parts(self) -> Sequence[Coroutine[object, object, None]]:
        streams = self._machine.streams
        self._queues = {stream: asyncio.Queue(2) for stream in streams}  # in flight, and ahead
        self._ready = {stream: asyncio.Queue(2) for stream in streams}
        self._cut, self._sent = dict.fromkeys(streams, 0), dict.fromkeys(streams, 0)
        senders = [send(stream) for stream in streams for send in (self._pack, self._send)]
        keepers = [self._maintain(lane) for lane in self._lanes.values()]
        rest = [self._read(), self._tick(), self._let_go(), self._watch()]
        return [*senders, *keepers, *rest]

    async def _drain(self) -> None:
        """Wait, not for ever, until what is in flight is acknowledged and written down."""
        self._machine.close()
        with contextlib.suppress(TimeoutError):  # what is not acknowledged will be sent again
            async with asyncio.timeout(_DRAIN_S_MAX):
                while not self._machine.is_idle:
                    self._moved.clear()
                    await self._moved.wait()
        await self._write_down()

    # From the source

    async def _read(self) -> None:
        async for event in self._source.read():
            if self._stopping:
                return
            self._step(event)
            if self._plan.limits.linger_s:  # else what waits, waits for an acknowledgement
                self._captured.set()
            while self._machine.is_full:
                self._room.clear()
                await self._room.wait()

    async def _tick(self) -> None:
        """Give the machine a Tick when it said it needs one."""
        while True:
            due, now = self._machine.next_at(), self._host.clock.now()
            wait_s = _TICK_S_MAX if due is None else (due - now).total_seconds()
            if wait_s <= 0:
                self._step(Tick())
                await asyncio.sleep(0)
                continue
            self._captured.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, _TICK_S_MAX)):
                    await self._captured.wait()

    def _step(self, event: Event) -> None:
        for command in self._machine.step(event, self._host.clock.now()):
            match command:
                case Store():
                    self._enqueue(command.block)
                case Advance():
                    self._advance = command
                    self._moved.set()

    # To the platform

    def _enqueue(self, block: Block) -> None:
        """A block that has none before it goes at once; another is packed meanwhile."""
        stream, number = block.stream, self._cut[block.stream]
        self._cut[stream] += 1
        if self._has_one_before(stream, number):
            self._queues[stream].put_nowait((number, block))
        else:
            self._ready[stream].put_nowait(block)

    def _has_one_before(self, stream: Stream, number: int) -> bool:
        """Whether a block of the stream that was cut before this one is still to arrive."""
        return number > self._sent[stream]

    async def _pack(self, stream: Stream) -> None:
        """Pack a block while the one before it is on its way."""
        queue, lane = self._queues[stream], self._lanes[stream.topic]
        while True:
            number, block = await queue.get()
            # The one before it may have arrived since: packing would wait for what is no more.
            if self._has_one_before(stream, number):
                await lane.pack(block)
            self._ready[stream].put_nowait(block)

    async def _send(self, stream: Stream) -> None:
        ready, lane = self._ready[stream], self._lanes[stream.topic]
        while True:
            block = await ready.get()
            kept = await lane.store(block)
            self._sent[stream] += 1
            await self._progress.note(kept.head)
            self._step(Stored(block=block, plaintext_bytes=kept.plaintext_bytes))
            self._room.set()
            self._moved.set()

    async def _maintain(self, lane: Lane) -> None:
        while True:
            await asyncio.sleep(_MAINTAIN_S)
            await lane.maintain()

    # Back to the source

    async def _let_go(self) -> None:
        """Write heads before a block must wait for that; now and then let the source go on."""
        clock, written = asyncio.get_running_loop().time, 0.0
        while True:
            if clock() - written >= _FLUSH_S or self._progress.is_sync_due:
                written = clock()
                await self._write_down()
            else:
                await self._progress.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self._progress.due.wait()

    async def _write_down(self) -> None:
        """Write progress, a group in one go, and release what is written."""
        wanted, self._advance = self._advance, None
        if wanted is None:
            await self._progress.flush()
            return
        state = SourceState(
            generation=self._generation, position=wanted.position, resume=wanted.resume
        )
        await self._progress.advance(state)
        await self._source.release(wanted.position)

    async def _asked(self, question: Coroutine[object, object, _T]) -> _T:
        """What the source answers; metrics tell whether it does."""
        name = self._plan.origin.source
        try:
            answer = await question
        except FabricError as exc:
            self._host.telemetry.database(DATABASES[0], name, exc.reason)
            raise
        self._host.telemetry.database(DATABASES[0], name, None)
        return answer

    async def _watch(self) -> None:
        while True:
            # The time before: by then, at least, everything that was committed is in the figures.
            name, asked = self._plan.origin.source, self._host.clock.now()
            status = await self._asked(self._source.status())
            self._host.telemetry.figures(name, status, asked)
            self._host.telemetry.outbox(name, self._machine.outstanding)
            self._host.telemetry.waits(self._plan.part, await self._source.waits())
            await asyncio.sleep(_MAINTAIN_S)
