"""Store blocks of a dataset whose level is open: one record a change, through the gateway."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from fabric.agent.host import Host
from fabric.agent.lane import Kept, Sending, allowed
from fabric.agent.open_form import encode
from fabric.agent.refusal_machine import Action, plan
from fabric.model.block import Block
from fabric.model.errors import FabricError, Malformed, Reason, UsageError
from fabric.model.names import Stream, Topic
from fabric.model.schema import RowSchema
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.store.state import StreamHead

_BATCH_BYTES_MAX = 500_000
_RECORD_OVERHEAD_BYTES = 32


class OpenLane:
    """The lane of a dataset at an open level; there is no chain and no epoch."""

    def __init__(self, host: Host, topic: Topic, schema: RowSchema) -> None:
        self._host = host
        self._topic = topic
        self._schema = schema
        self._packed: dict[Stream, tuple[Block, Dataset, list[bytes]]] = {}
        self._sending = Sending()

    async def pack(self, block: Block) -> None:
        """Encode the block's changes."""
        await self._sending.wait(block.stream)
        with contextlib.suppress(FabricError):  # `store` will meet the same and act on it
            dataset = decide.dataset_of(self._host.view.policy, str(self._topic))
            values = await asyncio.to_thread(encode, block, dataset)
            self._packed[block.stream] = (block, dataset, values)

    async def _values(self, block: Block, dataset: Dataset) -> list[bytes]:
        packed = self._packed.pop(block.stream, None)
        self._sending.over(block.stream)
        if packed is not None and packed[0] is block and packed[1] is dataset:
            return packed[2]
        return await asyncio.to_thread(encode, block, dataset)

    async def store(self, block: Block) -> Kept:
        """Append every change until acknowledged; a batch that is sent twice is a duplicate."""
        tries = Counter[Reason]()
        while True:
            try:
                dataset, _ = allowed(
                    self._host.view, self._topic, self._schema, self._host.clock.now()
                )
                values = await self._values(block, dataset)
                self._sending.begins(block.stream)
                began = self._host.clock.monotonic()
                for batch in _batches(values):
                    items = [(None, value) for value in batch]
                    await self._host.log.append(str(self._topic), block.stream.partition, items)
            except FabricError as exc:
                if isinstance(exc, UsageError | Malformed) or exc.reason is Reason.TOO_LARGE:
                    raise
                await self._refused(exc, block, tries[exc.reason])
                tries[exc.reason] += 1
                continue
            took = self._host.clock.monotonic() - began
            self._host.telemetry.produce_took(self._topic, took)
            size = sum(len(value) for value in values)
            self._host.telemetry.stored(block, "", size, size)
            self._host.telemetry.held(self._topic, None, "")
            head = StreamHead(stream=block.stream, head=None, upto=block.upto)
            return Kept(head=head, plaintext_bytes=size)

    async def _refused(self, exc: FabricError, block: Block, attempt: int) -> None:
        what = plan(
            exc.reason,
            attempt=attempt,
            result_lives=None,  # an open record names no result
            epoch_opened=None,
            now=self._host.clock.now(),
        )
        self._host.telemetry.refused(self._topic, exc.reason, loud=what.loud, rows=block.count)
        self._host.telemetry.held(self._topic, exc.reason, str(exc.args[0]))
        self._host.view.waits_for(exc.reason)
        if what.action is Action.STOP:
            raise exc
        await self._host.view.changed.wait(max(what.pause_s, 1.0) if attempt else what.pause_s)

    async def maintain(self) -> None:
        """Nothing is due between blocks."""


def _batches(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut values into Kafka batches that fit one record batch."""
    start = size = 0
    for at, value in enumerate(values):
        cost = len(value) + _RECORD_OVERHEAD_BYTES
        if at > start and size + cost > _BATCH_BYTES_MAX:
            yield values[start:at]
            start, size = at, 0
        size += cost
    if start < len(values):
        yield values[start:]
