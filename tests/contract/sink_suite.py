"""What every ChangeSink must do. Subclass it and give a `world` fixture, as in source_suite."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fabric.agent.completeness import completeness_after
from fabric.model.block import Block, trim
from fabric.model.change import ZERO, Op, Row, Run, end_of
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError, UsageError
from fabric.model.names import Origin, Stream, Topic
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema
from fabric.ports import Applied, ChangeSink, StreamState, Target
from tests.contract.worlds import (
    NOTES,
    NOTES_SCHEMA,
    PEOPLE,
    PEOPLE_SCHEMA,
    POISON,
    SinkWorld,
    note,
    person,
)

ORIGIN = Origin("G01", "registry", "main")
OTHER = Origin("G01", "registry", "second")
GENERATION = 1_700_000_000
SALT = bytes(range(32))


def target(
    topic: Topic = PEOPLE,
    schema: RowSchema = PEOPLE_SCHEMA,
    *,
    quarantine: bool = True,
    partitions: int = 1,
) -> Target:
    return Target(
        topic=topic,
        table=topic.dataset,
        schema=schema,
        quarantine=quarantine,
        partitions=partitions,
        salt=SALT,
    )


def stream(topic: Topic = PEOPLE, partition: int = 0, origin: Origin = ORIGIN) -> Stream:
    return Stream(origin=origin, topic=topic, partition=partition)


class Feed:
    """Makes consecutive blocks of one stream and applies them, as the agent does."""

    def __init__(self, sink: ChangeSink, of: Stream, generation: int = GENERATION) -> None:
        self.sink = sink
        self.stream = of
        self.generation = generation
        self.state: StreamState | None = None
        self.position = 0
        self.offset = 0

    def block(self, *parts: tuple[Op, Sequence[Row]], absent: tuple[str, ...] = ()) -> Block:
        """The next block: its parts are runs of one commit."""
        after = end_of(self.generation, self.position) if self.position else ZERO
        self.position += 1
        runs: list[Run] = []
        ordinal = 1
        for op, rows in parts:
            run = Run(
                op=op,
                position=self.position,
                ordinal=ordinal,
                commit_us=self.position,
                rows=list(rows),
                absent=absent,
            )
            runs.append(run)
            ordinal = run.last_ordinal + 1
        upto = end_of(self.generation, self.position)
        return Block(stream=self.stream, after=after, upto=upto, runs=tuple(runs))

    def after(self, block: Block) -> StreamState:
        """The state that the agent wants to be stored with a block."""
        return StreamState(
            high=block.upto,
            chain=b"chain %d" % self.offset,
            offset=self.offset + 1,
            cluster="cluster",
            topic_id="topic",
            incomplete=bool(self.state and self.state.incomplete),
        )

    async def apply(
        self, *parts: tuple[Op, Sequence[Row]], absent: tuple[str, ...] = ()
    ) -> Applied:
        """Make the next block and apply it."""
        return await self.send(self.block(*parts, absent=absent))

    async def send(self, block: Block) -> Applied:
        """Apply a block and remember the state."""
        done = await self.sink.apply(block, self.state, self.after(block))
        self.state = done.state
        self.offset += 1
        return done

    async def upsert(self, *rows: Row) -> Applied:
        """Apply a block of upserts."""
        return await self.apply((Op.UPSERT, rows))


def ids(rows: Sequence[Row]) -> list[object]:
    return sorted(row["id"] for row in rows)  # type: ignore[type-var]  # ids are integers


def by_id(rows: Sequence[Row]) -> dict[object, Row]:
    return {row["id"]: row for row in rows}  # type: ignore[misc]  # ids are integers


class SinkSuite:
    @pytest.fixture
    def world(self) -> SinkWorld:
        raise NotImplementedError

    async def _open(self, world: SinkWorld, *targets: Target) -> ChangeSink:
        sink = world.sink()
        await sink.open(targets or (target(), target(NOTES, NOTES_SCHEMA)))
        return sink

    async def test_a_new_target_has_no_state(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        assert await sink.state(stream()) is None
        assert await sink.streams(PEOPLE) == {}
        assert list(await sink.quarantined(None)) == []
        assert await sink.parked(1) is None
        await sink.close()

    async def test_rows_and_state_are_written_together(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        rows = [
            person(1, "Nguyễn Thị Ánh 'x\" \\ \n", score=-0.5, photo=b"", balance=b"\xff"),
            person(2, score=None, photo=None, balance=None, born=-25_567, seen=-1),
            person(3, born=0, seen=253_402_300_799_999_999, score=1e300),
            person(4, id=2**62),
        ]
        done = await feed.upsert(*rows)
        assert (done.applied, done.quarantined) == (4, 0)
        assert by_id(await world.rows(target())) == by_id(rows)
        assert await sink.state(stream()) == done.state
        assert done.state.high == end_of(GENERATION, 1)
        assert dict(await sink.streams(PEOPLE)) == {stream(): done.state}
        await sink.close()

    async def test_updates_and_deletes_apply_in_order(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(*(person(n) for n in range(5)))
        done = await feed.apply(
            (Op.UPSERT, [person(1, "one"), person(1, "two")]),
            (Op.DELETE, [{"id": 0}, {"id": 3}, {"id": 77}]),
            (Op.UPSERT, [person(3, "back")]),
        )
        rows = by_id(await world.rows(target()))
        assert done.applied == 6
        assert sorted(rows) == [1, 2, 3, 4]  # type: ignore[type-var]  # ids are integers
        assert (rows[1]["name"], rows[3]["name"]) == ("two", "back")
        await sink.close()

    async def test_composite_keys_are_told_apart(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream(NOTES))
        await feed.upsert(note("a", 1), note("a", 2), note("b", 1, None))
        await feed.apply((Op.DELETE, [{"region": "a", "number": 1}]))
        rows = await world.rows(target(NOTES, NOTES_SCHEMA))
        assert sorted((row["region"], row["number"]) for row in rows) == [("a", 2), ("b", 1)]  # type: ignore[type-var]  # simple
        await sink.close()

    async def test_an_empty_block_moves_the_state(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        done = await feed.apply()
        assert (done.applied, done.state.high) == (0, end_of(GENERATION, 2))
        assert await sink.state(stream()) == done.state
        await sink.close()

    async def test_the_loser_of_two_writers_is_told_and_writes_nothing(
        self, world: SinkWorld
    ) -> None:
        first, second = await self._open(world), await self._open(world)
        winner, loser = Feed(first, stream()), Feed(second, stream())
        await winner.upsert(person(1, "winner"))
        with pytest.raises(UnavailableError) as caught:
            await loser.upsert(person(1, "loser"), person(2, "loser"))
        assert caught.value.reason is Reason.OVERLOADED
        assert [row["name"] for row in await world.rows(target())] == ["winner"]
        loser.state = await second.state(stream())
        assert loser.state == winner.state
        await loser.upsert(person(1, "loser"))
        with pytest.raises(UnavailableError):
            await winner.upsert(person(1, "stale"))
        assert [row["name"] for row in await world.rows(target())] == ["loser"]
        await first.close()
        await second.close()

    async def test_a_replay_that_is_trimmed_is_harmless(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        block = feed.block((Op.UPSERT, [person(1), person(2)]), (Op.DELETE, [{"id": 1}]))
        await feed.send(block)
        assert feed.state is not None
        again = trim(block, feed.state.high)
        done = await sink.apply(again, feed.state, replace(feed.after(block), offset=9))
        assert (done.applied, done.state.offset) == (0, 9)
        assert ids(await world.rows(target())) == [2]
        # A block that overlaps: its first part is cut at the high-water sequence.
        half = ChangeSequence(GENERATION, 2, 1)
        feed.state, feed.position = done.state, 1
        wide = feed.block((Op.UPSERT, [person(5, "old"), person(6)]))
        first = replace(wide, upto=half, runs=(replace(wide.runs[0], rows=wide.runs[0].rows[:1]),))
        await feed.send(first)
        await feed.upsert(person(5, "new"))
        await feed.send(trim(wide, ChangeSequence(GENERATION, 2, 1)))
        assert by_id(await world.rows(target()))[5]["name"] == "new"
        assert ids(await world.rows(target())) == [2, 5, 6]
        await sink.close()

    async def test_absent_columns_are_left_alone(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1, "old", photo=b"kept"), person(2, photo=b"two"))
        changed = person(1, "new", photo=None, seen=None)
        await feed.apply((Op.UPSERT, [changed]), absent=("photo", "seen"))
        row = by_id(await world.rows(target()))[1]
        assert (row["name"], row["photo"], row["seen"]) == ("new", b"kept", person(1)["seen"])
        await sink.close()

    async def test_a_truncate_empties_the_table(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1), person(2))
        await feed.apply((Op.TRUNCATE, []), (Op.UPSERT, [person(3)]))
        assert ids(await world.rows(target())) == [3]
        await sink.close()

    async def test_the_end_of_a_snapshot_removes_rows_not_seen(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        await world.insert(target(), [person(n) for n in range(10, 15)])
        feed = Feed(sink, stream())
        begun = await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(1), person(10)]))
        assert begun.state.incomplete
        await feed.apply((Op.UPSERT, [person(2), person(11)]), (Op.DELETE, [{"id": 10}]))
        assert ids(await world.rows(target())) == [1, 2, 11, 12, 13, 14]
        await sink.close()
        feed.sink = sink = await self._open(world)
        done = await feed.apply((Op.UPSERT, [person(3)]), (Op.SNAPSHOT_END, []))
        assert not done.state.incomplete
        assert ids(await world.rows(target())) == [1, 2, 3, 11]
        await sink.close()

    async def test_a_truncation_within_a_snapshot_does_not_end_it(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(2)]), (Op.TRUNCATE, []))
        await world.insert(target(), [person(1), person(2), person(3)])
        done = await feed.apply((Op.UPSERT, [person(3)]), (Op.SNAPSHOT_END, []))
        assert not done.state.incomplete
        assert ids(await world.rows(target())) == [3]
        await sink.close()

    async def test_the_end_of_a_snapshot_that_began_before_us_completes_nothing(
        self, world: SinkWorld
    ) -> None:
        """A consumer that joined in its middle has not seen the rows before."""
        sink = await self._open(world)
        feed = Feed(sink, stream())
        block = feed.block((Op.UPSERT, [person(1)]), (Op.SNAPSHOT_END, []))
        joined = await sink.apply(block, None, replace(feed.after(block), incomplete=True))
        assert joined.state.incomplete
        feed.state = joined.state
        again = await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(1)]))
        assert again.state.incomplete
        done = await feed.apply((Op.SNAPSHOT_END, []))
        assert not done.state.incomplete
        await sink.close()

    async def test_a_snapshot_cannot_end_in_another_generation(self, world: SinkWorld) -> None:
        """Rows of its own generation may have been lost with the log."""
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(2)]))
        feed.generation += 1
        done = await feed.apply((Op.UPSERT, [person(3)]), (Op.SNAPSHOT_END, []))
        assert done.state.incomplete
        assert ids(await world.rows(target())) == [1, 2, 3]
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(3)]))
        done = await feed.apply((Op.SNAPSHOT_END, []))
        assert not done.state.incomplete
        assert ids(await world.rows(target())) == [3]
        await sink.close()

    async def test_marks_mean_to_sinks_what_they_mean_to_subscribers(
        self, world: SinkWorld
    ) -> None:
        """A subscriber has completeness_after alone."""
        sink = await self._open(world)
        feed = Feed(sink, stream())
        begin, end = (Op.SNAPSHOT_BEGIN, []), (Op.SNAPSHOT_END, [])
        rows = (Op.UPSERT, [person(1)])
        steps = [
            (0, (rows,)),
            (0, (end,)),
            (0, (begin, rows)),
            (1, (rows,)),
            (0, (end,)),
            (0, (end, begin)),
            (0, (rows, end)),
            (1, (begin, rows, end)),
            (0, (rows, begin)),
            (1, (end,)),
            (0, (rows,)),
        ]
        for number, (newer, parts) in enumerate(steps):
            feed.generation += newer
            block = feed.block(*parts)
            told = completeness_after(feed.state, block)
            new = replace(feed.after(block), **told._asdict())
            feed.state = (await sink.apply(block, feed.state, new)).state
            feed.offset += 1
            assert (feed.state.incomplete, feed.state.in_snapshot) == told, number
            assert await sink.state(feed.stream) == feed.state, number
        await sink.close()

    async def test_a_snapshot_that_begins_again_counts_from_there(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(1), person(2)]))
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(2)]), (Op.SNAPSHOT_END, []))
        assert ids(await world.rows(target())) == [2]
        await sink.close()

    async def test_a_snapshot_of_one_partition_keeps_the_others(self, world: SinkWorld) -> None:
        split = target(partitions=3)
        sink = await self._open(world, split)
        rows = [person(n) for n in range(30)]
        parts: dict[int, list[Row]] = {0: [], 1: [], 2: []}
        for row in rows:
            parts[partition_of(key_bytes(PEOPLE_SCHEMA, row), SALT, 3)].append(row)
        await world.insert(split, rows)
        feed = Feed(sink, stream(partition=1))
        kept = parts[1][0]
        await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [kept]), (Op.SNAPSHOT_END, []))
        assert ids(await world.rows(split)) == ids([*parts[0], kept, *parts[2]])
        await Feed(sink, stream(partition=2)).apply((Op.TRUNCATE, []))
        assert ids(await world.rows(split)) == ids([*parts[0], kept])
        await sink.close()

    async def test_poison_is_parked_with_its_key_and_the_rest_flows(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        rows = [person(n, POISON if n in (0, 7, 19) else "good") for n in range(20)]
        done = await feed.upsert(*rows)
        assert (done.applied, done.quarantined) == (17, 3)
        good = [n for n in range(20) if n not in (0, 7, 19)]
        assert ids(await world.rows(target())) == good
        later = await feed.upsert(person(7, "later"), person(8, "later"))
        assert (later.applied, later.quarantined) == (1, 1)
        assert ids(await world.rows(target())) == good
        gone = await feed.apply((Op.DELETE, [{"id": 7}, {"id": 9}]))
        assert (gone.applied, gone.quarantined) == (1, 1)
        parked = await sink.quarantined(PEOPLE)
        assert [each.id for each in parked] == sorted(each.id for each in parked)
        assert len(parked) == 5
        assert all(each.change is None and each.topic == PEOPLE for each in parked)
        assert POISON not in str([each.reason for each in parked])
        assert {each.offset for each in parked[:3]} == {0}
        assert list(await sink.quarantined(NOTES)) == []
        shown = await sink.parked(parked[1].id)
        assert shown is not None
        assert shown.change is not None
        assert shown.change.row == rows[7]
        assert shown.change.sequence == ChangeSequence(GENERATION, 1, 8)
        await sink.close()

    async def test_one_key_twice_in_a_poisoned_batch_is_parked_in_order(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        done = await feed.upsert(person(1, POISON), person(2), person(1, "second"))
        assert (done.applied, done.quarantined) == (1, 2)
        await world.heal(target())
        first = (await sink.quarantined(None))[0]
        assert await sink.retry(first.id) == 2
        assert by_id(await world.rows(target()))[1]["name"] == "second"
        await sink.close()

    async def test_a_retry_applies_in_order_and_frees_the_key(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        await feed.upsert(person(1, POISON), person(2, POISON), person(3))
        await feed.upsert(person(1, "later"))
        ident = next(p.id for p in await sink.quarantined(None))
        assert await sink.retry(ident) == 0
        assert len(await sink.quarantined(None)) == 3
        await world.heal(target())
        assert await sink.retry(ident) == 2
        rows = by_id(await world.rows(target()))
        assert rows[1]["name"] == "later"
        assert len(await sink.quarantined(None)) == 1
        done = await feed.upsert(person(1, "free"))
        assert (done.applied, done.quarantined) == (1, 0)
        await sink.close()

    async def test_a_parked_change_is_read_by_the_schema_that_it_was_written_with(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        await Feed(sink, stream()).upsert(person(1, POISON))
        await sink.close()
        fields = PEOPLE_SCHEMA.declared["fields"]  # photo and balance are of one physical type
        text = json.dumps({**PEOPLE_SCHEMA.declared, "fields": [*fields[:-2], *fields[:-3:-1]]})
        today = target(schema=RowSchema.parse(text, PEOPLE_SCHEMA.key))
        sink = await self._open(world, today)
        (parked,) = await sink.quarantined(None)
        shown = await sink.parked(parked.id)
        assert shown is not None
        assert shown.change is not None
        assert shown.change.row == person(1, POISON)
        await world.heal(today)
        assert await sink.retry(parked.id) == 1
        assert await world.rows(today) == [person(1, POISON)]
        await sink.close()

    async def test_a_drop_makes_the_stream_incomplete(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        await feed.upsert(person(1, POISON), person(2))
        (parked,) = await sink.quarantined(None)
        await sink.drop(parked.id)
        assert list(await sink.quarantined(None)) == []
        state = await sink.state(stream())
        assert state is not None
        assert state.incomplete
        # The agent need not notice at once, and nobody forgets it.
        done = await feed.upsert(person(3))
        assert done.state.incomplete
        done = await feed.apply((Op.SNAPSHOT_BEGIN, []), (Op.SNAPSHOT_END, []))
        assert not done.state.incomplete
        await sink.close()

    async def test_an_unknown_number_cannot_be_retried_or_dropped(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        for work in (sink.retry, sink.drop):
            with pytest.raises(UsageError):
                await work(12345)
        await sink.close()

    async def test_a_target_that_stops_changes_nothing(self, world: SinkWorld) -> None:
        strict = target(quarantine=False)
        sink = await self._open(world, strict)
        feed = Feed(sink, stream())
        before = await feed.upsert(person(1))
        await world.spoil(strict)
        with pytest.raises(DeniedError) as caught:
            await feed.upsert(person(2), person(3, POISON), person(1, "changed"))
        assert caught.value.reason is Reason.APPLY_FAILED
        assert POISON not in str(caught.value)
        assert await world.rows(strict) == [person(1)]
        assert await sink.state(stream()) == before.state
        assert list(await sink.quarantined(None)) == []
        await sink.close()

    async def test_a_parked_change_keeps_its_ordinal_in_a_run_with_places_left_out(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        block = feed.block((Op.UPSERT, [person(1), person(2, POISON), person(3)]))
        some = replace(block.runs[0], ordinal=3, steps=(5, 1))
        done = await feed.send(replace(block, runs=(some,)))
        assert (done.applied, done.quarantined) == (2, 1)
        (parked,) = await sink.quarantined(None)
        shown = await sink.parked(parked.id)
        assert shown is not None
        assert shown.change is not None
        assert shown.change.sequence == ChangeSequence(GENERATION, 1, 8)
        await sink.close()

    async def test_state_and_quarantine_outlive_a_restart(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        await feed.upsert(person(1), person(2, POISON))
        parked = await sink.quarantined(None)
        await sink.close()
        feed.sink = sink = await self._open(world)
        assert await sink.state(stream()) == feed.state
        assert list(await sink.quarantined(None)) == list(parked)
        done = await feed.upsert(person(2, "good"), person(3))
        assert (done.applied, done.quarantined) == (1, 1)
        await sink.close()

    async def test_streams_of_two_topics_are_independent(self, world: SinkWorld) -> None:
        sink = await self._open(world)
        people, notes = Feed(sink, stream()), Feed(sink, stream(NOTES))
        await people.upsert(person(1))
        await notes.upsert(note("a", 1))
        await notes.apply((Op.TRUNCATE, []))
        await people.upsert(person(2))
        assert ids(await world.rows(target())) == [1, 2]
        assert list(await sink.streams(NOTES)) == [stream(NOTES)]
        await sink.close()

    async def test_a_snapshot_of_one_origin_keeps_the_rows_of_another(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world)
        one, two = Feed(sink, stream()), Feed(sink, stream(origin=OTHER))
        await one.upsert(person(1), person(2))
        await two.upsert(person(11), person(12))
        await two.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(11)]), (Op.SNAPSHOT_END, []))
        assert ids(await world.rows(target())) == [1, 2, 11]
        await one.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [person(2)]), (Op.SNAPSHOT_END, []))
        assert ids(await world.rows(target())) == [2, 11]
        await sink.close()

    async def test_an_existing_table_that_misses_a_column_is_refused(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world)
        await sink.close()
        wider = RowSchema.parse(
            '{"type": "record", "name": "Person", "fields": [{"name": "id", "type": "long"},'
            ' {"name": "shoe_size", "type": "int"}]}',
            ("id",),
        )
        with pytest.raises(UsageError, match="shoe_size") as caught:
            await self._open(world, target(schema=wider))
        assert caught.value.reason is Reason.TARGET_UNFIT

    async def test_a_table_is_not_made_for_a_dataset_whose_rows_were_applied_to_another(
        self, world: SinkWorld
    ) -> None:
        sink = await self._open(world, target())
        await Feed(sink, stream()).upsert(person(1))
        await sink.close()
        with pytest.raises(UsageError, match="table renamed") as caught:
            await self._open(world, replace(target(), table="renamed"))
        assert caught.value.reason is Reason.TARGET_UNFIT
        sink = await self._open(world, target())
        assert ids(await world.rows(target())) == [1]
        await sink.close()

    async def test_a_topic_that_is_not_a_target_is_refused(self, world: SinkWorld) -> None:
        sink = await self._open(world, target())
        with pytest.raises(FabricError):
            await Feed(sink, stream(NOTES)).upsert(note("a", 1))
        await sink.close()
