"""The contract suites on a real PostgreSQL, written by an application's own connections."""

from collections.abc import Sequence

import pytest

from fabric.database.postgresql import PostgresSink, PostgresSource
from fabric.model.change import Row
from fabric.ports import SourceTable, Target
from tests.contract import postgresql_world
from tests.contract.postgresql_world import NUMBERS, PEOPLE_DDL, Application, to_sql
from tests.contract.sink_suite import Feed, SinkSuite, by_id, stream, target
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
