"""Store one dataset's blocks on the platform: seal, append, and keep at it.

`store` returns when a block is acknowledged and not before; what happens on a
refusal is decided by the refusal machine. At most one block of a stream is
unresolved, also across epochs.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeAlias

from fabric.agent.aside import aside
from fabric.agent.epoch_machine import Why
from fabric.agent.epochs import Epoch, Epochs
from fabric.agent.host import Host
from fabric.agent.publish_machine import halve
from fabric.agent.refusal_machine import Action, plan
from fabric.agent.view import WorldView
from fabric.attest.keys import are_at_hand
from fabric.attest.result import Result, standing
from fabric.model.block import Block
from fabric.model.errors import (
    DeniedError,
    FabricError,
    Malformed,
    PeerError,
    Reason,
    UsageError,
)
from fabric.model.names import Stream, Topic
from fabric.model.schema import RowSchema
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.seal.epoch import Head
from fabric.seal.sealing import Link, Packed, Sealed, Stamp, prepare, seal, seal_packed
from fabric.store.state import StreamHead

_SHORT_CHANGES_MAX = 64
_HANDED_OVER_S = 0.001
"""Long enough for the log to write a block to its socket."""
_AHEAD_S_MAX = 5.0
"""A block that was sealed ahead longer ago than this is sealed anew: it says when it was sealed."""
Note: TypeAlias = Callable[[StreamHead], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is to be remembered of an acknowledged block: the head of its last part."""

    head: StreamHead
    plaintext_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    """A sealed block on its way, and what it depends on."""

    block: Block
    sealed: Sealed
    result: Result
    epoch: Epoch
    link: Link
    stamp: Stamp

    def is_good_for(self, block: Block, epoch: Epoch, link: Link, stamp: Stamp) -> bool:
        """Whether sealing `block` now would say the same, but for a moment's difference."""
        age = stamp.now - self.stamp.now
        return (
            self.block is block
            and self.epoch is epoch
            and self.link == link
            and replace(self.stamp, now=stamp.now) == stamp
            and timedelta(0) <= age <= timedelta(seconds=_AHEAD_S_MAX)
        )


class Lane(Protocol):
    """Stores blocks of one topic."""

    async def pack(self, block: Block) -> None:
        """Do ahead what can be done before its turn; `store` says what fails."""

    async def store(self, block: Block) -> Kept:
        """Return when the block is acknowledged; raises PeerError when it never can be."""

    async def maintain(self) -> None:
        """What is due between blocks."""


def allowed(
    view: WorldView, topic: Topic, schema: RowSchema, now: datetime
) -> tuple[Dataset, Result]:
    """What the gateway will ask, asked here first: rule, schema and standing.

    Raises:
        DeniedError: with the reason the gateway would give.
    """
    dataset = decide.dataset_of(view.policy, str(topic))
    decide.check_schema(dataset, schema.fingerprint)
    result = view.current(now)
    view.check_rows(dataset, now)  # after the host's own standing, which says more
    why = decide.publish(view.policy, dataset, standing(result), suite=dataset.suite, now=now)
    if why is not None:
        raise DeniedError(why, f"this host may not publish {topic}")
    return dataset, result


def _pack_parts(work: Callable[[Block], Packed], block: Block) -> None:
    """Raise what packing a part raises; UsageError TOO_LARGE when one change is too large."""
    try:
        work(block)
    except DeniedError:
        for part in halve(block):
            _pack_parts(work, part)


class Sending:
    """Says when a stream's block is on its way, and the processor free for the next one.

    Packing holds the interpreter for milliseconds. Begun any earlier, it would delay
    the very bytes whose journey it is to fill, or the seal that comes before it.
    """

    def __init__(self) -> None:
        self._on_its_way: dict[Stream, asyncio.Event] = {}

    def _event(self, stream: Stream) -> asyncio.Event:
        return self._on_its_way.setdefault(stream, asyncio.Event())

    def begins(self, stream: Stream) -> None:
        """The stream's block is handed to the log."""
        self._event(stream).set()

    def over(self, stream: Stream) -> None:
        """The stream's block has arrived; the next one has its seal before it."""
        self._event(stream).clear()

    async def wait(self, stream: Stream) -> None:
        """Return a moment after the stream's block was handed to the log."""
        await self._event(stream).wait()
        await asyncio.sleep(_HANDED_OVER_S)


