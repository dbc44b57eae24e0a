"""Shorthand for tests of the PostgreSQL adapter: one table of many types, sources, sinks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fabric.database.postgresql import PostgresSink, PostgresSource
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Row, Run, end_of
from fabric.model.names import Origin, Stream, Topic
from fabric.model.schema import RowSchema
from fabric.ports import Applied, Captured, Event, Reached, SourceTable, StreamState, Target
from tests.contract.postgresql_world import NUMBERS

TOPIC = Topic("secret", "G01", "items")
ORIGIN = Origin("G01", "registry", "main")
STREAM = Stream(origin=ORIGIN, topic=TOPIC, partition=0)
FOLDING = (
    "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
"""Makes a collation that does not tell case."""
ITEMS_DDL = "CREATE TABLE items (id bigint PRIMARY KEY, name text NOT NULL, note text)"
WAIT_S = 20.0


def schema(*fields: dict[str, Any], key: tuple[str, ...] = ("id",)) -> RowSchema:
    """A schema; without fields the one of the table `items`."""
    chosen = fields or (
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "note", "type": ["null", "string"]},
    )
    text = json.dumps({"type": "record", "name": "Item", "fields": list(chosen)})
    return RowSchema.parse(text, key)


ITEMS = schema()


def item(key: int, name: str = "n", note: str | None = None) -> Row:
    """A row of `items`."""
    return {"id": key, "name": name, "note": note}


class Reading:
    """An open source and what it has given."""

    def __init__(self, source: PostgresSource, generation: int) -> None:
        self.source = source
        self.generation = generation
        self.events: list[Event] = []
        self._read = source.read()

    @property
    def runs(self) -> list[Run]:
        """Every run so far."""
        return [event.run for event in self.events if isinstance(event, Captured)]

    @property
    def reached(self) -> Reached:
        """The last Reached."""
        return next(event for event in reversed(self.events) if isinstance(event, Reached))

    def rows(self) -> dict[object, Row]:
        """Rows as a reader of one dataset with the key `id` holds them; absent ones merged."""
        held: dict[object, Row] = {}
        for run in self.runs:
            if run.op is Op.TRUNCATE:
                held.clear()
            for row in run.rows:
                if run.op is Op.DELETE:
                    held.pop(row["id"], None)
                    continue
                old = held.get(row["id"], {})
                held[row["id"]] = {
                    n: old.get(n) if n in run.absent else value for n, value in row.items()
                }
        return held

    async def until(self, done: Callable[[], bool], *, releasing: bool = False) -> None:
        """Read on until a Reached after which `done` holds."""
        async with asyncio.timeout(WAIT_S):
            while True:
                event = await anext(self._read)
                self.events.append(event)
                if releasing and isinstance(event, Reached):
                    await self.source.release(event.position)
                if isinstance(event, Reached) and done():
                    return

    async def until_ended(self) -> None:
        """Read on until a snapshot has ended."""
        await self.until(lambda: any(run.op is Op.SNAPSHOT_END for run in self.runs))

    async def forever(self, *, releasing: bool = False) -> None:
        """Read on until the source fails; the deadline is 20 s."""
        await self.until(lambda: False, releasing=releasing)

    async def close(self) -> None:
        """Stop reading and close."""
        await self._read.aclose()  # type: ignore[attr-defined]  # it is a generator
        await self.source.close()


def new_source(
    url: str, *, slot: str | None = None, of: RowSchema = ITEMS, **more: Any
) -> PostgresSource:
    """A source of the table `items`."""
    tables = [SourceTable(table="public.items", topic=TOPIC, schema=of)]
    name = slot or f"fabric_case_{next(NUMBERS)}"
    return PostgresSource(
        url, tables, slot=name, publication="fabric", **{"silence_s": 0.3, **more}
    )


@asynccontextmanager
async def reading(source: PostgresSource, resume: str | None = None) -> AsyncIterator[Reading]:
    """Open a source, read it, close it."""
    opened = await source.open(resume)
    made = Reading(source, opened.generation)
    try:
        yield made
    finally:
        await made.close()


def target(of: RowSchema = ITEMS, *, quarantine: bool = True, table: str = "items") -> Target:
    """The table `items` as a target."""
    return Target(
        topic=TOPIC, table=table, schema=of, quarantine=quarantine, partitions=1, salt=b""
    )


class Applying:
    """An open sink and one stream into it."""

    def __init__(self, sink: PostgresSink, stream: Stream = STREAM) -> None:
        self.sink = sink
        self.stream = stream
        self.state: StreamState | None = None
        self.position = 0

    async def apply(
        self, *parts: tuple[Op, Sequence[Row]], absent: tuple[str, ...] = ()
    ) -> Applied:
        """Apply one block, each part a run of its own."""
        self.position += 1
        runs: list[Run] = []
        ordinal = 1
        for op, rows in parts:
            run = Run(
                op=op,
                position=self.position,
                ordinal=ordinal,
                commit_us=0,
                rows=list(rows),
                absent=absent,
            )
            runs.append(run)
            ordinal = run.last_ordinal + 1
        upto = end_of(1, self.position)
        after = self.state.high if self.state else ZERO
        block = Block(stream=self.stream, after=after, upto=upto, runs=tuple(runs))
        new = StreamState(high=upto, chain=b"", offset=1, cluster="", topic_id="", incomplete=False)
        done = await self.sink.apply(block, self.state, new)
        self.state = done.state
        return done

    async def upsert(self, *rows: Row, absent: tuple[str, ...] = ()) -> Applied:
        """Apply one run of upserts."""
        return await self.apply((Op.UPSERT, rows), absent=absent)


@asynccontextmanager
async def applying(url: str, *targets: Target) -> AsyncIterator[Applying]:
    """Open a sink on `items` or on other targets."""
    sink = PostgresSink(url)
    await sink.open(targets or [target()])
    try:
        yield Applying(sink)
    finally:
        await sink.close()
