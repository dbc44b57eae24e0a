"""What every ChangeSource must do. Subclass it and give a `world` fixture.

class TestPostgresSource(SourceSuite):
    @pytest.fixture
    async def world(self, postgres): yield PostgresWorld(...)
"""

import time

import pytest

from fabric.model.change import MARKS, Op, Row
from fabric.ports import SourceTable
from tests.contract.replica import Follower, Replica, follow, key_of
from tests.contract.worlds import CHUNK_ROWS, NOTES, PEOPLE, SourceWorld, note, person


def make_replica(world: SourceWorld) -> Replica:
    return Replica({str(t.topic): t.schema for t in (world.people, world.notes)})


async def sorted_rows(world: SourceWorld, table: SourceTable) -> list[Row]:
    rows = await world.rows(table)
    return sorted(rows, key=lambda row: repr(key_of(table.schema, row)))


async def is_equal(world: SourceWorld, replica: Replica) -> bool:
    for table in (world.people, world.notes):
        if replica.rows(table.topic) != await sorted_rows(world, table):
            return False
    return True


async def catch_up(world: SourceWorld, follower: Follower) -> None:
    """Read on until replica and database are equal."""
    wanted = {t.topic: await sorted_rows(world, t) for t in (world.people, world.notes)}
    await follower.until(
        lambda: all(follower.replica.rows(topic) == rows for topic, rows in wanted.items())
    )


def live_keys(follower: Follower, table: SourceTable) -> list[tuple[int, int, object]]:
    """(position, ordinal, key) of every row change of a table, in the order it came."""
    return [
        (event.run.position, event.run.ordinal + place, key_of(table.schema, row))
        for event in follower.captured
        if event.topic == table.topic
        for place, row in enumerate(event.run.rows)
    ]


async def rows_left(follower: Follower) -> float:
    """Rows of snapshots that are still to be read, as the metrics show them."""
    status = await follower.source.status()
    return status["snapshot_total"] - status["snapshot_rows"]