class SealedLane:
    """The lane of a dataset at a sealed level.

    Args:
        heads: acknowledged heads of earlier lives, per stream.
        streams: how many streams of the topic this host fills.
        note: takes the head of each part but the last of a block that goes in parts.
        log: which log the topic is, empty when that is not known.
    """

    def __init__(
        self,
        host: Host,
        topic: Topic,
        schema: RowSchema,
        *,
        heads: Mapping[Stream, StreamHead],
        streams: int,
        note: Note,
        log: str = "",
    ) -> None:
        self._host = host
        self._note = note
        self._log = log
        self._topic = topic
        self._schema = schema
        self._heads: dict[Stream, Head] = {
            stream: item.head for stream, item in heads.items() if item.head is not None
        }
        self._offsets = {
            stream: item.offset
            for stream, item in heads.items()
            if item.log and log in ("", item.log)
        }
        self._packed: dict[Stream, Packed] = {}
        self._in_flight: dict[Stream, _Shot] = {}
        self._ahead: dict[Stream, _Shot] = {}
        self._sending = Sending()
        self._epochs = Epochs(host, topic, heads=lambda: [*self._heads.values()], streams=streams)

    async def pack(self, block: Block) -> None:
        """Pack and seal the block while the one before it is on its way.

        What it follows is known by then: the hash of that one. If things come otherwise
        (that one is sealed anew, an epoch ends, the policy changes), `store` seals it anew.
        """
        await self._sending.wait(block.stream)
        with contextlib.suppress(FabricError):  # `store` will meet the same and act on it
            dataset = decide.dataset_of(self._host.view.policy, str(self._topic))
            rule = decide.rule_of(self._host.view.policy, dataset)
            packed = self._packed[block.stream] = await asyncio.to_thread(
                prepare, block, self._schema, coding=rule.coding, padding=rule.padding
            )
            before = self._in_flight.get(block.stream)
            if before is not None and before.epoch is self._epochs.current:
                self._ahead[block.stream] = await self._follow(before, packed)

    async def _follow(self, before: _Shot, packed: Packed) -> _Shot:
        now = self._host.clock.now()
        dataset, result = allowed(self._host.view, self._topic, self._schema, now)
        link = Link(counter=before.link.counter + 1, previous=before.sealed.hash)
        stamp = self._stamp(dataset, result, now)
        return await self._made(packed.block, packed, before.epoch, link, stamp, result)

    async def store(self, block: Block) -> Kept:
        """Seal and append until acknowledged; a block that is too large goes in halves."""
        try:
            return await self._store(block)
        except DeniedError as exc:
            if exc.reason is not Reason.TOO_LARGE:
                raise
        first, second = halve(block)
        left = await self.store(first)
        # Readers take a new epoch only from one of the last heads; a block may have more parts.
        await self._note(left.head)
        right = await self.store(second)
        total = left.plaintext_bytes + right.plaintext_bytes
        return Kept(head=right.head, plaintext_bytes=total)

    async def _store(self, block: Block) -> Kept:
        shot: _Shot | None = None
        packed = self._packed.pop(block.stream, None)
        tries = Counter[Reason]()
        while True:
            try:
                shot = shot or await self._seal(block, packed)
                self._sending.begins(block.stream)
                began = self._host.clock.monotonic()
                self._in_flight[block.stream] = shot
                try:
                    stored = await self._host.log.append(
                        str(self._topic), block.stream.partition, [(None, shot.sealed.data)]
                    )
                finally:
                    del self._in_flight[block.stream]
                self._sending.over(block.stream)
                took = self._host.clock.monotonic() - began
                self._host.telemetry.produce_took(self._topic, took)
                return self._acknowledged(shot, stored.offset)
            except FabricError as exc:
                if isinstance(exc, UsageError | Malformed) or exc.reason is Reason.TOO_LARGE:
                    raise
                shot = await self._refused(exc, block, shot, tries[exc.reason])
                tries[exc.reason] += 1

    async def _seal(self, block: Block, packed: Packed | None) -> _Shot:
        ahead = self._ahead.pop(block.stream, None)
        if self._epochs.current is None and (packed is None or packed.block is not block):
            packed = await self._pack_first(block)
        epoch = await self._ready()
        # A start may have been long on its way: what counts is what holds as the block is sealed.
        now = self._host.clock.now()
        dataset, result = allowed(self._host.view, self._topic, self._schema, now)
        head = self._heads.get(block.stream)
        link = Link(
            counter=epoch.counter(block.stream),
            previous=epoch.previous(block.stream, head),
        )
        stamp = self._stamp(dataset, result, now)
        if ahead is not None and ahead.is_good_for(block, epoch, link, stamp):
            return ahead
        return await self._made(block, packed, epoch, link, stamp, result)

    async def _pack_first(self, block: Block) -> Packed:
        """Pack before a capture's first epoch is opened; of what goes in parts, each of them.

        A block that cannot be packed ends its capture, which begins again and meets it again:
        each time it would leave an epoch that everybody keeps and grants for long.
        """
        dataset, _ = allowed(self._host.view, self._topic, self._schema, self._host.clock.now())
        rule = decide.rule_of(self._host.view.policy, dataset)
        work = partial(prepare, schema=self._schema, coding=rule.coding, padding=rule.padding)
        try:
            return await aside(partial(work, block), is_short=block.count <= _SHORT_CHANGES_MAX)
        except DeniedError:
            await asyncio.to_thread(_pack_parts, work, block)
            raise

    def _stamp(self, dataset: Dataset, result: Result, now: datetime) -> Stamp:
        rule = decide.rule_of(self._host.view.policy, dataset)
        return Stamp(
            result_id=result.id,
            policy_version=self._host.view.policy.version,
            now=now,
            coding=rule.coding,
            padding=rule.padding,
        )

    async def _made(
        self,
        block: Block,
        packed: Packed | None,
        epoch: Epoch,
        link: Link,
        stamp: Stamp,
        result: Result,
    ) -> _Shot:
        began = self._host.clock.monotonic()
        suite = epoch.sealing.suite
        signers = self._host.identity.keyring.signers(result, suite)
        is_ours = packed is not None and packed.block is block
        if packed is not None and is_ours and packed.asked == (stamp.coding, stamp.padding):
            work = partial(seal_packed, packed)
        else:
            work = partial(seal, block, self._schema)
        sealed = await aside(
            partial(work, epoch=epoch.sealing, link=link, stamp=stamp, signers=signers),
            is_short=block.count <= _SHORT_CHANGES_MAX and are_at_hand(signers),
        )
        self._host.telemetry.sealing_took(
            self._topic, suite.id, self._host.clock.monotonic() - began
        )
        return _Shot(block=block, sealed=sealed, result=result, epoch=epoch, link=link, stamp=stamp)

    async def _ready(self) -> Epoch:
        now = self._host.clock.now()
        dataset, result = allowed(self._host.view, self._topic, self._schema, now)
        return await self._epochs.ready(dataset, result)

    def _acknowledged(self, shot: _Shot, offset: int) -> Kept:
        """Take an acknowledgement down; raises PeerError LOG_WENT_BACK.

        A log only grows. A block that comes to lie where an earlier one was acknowledged
        follows on nothing that a late reader finds: the source has to be read anew.
        """
        stream = shot.block.stream
        if offset <= self._offsets.get(stream, -1):
            raise PeerError(Reason.LOG_WENT_BACK, "the log forgot blocks that it had acknowledged")
        self._offsets[stream] = offset
        head = Head(
            origin=stream.origin,
            partition=stream.partition,
            epoch=shot.epoch.sealing.id,
            counter=shot.sealed.counter,
            hash=shot.sealed.hash,
        )
        self._heads[stream] = head
        shot.epoch.sealed(stream)
        self._host.telemetry.stored(
            shot.block,
            shot.epoch.sealing.suite.id,
            shot.sealed.plaintext_bytes,
            len(shot.sealed.data),
        )
        self._host.telemetry.held(self._topic, None, "")
        kept = StreamHead(
            stream=stream, head=head, upto=shot.block.upto, log=self._log, offset=offset
        )
        return Kept(head=kept, plaintext_bytes=shot.sealed.plaintext_bytes)

    async def _refused(
        self, exc: FabricError, block: Block, shot: _Shot | None, attempt: int
    ) -> _Shot | None:
        """Wait as the reason's class says; the shot to try again, or None to seal anew."""
        now = self._host.clock.now()
        epoch = self._epochs.current
        what = plan(
            exc.reason,
            attempt=attempt,
            result_lives=None if shot is None else now < shot.result.expires,
            epoch_opened=epoch.served.started if epoch else None,
            now=now,
        )
        self._host.telemetry.refused(self._topic, exc.reason, loud=what.loud, rows=block.count)
        self._host.telemetry.held(self._topic, exc.reason, str(exc.args[0]))
        self._host.view.waits_for(exc.reason)
        if what.action is Action.STOP:
            raise exc
        if what.action is Action.RESEAL and shot is not None:
            self._epochs.ask(Why.RESEAL, exc.reason)
            shot = None
        await self._host.view.changed.wait(what.pause_s)
        return shot

    async def maintain(self) -> None:
        """Draw up the next epoch when one is due, and serve late recipients."""
        if self._epochs.current is None:
            return
        now = self._host.clock.now()
        try:
            dataset, result = allowed(self._host.view, self._topic, self._schema, now)
            self._host.view.check_grants(dataset, now)
        except DeniedError:
            return  # publishing shows why
        await self._epochs.prepare(dataset)
        await self._epochs.grant_late(dataset, result)
