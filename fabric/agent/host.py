"""What every part of an agent works with: one host's identity, view, log, clock and voice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fabric.agent.identity import Identity
from fabric.agent.telemetry import Telemetry
from fabric.agent.view import WorldView
from fabric.config_audit import ReceiptsConfig
from fabric.model.block import Block
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, Clock, Log, StreamState


class LogWithIdentity(Log, Protocol):
    """A log that says which log it is."""

    async def identity(self, topic: str) -> tuple[str, str]:
        """Cluster id and topic id, which offset hints belong to."""


class BlockTarget(Protocol):
    """What a reader needs of ports.ChangeSink; the Python API has one of its own."""

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream of `topic` that has a state here."""

    async def state(self, stream: Stream) -> StreamState | None:
        """The stored state of one stream."""

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Write the block and `new`, if `expected` still stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The tools of one agent's parts."""

    identity: Identity
    view: WorldView
    log: LogWithIdentity
    clock: Clock
    telemetry: Telemetry
    receipts: ReceiptsConfig = field(default_factory=lambda: ReceiptsConfig(enabled=False))
