"""Read one partition of a sealed dataset into a target: verify, open, judge, apply.

Records are verified and opened in worker threads, a few ahead of the one that is
applied; judging and applying go strictly in order, as the read machine says. When
something is carried at last that vouches for blocks which were passed over, reading
goes back to the first of them.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from fabric.admit.door import parse_sealed
from fabric.admit.reader import RuledOut, admit_read, is_trusted_still
from fabric.admit.view import Place
from fabric.agent import read_machine as m
from fabric.agent.anchoring import AnchorSearch
from fabric.agent.aside import aside
from fabric.agent.host import BlockTarget, Host
from fabric.agent.lag_meter import LagMeter
from fabric.agent.log_check import is_accepted, starts_at
from fabric.agent.receipting import Receipting
from fabric.agent.tick_machine import is_hopeless
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.names import Stream
from fabric.policy.types import Dataset
from fabric.ports import Record, StreamState
from fabric.seal.envelope import Header
from fabric.seal.epoch import VerifiedStart
from fabric.seal.opening import open_, open_quickly
from fabric.seal.secret import EpochSecret
from fabric.seal.verify import VerifiedEnvelope

_AHEAD_MAX = 3
_BACK_S = 0.5
_SHORT_BYTES_MAX = 16 * 1024
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """A record after admission, and, where it could be opened, its block.

    Attributes:
        second: None too where its stream had stopped: nobody asks for its block.
        ruled_out: set of a sender's own block that the policy refuses by now.
    """

    first: m.Came | m.Refused
    second: m.Opened | m.NotOpened | None
    verified: VerifiedEnvelope | None = None
    ruled_out: Header | None = None


_Queue: TypeAlias = "asyncio.Queue[tuple[Record, asyncio.Task[_Looked]]]"


class _GoBack(Exception):
    """Something was carried that vouches for what was passed over."""


class SealedReader:
    """One partition while it is read; make a new one for every run.

    Args:
        sink: open, and serving the dataset's topic.
        part: name on the status board.
        receipts: set when the sink commits what it is given.
    """

    def __init__(
        self,
        host: Host,
        dataset: Dataset,
        partition: int,
        *,
        sink: BlockTarget,
        part: str,
        receipts: Receipting | None = None,
    ) -> None:
        self._host = host
        self._part = part
        self._dataset = dataset
        self._topic = dataset.topic
        self._partition = partition
        self._sink = sink
        self._receipts = receipts
        self._book = host.view.book(dataset.topic)
        self._search = AnchorSearch(host, dataset.topic, partition)
        self._handling = asyncio.Lock()
        self._streams = host.telemetry.streams
        self._shown = {*self._streams.waiting(part)}
        # What an earlier run showed stands until this one has come to what it is about.
        self._unsure = {*self._shown}
        self._acted_on: set[tuple[str, bytes]] = set()
        self._is_sure = True
        self._why = ""
        self._meter = LagMeter(
            host, (dataset.topic, partition), sink=sink, part=part, has_signs=True
        )

    async def run(self) -> None:
        """Read for ever.

        Raises:
            DeniedError: NOT_A_CONSUMER; HISTORY_LOST.
            UnavailableError: broker or database.
        """
        place = str(self._topic)
        cluster, topic_id = await self._host.log.identity(place)
        states = await self._states()
        self._host.telemetry.stands(self._topic, states.values())
        self._machine = m.ReadMachine(m.Log(cluster=cluster, topic_id=topic_id), states)
        if self._receipts is not None:
            await self._receipts.resume(states)
        position, self._is_sure = await self._where(states)
        self._meter.stands_at(position)
        if not self._is_sure:
            self._host.telemetry.read_anew(self._topic, self._partition)
        self._host.telemetry.board.show(self._part, None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_reading())
            tasks.create_task(self._meter.run())
            if self._receipts is not None:
                tasks.create_task(self._receipts.run())

    async def _where(self, states: Mapping[Stream, StreamState]) -> tuple[int, bool]:
        log, place = self._host.log, (str(self._topic), self._partition)
        return await starts_at(log, self._machine, states, place=place, is_known=is_accepted)

    async def _keep_reading(self) -> None:
        while True:
            with contextlib.suppress(_GoBack):
                await self._read()

    async def _read(self) -> None:
        """Read on from the position; raises _GoBack when the position was set back."""
        self._handling = asyncio.Lock()
        try:
            async with asyncio.TaskGroup() as tasks:
                queue: _Queue = asyncio.Queue(_AHEAD_MAX)
                tasks.create_task(self._fetch(queue, tasks))
                tasks.create_task(self._take(queue))
                tasks.create_task(self._watch_held())
        except* _GoBack:
            back = self._machine.release()
            assert back is not None
            self._meter.stands_at(back)
        raise _GoBack

    async def _states(self) -> Mapping[Stream, StreamState]:
        streams = await self._sink.streams(self._topic)
        return {s: state for s, state in streams.items() if s.partition == self._partition}

    def _show_held(self) -> None:
        """Tell which streams began and ended to be held."""
        held = self._machine.held.keys()
        self._unsure -= held
        for stream in held - self._shown:
            self._streams.unanchored(stream, self._part)
        for stream in self._shown - held - self._unsure:
            self._streams.anchored(stream, self._part)
        self._shown = {*held, *self._unsure}

    async def _watch_held(self) -> None:
        """Go back once more of what was passed over is carried, between two records."""
        seen: tuple[int, int] | None = None
        while True:
            await asyncio.sleep(_BACK_S)
            held = self._machine.held.values()
            now_seen = (self._host.view.version, sum(len(item.seen) for item in held))
            if seen == now_seen:
                continue
            seen = now_seen
            await self._handling.acquire()
            # Asked only now: the record that was in hand may have ended a holding.
            carried = self._search.carried(held)
            if carried <= self._acted_on:
                self._handling.release()
                continue
            self._acted_on = carried  # what is held no more is forgotten here
            self._search.forget()
            raise _GoBack  # with the lock: nothing is handled before the position is set back

    async def _fetch(self, queue: "_Queue", tasks: asyncio.TaskGroup) -> None:
        start = self._meter.position
        async for records in self._host.log.read(str(self._topic), self._partition, start):
            self._meter.came(records)
            for record in records:
                await queue.put((record, tasks.create_task(self._look(record))))

    async def _take(self, queue: "_Queue") -> None:
        while True:
            record, task = await queue.get()
            self._meter.takes(record)
            looked = await task
            async with self._handling:
                await self._handle(record, looked)
                self._show_held()
            self._meter.stands_at(record.offset + 1)

    # Looking: no order matters

    async def _look(self, record: Record) -> _Looked:
        view, began = self._host.view, self._host.clock.monotonic()
        try:
            is_short = len(record.value or b"") <= _SHORT_BYTES_MAX
            admit = partial(self._admit, record, is_quick=is_short)
            verified, second = await aside(admit, is_short=is_short)
            start = self._book.start(verified.envelope.header.start_hash, view.members)
            is_live = is_trusted_still(verified, view.door, self._host.clock.now())
        except FabricError as exc:
            reason = self._reason(record, exc.reason)
            refused = m.Refused(offset=record.offset, reason=reason)
            ruled_out = exc.header if isinstance(exc, RuledOut) else None
            return _Looked(first=refused, second=None, ruled_out=ruled_out)
        envelope, header = verified.envelope, verified.envelope.header
        came = m.Came(
            offset=record.offset,
            header=header,
            digest=envelope.hash,
            start=start,
            before_join=start is not None and self._book.is_before_join(start, view.members),
            is_live=is_live,
            is_too_old=start is None
            and self._book.is_too_old(header.host, header.epoch_number, view.members),
        )
        if second is None and not self._is_over(header):
            second = await self._open(verified, start)
        if isinstance(second, m.Opened):
            self._host.telemetry.opened(
                second.block,
                header.suite,
                sealed_bytes=len(record.value or b""),
                seconds=self._host.clock.monotonic() - began,
            )
        return _Looked(first=came, second=second, verified=verified)

    def _reason(self, record: Record, reason: Reason) -> Reason:
        """A result that nobody has heard of is waited for, but not for ever."""
        view, now = self._host.view, self._host.clock.now()
        if reason is not Reason.RESULT_UNKNOWN:
            return reason
        whole_at = view.members.whole_at if view.is_read else None
        if not is_hopeless(record.timestamp, now, whole_at=whole_at):
            return reason
        header, members = parse_sealed(record.value or b"").header, view.members
        is_lagging = members.is_named(header.result_id) or members.knows(header.result_id)
        # Dropping an honest block because a full view let its result go would be a loss.
        may_be_good = is_lagging or members.may_have_forgotten(header.host, header.sealed_at)
        return reason if may_be_good else Reason.NOT_ATTESTED

    def _admit(
        self, record: Record, *, is_quick: bool
    ) -> tuple[VerifiedEnvelope, m.Opened | m.NotOpened | None]:
        """Verify, and open at once where the secret is at hand, and where that `is_quick`."""
        self._host.view.check_rows(self._dataset, self._host.clock.now())
        place = Place(record.topic, record.partition)
        verified = admit_read(
            record.value or b"", place, self._host.view.door, appended=record.timestamp
        )
        header = verified.envelope.header
        secret = None if self._is_over(header) else self._book.known(header.start_hash)
        if secret is None:
            return verified, None
        if not is_quick:
            return verified, self._opened(verified, secret)
        block = open_quickly(verified, secret, self._dataset.schema)
        return verified, None if block is None else m.Opened(block=block)

    def _is_over(self, header: Header) -> bool:
        """Whether the stream has stopped: what follows is dropped, and costs no more than that."""
        return m.stream_of(header) in self._machine.stopped

    async def _open(
        self, verified: VerifiedEnvelope, start: VerifiedStart | None
    ) -> m.Opened | m.NotOpened | None:
        if start is None:
            return None
        try:
            secret = self._book.secret(
                start, self._host.identity.keyring.hpke, self._host.view.door
            )
        except FabricError as exc:
            return m.NotOpened(reason=exc.reason)
        return await asyncio.to_thread(self._opened, verified, secret)

    def _opened(self, verified: VerifiedEnvelope, secret: EpochSecret) -> m.Opened | m.NotOpened:
        try:
            return m.Opened(block=open_(verified, secret, self._dataset.schema))
        except FabricError as exc:
            return m.NotOpened(reason=exc.reason)

    # Judging and applying: strictly in order

    async def _handle(self, record: Record, looked: _Looked) -> None:
        """Take one record through the machine until it is done with."""
        command = self._machine.step(looked.first)
        paused: Reason | None = None
        was_live = isinstance(looked.first, m.Came) and looked.first.is_live
        while not isinstance(command, m.Drop | m.Stop | m.Done):
            match command:
                case m.Search():
                    assert looked.verified is not None
                    cover = await self._search.cover(record.offset, looked.verified)
                    command = self._machine.step(m.Searched(cover=cover))
                case m.Open() if looked.second is None:  # its stream was over, and begins anew
                    looked = _still(await self._look(record), was_live)
                    command = self._machine.step(looked.first)
                case m.Open():
                    assert looked.second is not None
                    command = self._machine.step(looked.second)
                case m.Apply():
                    done = await self._apply(command)
                    command = self._machine.step(done)
                    if self._receipts is not None and isinstance(done, m.Applied):
                        assert isinstance(looked.first, m.Came)
                        self._receipts.applied(looked.first.header, looked.first.digest)
                case m.Pause():
                    paused = command.reason
                    looked = _still(await self._pause(record, paused), was_live)
                    command = self._machine.step(looked.first)
                case m.Reload():
                    self._machine.load(command.stream, await self._sink.state(command.stream))
                    command = self._machine.step(looked.first)
        if isinstance(command, m.Stop):
            await self._check_log(command)
        self._settle(record, looked, command)
        if paused is not None:
            self._host.telemetry.paused(self._part, None)

    async def _check_log(self, stop: m.Stop) -> None:
        """Is it a gap, or did the log go back under us? Then it is read anew, once.

        Raises:
            DeniedError: HISTORY_LOST.
        """
        state = self._machine.state(stop.stream)
        if stop.reason is not Reason.GAP or state is None or not self._is_sure:
            return
        _, self._is_sure = await self._where({stop.stream: state})
        if not self._is_sure:
            raise DeniedError(Reason.HISTORY_LOST, "log does not hold what was read of it before")

    def _settle(self, record: Record, looked: _Looked, command: m.Drop | m.Stop | m.Done) -> None:
        telemetry = self._host.telemetry
        verified = looked.first.header if isinstance(looked.first, m.Came) else looked.ruled_out
        rows = 0 if verified is None else verified.count
        if isinstance(command, m.Drop):
            reason, outcome = command.reason, command.outcome
            telemetry.dropped(self._topic, record.offset, reason, outcome, rows)
            if reason is not None and looked.ruled_out is not None:
                self._show_ruled_out(looked.ruled_out, reason)
        elif isinstance(command, m.Stop):
            self._unsure.discard(command.stream)
            self._streams.stopped(command.stream, command.reason, self._part, rows)

    def _show_ruled_out(self, header: Header, reason: Reason) -> None:
        """Tell of a block that is missing here from now on, of a stream that we read."""
        stream = m.stream_of(header)
        state = self._machine.state(stream)
        is_ours = state is not None or stream.origin in self._dataset.producers
        if is_ours and (state is None or header.upto > state.high):
            version = self._host.view.policy.version
            self._streams.ruled_out(stream, reason, version, self._part)

    async def _apply(self, command: m.Apply) -> m.Applied | m.NotApplied:
        began = self._host.clock.monotonic()
        try:
            with self._meter.giving(command.block):
                applied = await self._sink.apply(command.block, command.expected, command.new)
        except FabricError as exc:
            if exc.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            self._why = exc.args[0] if exc.reason is Reason.NOT_READY else ""
            return m.NotApplied(reason=exc.reason)
        self._host.telemetry.apply_took(self._topic, self._host.clock.monotonic() - began)
        self._unsure.discard(command.block.stream)
        self._host.telemetry.applied(command.block, applied, self._part)
        return m.Applied(state=applied.state)

    async def _pause(self, record: Record, reason: Reason) -> _Looked:
        """Wait until the world has changed, then look at the same record again."""
        why, self._why = self._why, ""
        self._host.telemetry.paused(self._part, reason, why)
        self._host.view.waits_for(reason)
        await self._host.view.changed.wait(_PAUSE_S)
        return await self._look(record)


def _still(looked: _Looked, was_live: bool) -> _Looked:
    """A record that was seen while its sender was trusted stays so, however long it waits."""
    if was_live and isinstance(looked.first, m.Came):
        return replace(looked, first=replace(looked.first, is_live=True))
    return looked
