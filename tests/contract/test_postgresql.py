"""The contract suites on a real PostgreSQL, written by an application's own connections."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fabric.database.postgresql import PostgresSink, PostgresSource
from fabric.demo.postgresql import Postgres
from fabric.model.change import Row, Value
from fabric.ports import SourceTable, Target
from tests.contract.sink_suite import Feed, SinkSuite, by_id, stream, target
from tests.contract.source_suite import SourceSuite
from tests.contract.worlds import (
    CHUNK_ROWS,
    NOTES,
    NOTES_SCHEMA,
    PEOPLE,
    PEOPLE_SCHEMA,
    POISON,
    decimal_bytes,
    person,
)

_NUMBERS = itertools.count()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DDL = """
CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, born date NOT NULL,
  seen timestamptz NOT NULL, active boolean NOT NULL, score double precision, photo bytea,
  balance numeric(12, 2));
CREATE TABLE notes (region text, number integer, body text, PRIMARY KEY (region, number));
"""


def to_sql(row: Row) -> dict[str, Any]:
    """A row as an application stores it."""
    result: dict[str, Any] = dict(row)
    if isinstance(born := row.get("born"), int):
        result["born"] = date(1970, 1, 1) + timedelta(days=born)
    if isinstance(seen := row.get("seen"), int):
        result["seen"] = _EPOCH + timedelta(microseconds=seen)
    if isinstance(balance := row.get("balance"), bytes):
        result["balance"] = Decimal(int.from_bytes(balance, "big", signed=True)).scaleb(-2)
    return result


def from_sql(row: dict[str, Any]) -> Row:
    result: dict[str, Value] = dict(row)
    if "born" in row:
        result["born"] = (row["born"] - date(1970, 1, 1)).days
        result["seen"] = (row["seen"] - _EPOCH) // timedelta(microseconds=1)
    if row.get("balance") is not None:
        result["balance"] = decimal_bytes(int(row["balance"].scaleb(2)))
    return result


class Application:
    """Plain SQL on one database, each statement in a transaction of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def run(self, statement: str | sql.Composable, rows: Sequence[Any] = ()) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("SET TIME ZONE 'UTC'")
            text = sql.SQL(statement) if isinstance(statement, str) else statement  # type: ignore[arg-type]  # tests' own text
            if rows:
                await connection.cursor().executemany(text, rows)
            else:
                await connection.execute(text)

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        names = ", ".join(rows[0])
        marks = ", ".join(f"%({name})s" for name in rows[0])
        values = [to_sql(row) for row in rows]
        await self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

    async def rows(self, table: str) -> list[Row]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("SET TIME ZONE 'UTC'")
            cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
            await cursor.execute(f"SELECT * FROM {table}")  # type: ignore[call-overload]  # tests' own text
            return [from_sql(row) for row in await cursor.fetchall()]


class PostgresSourceWorld:
    truncates = True

    def __init__(self, url: str) -> None:
        self.application = Application(url)
        self.people = SourceTable(table="public.people", topic=PEOPLE, schema=PEOPLE_SCHEMA)
        self.notes = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)
        self.slot = f"fabric_contract_{next(_NUMBERS)}"

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


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    name = f"contract_{next(_NUMBERS)}"
    yield postgres.create_database(name)
    await asyncio.to_thread(postgres.drop_database, name)


@pytest.mark.integration
class TestPostgresSource(SourceSuite):
    @pytest.fixture
    async def world(self, database: str) -> PostgresSourceWorld:
        world = PostgresSourceWorld(database)
        await world.application.run(_DDL)
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
