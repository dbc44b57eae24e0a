"""A reader's side of a source: follows events, checks their order, keeps the rows they give."""

import asyncio
from collections.abc import Callable, Sequence

from fabric.model.change import MARKS, Op, Row
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.schema import RowSchema
from fabric.ports import Captured, ChangeSource, Event, Reached

_WAIT_S = 20.0


def key_of(schema: RowSchema, row: Row) -> tuple[object, ...]:
    """The key's values, hashable."""
    return tuple(row[name] for name in schema.key)


class Replica:
    """Applies events as a reader does: drops what it has, by sequence; outlives restarts."""

    def __init__(self, schemas: dict[str, RowSchema]) -> None:
        self._schemas = schemas
        self._rows: dict[str, dict[tuple[object, ...], Row]] = {name: {} for name in schemas}
        self._high: dict[str, ChangeSequence] = {}
        self._seen: dict[str, set[tuple[object, ...]]] = {}
        self.ended: list[str] = []

    def rows(self, topic: object) -> list[Row]:
        """What the reader holds now, by key."""
        held = self._rows[str(topic)]
        return [held[key] for key in sorted(held, key=repr)]

    def apply(self, generation: int, event: Captured) -> None:
        """Apply what lies after the high-water sequence."""
        name, run = str(event.topic), event.run
        rows: Sequence[Row | None] = [None] if run.op in MARKS else run.rows
        for place, row in enumerate(rows):
            sequence = ChangeSequence(generation, run.position, run.ordinal + place)
            if sequence > self._high.get(name, ChangeSequence(0, 0, 0)):
                self._high[name] = sequence
                self._one(name, run.op, row)

    def _one(self, name: str, op: Op, row: Row | None) -> None:
        held = self._rows[name]
        if row is not None:
            key = key_of(self._schemas[name], row)
            self._seen.get(name, set()).add(key)
            if op is Op.UPSERT:
                held[key] = row
            else:
                held.pop(key, None)
        elif op is Op.TRUNCATE:
            held.clear()
        elif op is Op.SNAPSHOT_BEGIN:
            self._seen[name] = set()
        elif op is Op.SNAPSHOT_END:
            seen = self._seen.pop(name)
            for key in [key for key in held if key not in seen]:
                del held[key]
            self.ended.append(name)


class Follower:
    """Reads one open source, checks what the port promises of order, feeds a replica."""

    def __init__(self, source: ChangeSource, generation: int, replica: Replica) -> None:
        self.source = source
        self.generation = generation
        self.replica = replica
        self.events: list[Event] = []
        self.resume: str | None = None
        self._events = source.read()
        self._reached = -1
        self._last: dict[str, tuple[int, int]] = {}

    @property
    def captured(self) -> list[Captured]:
        """Every captured run so far."""
        return [event for event in self.events if isinstance(event, Captured)]

    @property
    def reached(self) -> list[Reached]:
        """Every Reached so far."""
        return [event for event in self.events if isinstance(event, Reached)]

    async def until(self, done: Callable[[], bool]) -> None:
        """Read on until a Reached after which `done` holds; fails after 20 s."""
        async with asyncio.timeout(_WAIT_S):
            while True:
                event = await anext(self._events)
                self.events.append(event)
                self._check(event)
                if isinstance(event, Captured):
                    self.replica.apply(self.generation, event)
                elif done():
                    return

    async def until_ended(self, *topics: object) -> None:
        """Read on until the snapshot of every topic has ended."""
        await self.until(lambda: all(str(topic) in self.replica.ended for topic in topics))

    def _check(self, event: Event) -> None:
        if isinstance(event, Reached):
            assert event.position >= self._reached
            assert all(position <= event.position for position, _ in self._last.values())
            self._reached, self.resume = event.position, event.resume
            return
        run, name = event.run, str(event.topic)
        assert run.position > self._reached
        assert 0 <= run.position < 2**63
        assert run.ordinal >= 1
        assert (run.position, run.ordinal) > self._last.get(name, (-1, 0))
        assert run.op in MARKS or run.rows
        self._last[name] = (run.position, run.last_ordinal)

    async def close(self) -> None:
        """Stop reading and close the source."""
        await self._events.aclose()  # type: ignore[attr-defined]  # every source is a generator
        await self.source.close()


async def follow(source: ChangeSource, resume: str | None, replica: Replica) -> Follower:
    """Open a source and follow it."""
    opened = await source.open(resume)
    return Follower(source, opened.generation, replica)
