"""fabric.database.postgresql_generation"""

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from fabric.database.postgresql import PostgresSource
from fabric.model.change import Op
from fabric.model.errors import UnavailableError
from fabric.model.names import Topic
from fabric.ports import SourceTable
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS,
    ITEMS_DDL,
    TOPIC,
    Reading,
    item,
    new_source,
    reading,
)
from tests.contract.postgresql_world import Application, standby_away, until_awaited, until_held

database = postgresql_world.database


@pytest.mark.integration
async def test_a_lost_publication_starts_a_new_generation(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
        await application.run("DROP PUBLICATION fabric")
        await application.run("INSERT INTO items VALUES (1, 'n')")
        with pytest.raises(UnavailableError):
            await read.forever()
    async with reading(source, resume) as read:
        assert read.generation > generation
        await read.until_ended()
        assert read.rows() == {1: item(1)}


@pytest.mark.integration
async def test_a_table_that_left_the_publication_is_read_anew(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    await application.run("ALTER PUBLICATION fabric DROP TABLE items")
    await application.run("INSERT INTO items VALUES (1, 'n')")
    async with reading(source, resume) as read:
        assert read.generation == generation
        await read.until_ended()
        assert [run.op for run in read.runs][0] is Op.SNAPSHOT_BEGIN
        assert read.rows() == {1: item(1)}


@pytest.mark.integration
async def test_what_commits_while_the_slot_is_made_is_not_lost(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE other (id int)")
    source = new_source(database)
    connect = psycopg.AsyncConnection.connect
    local = {"options": "-c synchronous_commit=local"}
    async with (
        await connect(database, **local) as first,
        await connect(database, **local) as second,
        asyncio.TaskGroup() as group,
    ):
        # A slot waits twice for all that is open; what commits between is never sent.
        await first.execute("INSERT INTO other VALUES (1)")
        opening = group.create_task(source.open(None))
        await until_awaited(first)
        await second.execute("INSERT INTO other VALUES (2)")
        await first.commit()
        await until_awaited(second)
        async with standby_away(database):
            group.create_task(application.run("INSERT INTO items VALUES (7, 'n')"))
            await until_held(database)
            await second.commit()
            read = Reading(source, (await opening).generation)
            for _ in range(4):
                await read.until(lambda: True)
            assert Op.SNAPSHOT_END not in [run.op for run in read.runs]
        await read.until_ended()
        assert read.rows() == {7: item(7)}
        await read.close()


@pytest.mark.integration
@pytest.mark.parametrize("standby", [True, False])
async def test_what_is_under_way_when_a_table_is_added_is_not_lost(
    database: str, standby: bool
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE more (LIKE items INCLUDING ALL)")
    one = SourceTable(table="public.items", topic=TOPIC, schema=ITEMS)
    two = SourceTable(table="public.more", topic=Topic("secret", "G01", "more"), schema=ITEMS)
    slot = f"fabric_added_{next(postgresql_world.NUMBERS)}"
    first, second = (
        PostgresSource(database, tables, slot=slot, publication="fabric", silence_s=0.3)
        for tables in ([one], [one, two])
    )
    async with reading(first) as read:
        await read.until_ended()
        resume = read.reached.resume
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        if standby:
            await stack.enter_async_context(standby_away(database))
            group.create_task(application.run("INSERT INTO more VALUES (2, 'n')"))
            await until_held(database)
        else:
            connection = await psycopg.AsyncConnection.connect(database)
            await stack.enter_async_context(connection)
            await connection.execute("INSERT INTO more VALUES (2, 'n')")
        async with reading(second, resume) as read:
            for _ in range(4):
                await read.until(lambda: True)
            assert Op.SNAPSHOT_END not in [run.op for run in read.runs]
            await stack.aclose()
            await read.until_ended()
            assert read.rows() == {2: item(2)}