class SourceSuite:
    @pytest.fixture
    def world(self) -> SourceWorld:
        raise NotImplementedError

    async def _synced(self, world: SourceWorld) -> Follower:
        """A follower that has read a snapshot of some rows."""
        await world.insert(world.people, [person(n) for n in range(1, 6)])
        follower = await follow(world.source(), None, make_replica(world))
        await follower.until_ended(PEOPLE, NOTES)
        return follower

    async def test_snapshot_comes_first_and_live_changes_after(self, world: SourceWorld) -> None:
        count = CHUNK_ROWS * 2 + 5
        await world.insert(world.people, [person(n) for n in range(count)])
        await world.insert(world.notes, [note("north", n, None) for n in range(3)])
        follower = await follow(world.source(), None, make_replica(world))
        await follower.until_ended(PEOPLE, NOTES)
        assert await is_equal(world, follower.replica)
        ops = [e.run.op for e in follower.captured if e.topic == PEOPLE]
        assert (ops[0], ops[-1]) == (Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END)
        await world.insert(world.people, [person(count), person(count + 1)])
        await world.insert(world.notes, [note("south", 1)])
        await catch_up(world, follower)
        await follower.close()

    async def test_snapshot_of_empty_tables_ends(self, world: SourceWorld) -> None:
        follower = await follow(world.source(), None, make_replica(world))
        await follower.until_ended(PEOPLE, NOTES)
        assert {event.run.op for event in follower.captured} <= MARKS
        await follower.close()

    async def test_a_new_generation_is_at_least_the_time(self, world: SourceWorld) -> None:
        source = world.source()
        opened = await source.open(None)
        await source.close()
        assert opened.generation >= int(time.time()) - 1

    async def test_values_of_every_type_arrive_as_they_are(self, world: SourceWorld) -> None:
        rows = [
            person(101, "Nguyễn Thị Ánh 'x\" \\ \n", score=-0.5, photo=b"", balance=b"\xff"),
            person(102, score=None, photo=None, balance=None, born=-25_567, seen=-1),
            person(103, born=0, seen=253_402_300_799_999_999, score=1e300, id=2**62),
        ]
        follower = await self._synced(world)
        await world.insert(world.people, rows)
        await catch_up(world, follower)
        held = {row["id"]: row for row in follower.replica.rows(PEOPLE)}
        assert [held[row["id"]] for row in rows] == rows
        await follower.close()

    async def test_inserts_updates_and_deletes_keep_their_order(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        await world.insert(world.people, [person(100), person(101)])
        await world.update(world.people, {"id": 100}, person(100, "changed"))
        await world.delete(world.people, [{"id": 101}, {"id": 1}])
        await world.insert(world.people, [person(1, "born again")])
        await world.update(world.people, {"id": 1}, person(1, "and again"))
        await catch_up(world, follower)
        names = {row["id"]: row["name"] for row in follower.replica.rows(PEOPLE)}
        assert (names[100], names[1]) == ("changed", "and again")
        assert 101 not in names
        await follower.close()

    async def test_a_changed_key_deletes_the_old_and_upserts_the_new(
        self, world: SourceWorld
    ) -> None:
        follower = await self._synced(world)
        await world.insert(world.notes, [note("north", 1)])
        await world.update(world.notes, {"region": "north", "number": 1}, note("south", 2, "moved"))
        await catch_up(world, follower)
        assert follower.replica.rows(NOTES) == [note("south", 2, "moved")]
        await follower.close()

    async def test_a_truncate_empties_the_reader(self, world: SourceWorld) -> None:
        if not world.truncates:
            pytest.skip("this database has no TRUNCATE")
        follower = await self._synced(world)
        await world.truncate(world.people)
        await world.insert(world.people, [person(50)])
        await catch_up(world, follower)
        assert Op.TRUNCATE in [event.run.op for event in follower.captured]
        await follower.close()

    async def test_a_large_transaction_arrives_whole(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        await world.insert(world.people, [person(n) for n in range(1000, 1000 + 7 * CHUNK_ROWS)])
        await catch_up(world, follower)
        await follower.close()

    async def test_after_release_a_restart_repeats_nothing_and_loses_nothing(
        self, world: SourceWorld
    ) -> None:
        follower = await self._synced(world)
        await world.insert(world.people, [person(100)])
        await catch_up(world, follower)
        last = follower.reached[-1]
        await follower.source.release(last.position)
        await follower.close()
        await world.insert(world.people, [person(200)])
        again = await follow(world.source(), last.resume, follower.replica)
        assert again.generation == follower.generation
        await catch_up(world, again)
        assert {key for _, _, key in live_keys(again, world.people)} == {(200,)}
        assert not {event.run.op for event in again.captured} & MARKS
        await again.close()

    async def test_what_was_not_released_is_repeated_with_the_same_sequences(
        self, world: SourceWorld
    ) -> None:
        follower = await self._synced(world)
        resume, seen = follower.resume, len(follower.events)
        await world.insert(world.people, [person(n) for n in range(100, 125)])
        await world.delete(world.people, [{"id": 3}])
        await catch_up(world, follower)
        await world.insert(world.people, [person(200)])
        await world.insert(world.notes, [note("north", 7)])
        await catch_up(world, follower)
        await follower.close()
        del follower.events[:seen]
        again = await follow(world.source(), resume, make_replica(world))
        wanted = live_keys(follower, world.people)
        await again.until(lambda: len(live_keys(again, world.people)) >= len(wanted))
        assert again.generation == follower.generation
        assert live_keys(again, world.people) == wanted
        await again.close()

    async def test_a_snapshot_goes_on_after_a_restart_under_writes(
        self, world: SourceWorld
    ) -> None:
        count = CHUNK_ROWS * 5
        await world.insert(world.people, [person(n) for n in range(count)])
        replica = make_replica(world)
        resume: str | None = None
        for turn in range(3):
            follower = await follow(world.source(), resume, replica)
            await self._until_some_rows(follower, world.people)
            resume = follower.resume
            # What is read after this token comes again, as after a crash.
            await self._until_some_rows(follower, world.people)
            await world.delete(world.people, [{"id": turn}, {"id": count - 1 - turn}])
            await world.update(world.people, {"id": 20 + turn}, person(20 + turn, "changed"))
            await world.update(world.people, {"id": 30 + turn}, person(5_000 + turn, "moved"))
            await world.insert(world.people, [person(-1 - turn), person(9_000 + turn)])
            await follower.close()
        follower = await follow(world.source(), resume, replica)
        await follower.until_ended(PEOPLE, NOTES)
        await catch_up(world, follower)
        read = sum(1 for e in follower.captured if e.run.op is Op.SNAPSHOT_BEGIN)
        assert read <= 1  # the people's snapshot went on; only the notes' began
        await follower.close()

    async def _until_some_rows(self, follower: Follower, table: SourceTable) -> None:
        count = len(live_keys(follower, table))
        await follower.until(lambda: len(live_keys(follower, table)) > count)

    async def test_a_foreign_token_starts_a_new_generation_with_a_snapshot(
        self, world: SourceWorld
    ) -> None:
        follower = await self._synced(world)
        resume = follower.resume
        await follower.close()
        await world.forget()
        await world.delete(world.people, [{"id": 2}])
        await world.insert(world.people, [person(300)])
        follower.replica.ended.clear()
        again = await follow(world.source(), resume, follower.replica)
        assert again.generation > follower.generation
        await again.until_ended(PEOPLE, NOTES)
        assert await is_equal(world, again.replica)
        await again.close()

    async def test_a_generation_alone_starts_one_above_it_whatever_the_clock_says(
        self, world: SourceWorld
    ) -> None:
        """What is left of a token when the platform's log went back."""
        later = int(time.time()) + 1_000_000
        source = world.source()
        opened = await source.open(f'{{"generation": {later}}}')
        await source.close()
        assert opened.generation == later + 1

    async def test_garbage_as_token_starts_a_new_generation(self, world: SourceWorld) -> None:
        for resume in ("", "{}", "null", "[1]", "not json", '{"kind": "other", "generation": 5}'):
            source = world.source()
            opened = await source.open(resume)
            await source.close()
            assert opened.generation >= int(time.time()) - 1

    async def test_an_idle_source_says_what_it_has_reached(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        start, count = time.monotonic(), len(follower.reached)
        await follower.until(lambda: len(follower.reached) > count)
        assert time.monotonic() - start < 12
        await follower.close()

    async def test_status_has_the_figures_of_the_port(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        status = await follower.source.status()
        assert {"lag_seconds", "lag_bytes", "snapshot_rows", "snapshot_total"} <= set(status)
        assert all(value >= 0 for value in status.values())
        await follower.close()

    async def test_what_is_read_and_not_released_lags(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        await follower.source.release(follower.reached[-1].position)
        assert (await follower.source.status())["lag_seconds"] == 0
        await world.insert(world.people, [person(300)])
        await catch_up(world, follower)
        assert (await follower.source.status())["lag_seconds"] > 0
        await follower.source.release(follower.reached[-1].position)
        assert (await follower.source.status())["lag_seconds"] == 0
        await follower.close()

    async def test_what_a_snapshot_read_lags_until_it_is_released(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        assert (await follower.source.status())["lag_seconds"] > 0
        await follower.source.release(follower.reached[-1].position)
        assert (await follower.source.status())["lag_seconds"] == 0
        await follower.close()

    async def test_rows_of_snapshots_are_left_until_the_last_one_ends(
        self, world: SourceWorld
    ) -> None:
        await world.insert(world.people, [person(n) for n in range(CHUNK_ROWS * 2)])
        first = await follow(world.source(), None, make_replica(world))
        await first.until(lambda: bool(first.replica.rows(PEOPLE)))
        assert await rows_left(first) > 0
        await first.close()
        again = await follow(world.source(), first.resume, first.replica)
        assert await rows_left(again) > 0
        await again.until(lambda: str(PEOPLE) in again.replica.ended)
        if str(NOTES) not in again.replica.ended:
            assert await rows_left(again) > 0
        await again.until_ended(PEOPLE, NOTES)
        assert await rows_left(again) == 0
        await again.close()

    async def test_a_source_that_goes_on_waits_for_nothing(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        assert await follower.source.waits() is None
        await follower.close()

    async def test_release_twice_is_harmless(self, world: SourceWorld) -> None:
        follower = await self._synced(world)
        position = follower.reached[-1].position
        await follower.source.release(position)
        await follower.source.release(position)
        await world.insert(world.people, [person(400)])
        await catch_up(world, follower)
        await follower.close()
