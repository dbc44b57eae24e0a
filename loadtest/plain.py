"""The plain peer between the same two tables: same source and sink, aiokafka and Avro between.

    python -m loadtest.plain source SETTINGS.json
    python -m loadtest.plain sink SETTINGS.json

No sealing, no verification, no gateway, no attestation. It is what a careful user
would write: acks=all, the source released after the acknowledgement, the offset in
the target's transaction.
"""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from fabric.database.postgresql import PostgresSink, PostgresSource
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.names import Origin, Stream, Topic
from fabric.model.schema import RowSchema
from fabric.ports import Captured, SourceTable, StreamState, Target
from loadtest.links import Route
from loadtest.rows import schema_text

_SCHEMA = RowSchema.parse(schema_text(logical=True), ("id",))
_ORIGIN = Origin.parse("G01/registry/plain")
_LETTER: dict[str, Any] = {
    "type": "record",
    "name": "Plain",
    "fields": [
        {"name": "generation", "type": "long"},
        {"name": "position", "type": "long"},
        {"name": "ordinal", "type": "long"},
        {"name": "op", "type": "int"},
        {"name": "commit_us", "type": "long"},
        {"name": "row", "type": ["null", json.loads(schema_text())]},
    ],
}
_CODEC = fastavro.parse_schema(_LETTER, named_schemas={})
_Sent = tuple[int, "asyncio.Future[Any] | None"]


def _letters(event: Captured, generation: int) -> list[bytes]:
    """One record for each change of a run; marks have no row."""
    run = event.run
    rows: Sequence[Any] = run.rows or (None,)
    letters = []
    for at, row in enumerate(rows):
        out = BytesIO()
        letter = {
            "generation": generation,
            "position": run.position,
            "ordinal": run.ordinal + at,
            "op": int(run.op),
            "commit_us": run.commit_us,
            "row": row,
        }
        fastavro.schemaless_writer(out, _CODEC, letter)
        letters.append(out.getvalue())
    return letters


async def run_source(settings: Mapping[str, Any]) -> None:
    """Capture one table into the topic, for ever."""
    table = SourceTable(
        table=settings["table"], topic=Topic.parse(settings["name"]), schema=_SCHEMA
    )
    source = PostgresSource(
        settings["url"], [table], slot="plain", publication="plain", chunk_rows=5_000
    )
    opened = await source.open(None)
    producer = AIOKafkaProducer(
        **Route.of(settings["route"]).aiokafka(), acks="all", max_batch_size=131_072
    )
    await producer.start()
    sent: deque[_Sent] = deque()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_release(source, sent))
            last: asyncio.Future[Any] | None = None
            async for event in source.read():
                if isinstance(event, Captured):
                    for value in _letters(event, opened.generation):
                        last = await producer.send(settings["topic"], value, partition=0)
                else:
                    sent.append((event.position, last))
    finally:
        await producer.stop()
        await source.close()


async def _release(source: PostgresSource, sent: "deque[_Sent]") -> None:
    """Let the source go as far as everything is acknowledged."""
    while True:
        done = -1
        while sent and (sent[0][1] is None or sent[0][1].done()):
            position, future = sent.popleft()
            if future is not None:
                future.result()
            done = position
        if done >= 0:
            await source.release(done)
        await asyncio.sleep(0.05)


async def run_sink(settings: Mapping[str, Any]) -> None:
    """Apply the topic to one table, for ever."""
    sink = PostgresSink(settings["url"])
    name = Topic.parse(settings["name"])
    target = Target(
        topic=name, table=settings["table"], schema=_SCHEMA, quarantine=True,
        partitions=1, salt=bytes(32),
    )  # fmt: skip
    await sink.open([target])
    consumer = AIOKafkaConsumer(
        **Route.of(settings["route"]).aiokafka(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    await consumer.start()
    place = TopicPartition(settings["topic"], 0)
    consumer.assign([place])
    consumer.seek(place, 0)
    state: StreamState | None = None
    try:
        while True:
            found = await consumer.getmany(place, timeout_ms=500, max_records=1_000)
            records = found.get(place, ())
            if records:
                block = block_of([record.value or b"" for record in records], name, state)
                state = await _apply(sink, block, state, records[-1].offset + 1)
    finally:
        await consumer.stop()
        await sink.close()


async def _apply(
    sink: PostgresSink, block: Block, before: StreamState | None, offset: int
) -> StreamState:
    new = StreamState(
        high=block.upto, chain=b"", offset=offset, cluster="plain", topic_id="plain",
        incomplete=False,
    )  # fmt: skip
    return (await sink.apply(block, before, new)).state


def block_of(values: Sequence[bytes], name: Topic, state: StreamState | None) -> Block:
    """Decode records into one block for the sink; consecutive changes of a commit are one run."""
    letters: list[Any] = [
        fastavro.schemaless_reader(BytesIO(value), _CODEC, None) for value in values
    ]
    runs: list[Run] = []
    for letter in letters:
        op, rows = Op(letter["op"]), [] if letter["row"] is None else [letter["row"]]
        last = runs[-1] if runs else None
        if last is not None and rows and _goes_on(last, letter, op):
            last.rows.extend(rows)  # type: ignore[attr-defined]  # our own lists
            continue
        runs.append(
            Run(
                op=op,
                position=letter["position"],
                ordinal=letter["ordinal"],
                commit_us=letter["commit_us"],
                rows=rows,
            )
        )
    end = letters[-1]
    upto = ChangeSequence(end["generation"], end["position"], end["ordinal"])
    after = ZERO if state is None else state.high
    return Block(stream=Stream(_ORIGIN, name, 0), after=after, upto=upto, runs=tuple(runs))


def _goes_on(last: Run, letter: Any, op: Op) -> bool:
    return (
        bool(last.rows)
        and last.op is op
        and last.position == letter["position"]
        and last.last_ordinal + 1 == letter["ordinal"]
    )


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[2]).read_text())
    with suppress(KeyboardInterrupt):
        asyncio.run(run_source(told) if sys.argv[1] == "source" else run_sink(told))
