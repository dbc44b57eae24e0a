"""Is what was stored, or read, still in the log? A broker may have been restored or cut.

A sender whose acknowledged blocks are gone would leave a hole that every reader stops
at, so its source is read anew instead: a new generation, as after a lost state file. A
reader whose hint points into a log that has grown again since would begin behind what
came in the place of what it knew, so it begins at the log's first record instead.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fabric.agent.host import LogWithIdentity
from fabric.agent.read_machine import BEGINNING, ReadMachine, stream_of
from fabric.kafka.single import record_at
from fabric.model.errors import DeniedError, PeerError
from fabric.model.names import Stream
from fabric.ports import Record, StreamState
from fabric.seal import envelope as form
from fabric.seal.chain import ChainState
from fabric.store.state import StreamHead

IsKnown: TypeAlias = Callable[[Stream, StreamState, Record], bool | None]
"""Whether a stream's state has what a record brings it to; None when the record cannot tell."""


def log_name(identity: tuple[str, str]) -> str:
    """Which log an offset belongs to: cluster and topic id in one text."""
    return "/".join(identity)


async def lost(log: LogWithIdentity, heads: Mapping[Stream, StreamHead]) -> list[Stream]:
    """Streams whose last acknowledged envelope the log does not hold any more.

    What the topic's retention removed is not lost, and what this host may not read is
    not asked for.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE.
    """
    return [stream for stream, head in heads.items() if await _is_lost(log, head)]


async def _is_lost(log: LogWithIdentity, item: StreamHead) -> bool:
    if item.head is None or not item.log:
        return False
    topic, partition = str(item.stream.topic), item.stream.partition
    if log_name(await log.identity(topic)) != item.log:
        return True
    first, end = await log.bounds(topic, partition)
    if item.offset < first:
        return False
    if item.offset >= end:
        return True
    try:
        record = await record_at(log, topic, partition, item.offset)
    except DeniedError:
        return False
    return record is None or _hash(record) != item.head.hash


async def starts_at(
    log: LogWithIdentity,
    machine: ReadMachine,
    states: Mapping[Stream, StreamState],
    *,
    place: tuple[str, int],
    is_known: IsKnown,
) -> tuple[int, bool]:
    """Where the reader of a partition begins, and whether every hint held good.

    Args:
        states: of the partition's streams, as the sink has them.
        place: topic and partition.
        is_known: asked of the record that tells whether a stream's hint holds good.

    Raises:
        DeniedError, UnavailableError: as ports.Log.read.
    """
    first, end = await log.bounds(*place)
    for stream, state in states.items():
        if not machine.is_hint(state, first, end):
            return first, False
        telling = _telling(state, first)
        known = None
        if first <= telling < end:
            record = await record_at(log, *place, telling)
            known = None if record is None else is_known(stream, state, record)
        if known is False or (known is None and _has_lost_its_beginning(state, first)):
            return first, False
    return machine.start_offset(first, end), True


def _telling(state: StreamState, first: int) -> int:
    """The record that tells whether a hint holds good: the one before it.

    For the beginning of a log that has lost its own, the first that is left.
    """
    return first if _has_lost_its_beginning(state, first) else state.offset - 1


def _has_lost_its_beginning(state: StreamState, first: int) -> bool:
    """Whether what was removed may be missing: unlike another hint, this one passed nothing.

    Nothing is missing where the first record left is known to be the stream's and to leave
    no hole. No record there, or one that does not tell, is no proof.
    """
    return state.offset == BEGINNING < first


def is_accepted(stream: Stream, state: StreamState, record: Record) -> bool | None:
    """Whether a sealed record is one that the stream's chain remembers.

    Without a chain it is one of the stream that leaves no hole after what was taken of it.
    """
    if state.chain:
        return _hash(record) in {item.hash for item in ChainState.decode(state.chain).accepted}
    try:
        header = form.parse(record.value or b"").header
    except PeerError:
        return None
    return header.after <= state.high if stream_of(header) == stream else None


def _hash(record: Record) -> bytes:
    try:
        return form.parse(record.value or b"").hash
    except PeerError:
        return b""
