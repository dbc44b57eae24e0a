"""fabric.database.postgresql_session"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from fabric.database import postgresql_session
from fabric.database.postgresql_columns import selected
from fabric.database.postgresql_connect import connect, shut
from fabric.database.postgresql_preflight import FitTable, check
from fabric.database.postgresql_session import Held, Session, chunk_query, keys_query
from fabric.database.postgresql_types import TypeInfo, fields_of, reader_of, server_column
from fabric.model.change import Row
from fabric.model.errors import UnavailableError
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS,
    ITEMS_DDL,
    TOPIC,
    item,
    new_source,
    reading,
    schema,
)
from tests.contract.postgresql_world import Application, standby_away, until_blocked, until_held

database = postgresql_world.database
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}
BIG = os.urandom(6000).hex()
MANY = "INSERT INTO items SELECT i, 'n', '' FROM generate_series(1, 60) i"


def fit() -> FitTable:
    of = schema(
        {"name": "region", "type": "string"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        key=("region", "day"),
    )
    types = {1: TypeInfo(base="enum", element="", sql_type="region", typmod=-1),
             2: TypeInfo(base="date", element="", sql_type="date", typmod=-1)}  # fmt: skip
    key = server_column("region", 1, -1, types), server_column("day", 2, -1, types)
    columns = tuple(
        selected(field, column, reader_of(field, column))
        for field, column in zip(fields_of(of), key, strict=True)
    )
    table = SourceTable(table="s.t", topic=TOPIC, schema=of)
    return FitTable(table=table, columns=columns, key=key)


def test_a_chunk_starts_after_the_last_key() -> None:
    sql, arguments = chunk_query(fit(), None, 7)
    assert (arguments, "WHERE" in sql) == ([], False)
    assert sql.endswith('FROM "s"."t" AS t ORDER BY t."region", t."day" LIMIT 7')
    sql, arguments = chunk_query(fit(), ("north", 10_957), 7)
    assert '(t."region", t."day") > ($1::text::region, $2::pg_catalog.date)' in sql
    assert arguments == ["north", bytes(4)]


def test_rows_are_read_by_all_their_keys_at_once() -> None:
    rows: list[Row] = [{"region": "north", "day": 10_957}, {"region": "south", "day": 10_958}]
    sql, arguments = keys_query(fit(), rows)
    assert "unnest($1::text[], $2::pg_catalog.date[]) WITH ORDINALITY" in sql
    assert 't."region" = k.k1::region AND t."day" = k.k2' in sql
    assert arguments == [["north", "south"], [bytes(4), bytes([0, 0, 0, 1])]]


@pytest.mark.integration
@pytest.mark.parametrize("partitioned", [False, True])
async def test_a_table_that_is_rewritten_is_not_taken_for_empty(
    database: str, partitioned: bool
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL + (" PARTITION BY RANGE (id)" if partitioned else ""))
    if partitioned:
        await application.run("CREATE TABLE items_1 PARTITION OF items DEFAULT")
    await application.run(MANY)
    async with reading(new_source(database, chunk_rows=10)) as read, asyncio.TaskGroup() as group:
        await read.until(lambda: bool(read.rows()))
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("ALTER TABLE items ADD extra uuid DEFAULT gen_random_uuid()")
            ended = group.create_task(read.until_ended())
            await until_blocked(database, "TABLE|SELECT")
            await connection.commit()
            await ended
        assert len(read.rows()) == 60


@pytest.mark.integration
async def test_no_chunk_is_of_another_table_that_took_the_name(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(MANY)
    async with reading(new_source(database, chunk_rows=10, silence_s=60)) as read:
        await read.until(lambda: bool(read.rows()))
        await application.run("CREATE TABLE other (LIKE items INCLUDING ALL)")
        await application.run("INSERT INTO other VALUES (99, 'not ours')")
        await application.run("ALTER TABLE items RENAME TO kept; ALTER TABLE other RENAME TO items")
        with pytest.raises(UnavailableError, match="table public.items is another"):
            await read.forever()
        assert 99 not in read.rows()


@pytest.mark.integration
async def test_a_moved_row_is_read_when_its_move_is_visible(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}')")
    async with reading(new_source(database)) as read, asyncio.TaskGroup() as group:
        await read.until_ended()
        async with standby_away(database):
            group.create_task(application.run("UPDATE items SET id = 2"))
            await until_held(database)
            given = group.create_task(read.until(lambda: read.rows() == {2: item(2, "a", BIG)}))
            await asyncio.sleep(0.3)
            assert not given.done()


@pytest.mark.integration
async def test_a_move_that_stays_invisible_is_named(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session, "_ROW_HELD_S_MAX", 0.2)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}')")
    async with reading(new_source(database)) as read, asyncio.TaskGroup() as group:
        await read.until_ended()
        async with standby_away(database):
            group.create_task(application.run("UPDATE items SET id = 2"))
            await until_held(database)
            with pytest.raises(UnavailableError, match="items cannot be read: .* not visible"):
                await read.forever()


@asynccontextmanager
async def opened(database: str, of: RowSchema = ITEMS) -> AsyncIterator[Session]:
    """A session with the table `items`."""
    connection = await connect(database)
    table = SourceTable(table="public.items", topic=TOPIC, schema=of)
    fit = await check(connection, [table], "fabric")
    oid = await connection.fetchval("SELECT 'items'::regclass::oid")
    yield Session(connection, {str(TOPIC): (fit.tables[0], oid)})
    await shut(connection)


@pytest.mark.integration
async def test_no_crash_can_undo_a_row_that_was_fetched(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    await Application(database).run("INSERT INTO items VALUES (1, 'n')")
    begin = psycopg.AsyncConnection.connect
    async with opened(database) as session, await begin(database, autocommit=True) as writes:
        await writes.execute("SET synchronous_commit = off")
        for number in range(20):
            await writes.execute("UPDATE items SET name = %s", [str(number)])
            cursor = await writes.execute("SELECT pg_current_wal_insert_lsn()")
            written = await cursor.fetchone()
            assert await session.fetch(str(TOPIC), [item(1)], 3) == [item(1, str(number))]
            cursor = await writes.execute(
                "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written
            )
            assert await cursor.fetchone() == (True,)


@pytest.mark.integration
async def test_where_exclusive_locks_queue_a_read_has_its_turn(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session, "_LOCK_S_MAX", 0.01)
    monkeypatch.setattr(postgresql_session, "_LOCK_LONG_S_MAX", 10.0)
    await Application(database).run(ITEMS_DDL)
    begin = psycopg.AsyncConnection.connect
    async with (
        opened(database) as session,
        asyncio.TaskGroup() as group,
        await begin(database) as locks,
    ):
        await locks.execute("LOCK TABLE items")
        for _ in range(9):
            assert await session.chunk(str(TOPIC), None, 9, lambda _: True) is Held.LOCKED
        tried = group.create_task(session.chunk(str(TOPIC), None, 9, lambda _: True))
        await until_blocked(database, "LOCK TABLE")
        await asyncio.sleep(0.1)
        await locks.commit()
        assert await tried is not Held.LOCKED


@pytest.mark.integration
async def test_rows_are_fetched_in_the_order_of_their_keys_also_twice(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    await Application(database).run(
        "INSERT INTO items SELECT i, 'n' FROM generate_series(1, 250) i"
    )
    wanted = [*range(250, 0, -1), 999, 7, 7]
    async with opened(database) as session:
        found = await session.fetch(str(TOPIC), [item(number) for number in wanted], 3)
    assert found == [item(number) if number < 999 else None for number in wanted]


@pytest.mark.integration
async def test_rows_are_fetched_by_keys_of_many_types(database: str) -> None:
    await Application(database).run(
        "CREATE TYPE region AS ENUM ('north', 'south');"
        "CREATE TABLE items (region region, day date, price numeric(8, 2), code char(4), at uuid,"
        " PRIMARY KEY (region, day, price, code, at));"
        "INSERT INTO items SELECT region, '2000-01-02', 1.5, 'a', gen_random_uuid()"
        " FROM unnest('{north,south}'::region[]) region"
    )
    of = schema(
        {"name": "region", "type": "string"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "price", "type": PRICE},
        {"name": "code", "type": "string"},
        {"name": "at", "type": {"type": "string", "logicalType": "uuid"}},
        key=("region", "day", "price", "code", "at"),
    )
    async with opened(database, of) as session:
        rows, _ = await session.chunk(str(TOPIC), None, 9, lambda _: True)  # type: ignore[misc]  # not Held
        assert len(rows) == 2
        assert await session.fetch(str(TOPIC), rows, 3) == rows
