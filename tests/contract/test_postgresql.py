"""The contract suites on a real PostgreSQL, written by an application's own connections."""

import asyncio
from collections.abc import Sequence

import pytest

from fabric.database.postgresql import PostgresSink, PostgresSource
from fabric.model.change import Op, Row
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import SourceTable, Target
from tests.contract import postgresql_world
from tests.contract.postgresql_world import NUMBERS, PEOPLE_DDL, Application, to_sql
from tests.contract.sink_suite import OTHER, Feed, SinkSuite, by_id, stream, target
from tests.contract.source_suite import SourceSuite
from tests.contract.worlds import (
    CHUNK_ROWS,
    NOTES,
    NOTES_SCHEMA,
    PEOPLE,
    PEOPLE_SCHEMA,
    POISON,
    person,
)

database = postgresql_world.database


class PostgresSourceWorld:
    truncates = True

    def __init__(self, url: str) -> None:
        self.application = Application(url)
        self.people = SourceTable(table="public.people", topic=PEOPLE, schema=PEOPLE_SCHEMA)
        self.notes = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)
        self.slot = f"fabric_contract_{next(NUMBERS)}"

    def source(self) -> PostgresSource:
        return PostgresSource(
            self.application.url,
            [self.people, self.notes],
            slot=self.slot,
            publication="fabric contract's",
            chunk_rows=CHUNK_ROWS,
            silence_s=0.5,
        )

    async def insert(self, table: SourceTable, rows: Sequence[Row]) -> None:
        await self.application.insert(table.table, rows)

    async def update(self, table: SourceTable, key: Row, row: Row) -> None:
        sets = ", ".join(f"{name} = %({name})s" for name in row)
        where = " AND ".join(f"{name} = %(old_{name})s" for name in key)
        values = {**to_sql(row), **{f"old_{name}": value for name, value in key.items()}}
        await self.application.run(f"UPDATE {table.table} SET {sets} WHERE {where}", [values])

    async def delete(self, table: SourceTable, keys: Sequence[Row]) -> None:
        where = " AND ".join(f"{name} = %({name})s" for name in keys[0])
        await self.application.run(f"DELETE FROM {table.table} WHERE {where}", keys)

    async def truncate(self, table: SourceTable) -> None:
        await self.application.run(f"TRUNCATE {table.table}")

    async def rows(self, table: SourceTable) -> list[Row]:
        return await self.application.rows(table.table)

    async def forget(self) -> None:
        statement = f"SELECT pg_drop_replication_slot('{self.slot}')"
        await self.application.run(statement)


@pytest.mark.integration
class TestPostgresSource(SourceSuite):
    @pytest.fixture
    async def world(self, database: str) -> PostgresSourceWorld:
        world = PostgresSourceWorld(database)
        await world.application.run(PEOPLE_DDL)
        return world


class PostgresSinkWorld:
    def __init__(self, url: str) -> None:
        self.application = Application(url)

    def sink(self) -> PostgresSink:
        return PostgresSink(self.application.url)

    async def rows(self, target: Target) -> list[Row]:
        return await self.application.rows(target.table)

    async def insert(self, target: Target, rows: Sequence[Row]) -> None:
        await self.application.insert(target.table, rows)

    async def spoil(self, target: Target) -> None:
        await self.application.run(
            f"ALTER TABLE {target.table} ADD CONSTRAINT spoilt CHECK (name <> '{POISON}') NOT VALID"
        )

    async def heal(self, target: Target) -> None:
        await self.application.run(f"ALTER TABLE {target.table} DROP CONSTRAINT spoilt")


Asked = list[str]


def listen(sink: PostgresSink) -> Asked:
    """Whatever the sink asks the server from now on."""
    asked: Asked = []
    assert sink._connection is not None
    sink._connection.add_query_logger(lambda record: asked.append(record.query))
    return asked


@pytest.mark.integration
class TestPostgresSink(SinkSuite):
    @pytest.fixture
    async def world(self, database: str) -> PostgresSinkWorld:
        return PostgresSinkWorld(database)

    async def test_one_key_twice_in_a_poisoned_batch_is_parked_in_order(
        self, world: PostgresSinkWorld
    ) -> None:
        """Of a key's states in one block only the last is written: both must be poison here."""
        sink = await self._open(world)
        await world.spoil(target())
        feed = Feed(sink, stream())
        rows = person(1, POISON, active=True), person(2), person(1, POISON, active=False)
        done = await feed.upsert(*rows)
        assert (done.applied, done.quarantined) == (1, 2)
        await world.heal(target())
        first = (await sink.quarantined(None))[0]
        assert await sink.retry(first.id) == 2
        assert by_id(await world.rows(target()))[1]["active"] is False
        await sink.close()

    async def test_a_few_rows_take_one_trip_once_the_stream_is_known(
        self, world: PostgresSinkWorld
    ) -> None:
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        asked = listen(sink)
        done = await feed.apply(
            (Op.UPSERT, [person(1, "again"), person(2)]), (Op.UPSERT, [person(2, "twice")])
        )
        assert (done.applied, done.quarantined) == (3, 0)
        await asyncio.sleep(0)  # the library tells of a query on the loop's next turn
        assert len(asked) == 1
        assert await sink.state(stream()) == done.state == feed.state
        rows = by_id(await world.rows(target()))
        assert (rows[1]["name"], rows[2]["name"]) == ("again", "twice")
        await sink.close()

    async def test_a_stream_that_another_writer_moved_is_not_written_in_one_trip_either(
        self, world: PostgresSinkWorld
    ) -> None:
        sink, other = await self._open(world), await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        rival = Feed(other, stream())
        rival.state, rival.position, rival.offset = feed.state, feed.position, feed.offset
        await rival.upsert(person(2))
        with pytest.raises(UnavailableError) as raised:
            await feed.upsert(person(3))
        assert raised.value.reason is Reason.OVERLOADED
        assert await sink.state(stream()) == rival.state
        assert by_id(await world.rows(target())).keys() == {1, 2}
        await sink.close()
        await other.close()

    async def test_parked_changes_and_a_second_origin_end_the_quick_way(
        self, world: PostgresSinkWorld
    ) -> None:
        """What must be looked up first is: a parked key stays parked, rows know their origin."""
        sink = await self._open(world)
        feed = Feed(sink, stream())
        await feed.upsert(person(1))
        await world.spoil(target())
        done = await feed.upsert(person(2, POISON))
        assert (done.applied, done.quarantined) == (0, 1)
        await world.heal(target())
        assert (await feed.upsert(person(2, "later"))).quarantined == 1
        await sink.drop((await sink.quarantined(None))[0].id)
        await sink.drop((await sink.quarantined(None))[0].id)
        assert feed.state is not None
        assert not feed.state.incomplete
        done = await feed.upsert(person(3))  # the sink alone knows that rows were dropped
        assert done.state.incomplete
        second = Feed(sink, stream(origin=OTHER))
        await second.upsert(person(9))
        await feed.upsert(person(9, "taken back"))
        await second.apply((Op.SNAPSHOT_BEGIN, ()), (Op.SNAPSHOT_END, ()))
        assert by_id(await world.rows(target())).keys() == {1, 3, 9}
        await sink.close()
