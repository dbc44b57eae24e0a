"""Read one partition of an open dataset into a target: decode, drop duplicates, apply."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from fabric.agent.completeness import completeness_after
from fabric.agent.host import BlockTarget, Host
from fabric.agent.lag_meter import LagMeter
from fabric.agent.log_check import starts_at
from fabric.agent.open_form import Gathered, gather, try_decode
from fabric.agent.read_machine import Log, ReadMachine
from fabric.model.block import Block, trim
from fabric.model.change import ZERO
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.names import Stream
from fabric.policy.types import Dataset
from fabric.ports import Record, StreamState

_PAUSE_S = 1.0
_DUPLICATE = "duplicate"


def next_step(
    state: StreamState | None, gathered: Gathered, log: Log
) -> tuple[Block, StreamState] | None:
    """What of `gathered` is new, and the state after it; None when nothing is."""
    high = ZERO if state is None else state.high
    rest = trim(gathered.block, high)
    if not rest.runs:
        return None
    whole = completeness_after(state, rest)
    new = StreamState(
        high=rest.upto,
        chain=b"",
        offset=gathered.offset + 1,
        cluster=log.cluster,
        topic_id=log.topic_id,
        incomplete=whole.incomplete,
        in_snapshot=whole.in_snapshot,
    )
    return replace(rest, after=max(rest.after, high)), new


class OpenReader:
    """One partition while it is read; make a new one for every run."""

    def __init__(
        self,
        host: Host,
        dataset: Dataset,
        partition: int,
        *,
        sink: BlockTarget,
        part: str,
    ) -> None:
        self._host = host
        self._part = part
        self._dataset = dataset
        self._topic = dataset.topic
        self._partition = partition
        self._sink = sink
        self._meter = LagMeter(
            host, (dataset.topic, partition), sink=sink, part=part, has_signs=False
        )
        self._decode_s = 0.0
        self._bytes = 0
        self._is_paused = False

    async def run(self) -> None:
        """Read for ever; raises as SealedReader.run, and APPLY_FAILED when the dataset stops."""
        place = str(self._topic)
        cluster, topic_id = await self._host.log.identity(place)
        self._log = Log(cluster=cluster, topic_id=topic_id)
        streams = await self._sink.streams(self._topic)
        states = {s: state for s, state in streams.items() if s.partition == self._partition}
        self._host.telemetry.stands(self._topic, states.values())
        self._machine = ReadMachine(self._log, states)
        where = (place, self._partition)
        position, is_sure = await starts_at(
            self._host.log, self._machine, states, place=where, is_known=self._is_known
        )
        self._meter.stands_at(position)
        if not is_sure:
            self._host.telemetry.read_anew(self._topic, self._partition)
        self._host.telemetry.board.show(self._part, None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self._meter.run())

    def _is_known(self, stream: Stream, state: StreamState, record: Record) -> bool | None:
        """Whether a record of the stream is not newer than what was applied."""
        good, _ = try_decode([(record.offset, record.value)], self._dataset)
        mine = [item.change for item in good if item.change.origin == stream.origin]
        return all(change.sequence <= state.high for change in mine) if mine else None

    async def _read(self) -> None:
        start = self._meter.position
        async for records in self._host.log.read(str(self._topic), self._partition, start):
            if records:
                self._meter.came(records)
                self._meter.takes(records[0])
                await self._take(records)
                self._meter.stands_at(records[-1].offset + 1)

    async def _until_fresh(self) -> None:
        """Wait while the view of the members is too old to move rows by."""
        while True:
            try:
                self._host.view.check_rows(self._dataset, self._host.clock.now())
            except DeniedError as exc:
                await self._pause(exc.reason)
            else:
                return

    async def _pause(self, reason: Reason, why: str = "") -> None:
        self._is_paused = True
        self._host.telemetry.paused(self._part, reason, why)
        await self._host.view.changed.wait(_PAUSE_S)

    def _goes_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._host.telemetry.paused(self._part, None)

    async def _take(self, records: Sequence[Record]) -> None:
        self._bytes = sum(len(record.value or b"") for record in records)
        rest = [(record.offset, record.value) for record in records]
        while rest:
            await self._until_fresh()
            self._goes_on()
            rest = rest[await self._take_some(rest) :]

    async def _take_some(self, rest: Sequence[tuple[int, bytes | None]]) -> int:
        """Take as many of these as are decoded at a time, and say how many they were."""
        began = self._host.clock.monotonic()
        good, bad = await asyncio.to_thread(try_decode, rest, self._dataset)
        self._decode_s = self._host.clock.monotonic() - began
        for offset, reason in bad:
            self._host.telemetry.dropped(self._topic, offset, reason, "")
        for gathered in gather(good, self._topic, self._partition):
            await self._apply(gathered)
            self._goes_on()
        return len(good) + len(bad)

    async def _apply(self, gathered: Gathered) -> None:
        stream, is_told = gathered.block.stream, False
        while True:
            state = self._machine.state(stream)
            step = next_step(state, gathered, self._log)
            if step is None:
                self._host.telemetry.dropped(self._topic, gathered.offset, None, _DUPLICATE)
                return
            block, new = step
            if not is_told:
                self._host.telemetry.opened(
                    block, "", sealed_bytes=self._bytes, seconds=self._decode_s
                )
                self._bytes, is_told = 0, True
            began = self._host.clock.monotonic()
            try:
                with self._meter.giving(block):
                    applied = await self._sink.apply(block, state, new)
            except FabricError as exc:
                if exc.reason is Reason.NOT_READY:  # somebody else comes first
                    await self._pause(exc.reason, exc.args[0])
                    await self._until_fresh()
                elif exc.reason is Reason.OVERLOADED:
                    self._machine.load(stream, await self._sink.state(stream))
                else:
                    raise
                continue
            self._machine.load(stream, applied.state)
            self._host.telemetry.apply_took(self._topic, self._host.clock.monotonic() - began)
            self._host.telemetry.applied(block, applied, self._part)
            return
