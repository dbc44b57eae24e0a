"""fabric.database.postgresql_source"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fabric.database import postgresql_source
from fabric.database.postgresql_session import Session
from fabric.demo.postgresql import Postgres
from fabric.model.change import Op, Row
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError, UsageError
from fabric.ports import Captured, Reached, SourceTable
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS,
    ITEMS_DDL,
    TOPIC,
    applying,
    item,
    new_source,
    reading,
    schema,
)
from tests.contract.postgresql_world import Application

database = postgresql_world.database
BIG = os.urandom(6000).hex()


def test_tables_are_named_once() -> None:
    from fabric.database.postgresql_source import PostgresSource

    table = SourceTable(table="items", topic=TOPIC, schema=ITEMS)
    for tables in ([], [table, SourceTable(table="public.items", topic=TOPIC, schema=ITEMS)]):
        with pytest.raises(ConfigInvalid):
            PostgresSource("postgresql://h/d", tables, slot="s", publication="p")


async def test_a_source_that_is_not_open_says_so() -> None:
    source = new_source("postgresql://127.0.0.1:1/x")
    with pytest.raises(UsageError):
        await anext(source.read())
    with pytest.raises(UnavailableError):
        await source.open(None)


@pytest.mark.integration
async def test_a_large_commit_is_in_the_log_of_before_until_it_is_released(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        await source.release(read.reached.position)
        await application.run("INSERT INTO items SELECT n, 'x' FROM generate_series(1, 5000) n")
        before = await source.status()
        end = before["log_released"] + before["lag_bytes"]
        assert before["lag_bytes"] > 100_000
        assert before["lag_seconds"] == 0  # nobody has read it yet
        await read.until(lambda: len(read.rows()) == 5000)
        assert (await source.status())["log_released"] < end
        async with asyncio.timeout(20):
            while (await source.status())["log_released"] < end:
                await source.release(read.reached.position)
                await read.until(lambda: True)
        assert len(read.rows()) == 5000


@pytest.mark.integration
async def test_an_unchanged_toast_value_is_absent(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'old', '{BIG}')")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("UPDATE items SET name = 'new'")
        await read.until(lambda: read.rows() == {1: item(1, "new", BIG)})
        assert read.runs[-1].absent == ("note",)


@pytest.mark.integration
async def test_before_a_snapshot_no_reader_is_given_a_part_of_a_row(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'old', '{BIG}')")
    async with reading(new_source(database)) as read:
        # The slot is made, and no mark is written before the source is read.
        await application.run("UPDATE items SET name = 'new'; INSERT INTO items VALUES (2, 'n')")
        await read.until_ended()
        early = [run.op for run in read.runs].index(Op.SNAPSHOT_BEGIN)
        assert [run.rows for run in read.runs[:early]] == [[item(2)]]
        assert not any(run.absent for run in read.runs)
        assert read.rows() == {1: item(1, "new", BIG), 2: item(2)}


@pytest.mark.integration
async def test_a_row_with_a_new_key_brings_its_toast_value_along(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}'), (5, 'b', '{BIG}')")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("UPDATE items SET id = 2 WHERE id = 1")
        # By the time we look, the row under the key 6 is gone again.
        await application.run(
            "UPDATE items SET id = 6 WHERE id = 5; DELETE FROM items WHERE id = 6"
        )
        await read.until(lambda: read.rows() == {2: item(2, "a", BIG)})


async def move_and_remove(application: Application) -> None:
    """A row gets the key 2, changes in part, and is gone by the time the source looks."""
    await application.run("UPDATE items SET id = 2 WHERE id = 1")
    await application.run("UPDATE items SET name = 'c'")
    await application.run("DELETE FROM items WHERE id = 2")


@pytest.mark.integration
async def test_readers_get_no_part_of_a_row_that_they_were_never_given(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}'), (5, 'b', '{BIG}')")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        before = len(read.runs)
        await move_and_remove(application)
        await read.until(lambda: read.runs[-1].rows == [{"id": 2}])
        parts = [run for run in read.runs[before:] if run.absent]
        assert [run.rows for run in parts] == [[item(5, "c")]]
        assert read.rows() == {5: item(5, "c", BIG)}


@pytest.mark.integration
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("count", [1, 70])
async def test_a_row_that_a_sink_wrote_goes_out_whole_when_an_application_changes_a_part(
    database: str, restarts: bool, count: int
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (999, 'known', '{BIG}')")
    source = new_source(database)
    async with AsyncExitStack() as stack:
        read = await stack.enter_async_context(reading(source))
        await read.until_ended()
        async with applying(database) as sink:
            await sink.upsert(*[item(number, "a", BIG) for number in range(count)])
        await application.run("UPDATE items SET name = 'seen' WHERE id = 999")
        await read.until(lambda: read.rows()[999]["name"] == "seen")
        if restarts:
            await stack.aclose()
            read = await stack.enter_async_context(reading(source, read.reached.resume))
        await application.run("UPDATE items SET name = 'b' WHERE id < 999")
        await read.until(lambda: len(read.rows().keys() - {999}) == count)
        given = [row for key, row in read.rows().items() if key != 999]
        assert given == [item(number, "b", BIG) for number in range(count)]


@pytest.mark.integration
@pytest.mark.parametrize("key", [1, 2])
async def test_a_row_that_is_read_takes_nothing_from_there_that_the_log_holds(
    database: str, key: int
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}')")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        before = len(read.runs)
        async with applying(database) as sink:
            await sink.upsert(item(1, "a", BIG))
        await application.run(f"UPDATE items SET id = {key}, name = 'b'")
        # Were names unique, another row might have had 'c' until now.
        await application.run("UPDATE items SET name = 'c'")
        await read.until(lambda: read.rows() == {key: item(key, "c", BIG)})
        given = [row for run in read.runs[before:] if run.op is Op.UPSERT for row in run.rows]
        assert [row["name"] for row in given] == ["b", "c"]
        assert given[0] == item(key, "b", BIG)


@pytest.mark.integration
async def test_rows_that_are_read_whole_leave_before_more_are_read(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    fetch, fetched = Session.fetch, [0]

    async def counting(
        self: Session, topic: str, rows: Sequence[Row], *more: Any, **named: Any
    ) -> Any:
        fetched[0] += len(rows)
        return await fetch(self, topic, rows, *more, **named)

    monkeypatch.setattr(Session, "fetch", counting)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        async with applying(database) as sink:
            await sink.upsert(*[item(number, "a", BIG) for number in range(40)])
        await application.run("UPDATE items SET name = 'b'")
        async for event in source.read():
            if isinstance(event, Captured):
                assert fetched[0] == event.run.count < 40
                break


@pytest.mark.integration
async def test_a_row_that_a_sink_wrote_is_read_whole_once(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        async with applying(database) as sink:
            await sink.upsert(item(1, "a", BIG))
        for name in ("b", "c"):
            await application.run(f"UPDATE items SET name = '{name}'")
            await read.until(lambda name=name: read.rows() == {1: item(1, name, BIG)})  # type: ignore[misc]  # a default
        assert [run.absent for run in read.runs[-2:]] == [(), ("note",)]


@pytest.mark.integration
async def test_nor_after_a_restart(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_source, "_REACHED_S", 0.0)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items VALUES (1, 'a', '{BIG}')")
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        await move_and_remove(application)
        await read.until(lambda: not read.rows())
        assert read.runs[-1].rows == [{"id": 1}]
        resume = read.reached.resume
    async with reading(source, resume) as read:
        await read.until(lambda: bool(read.runs))
        assert [(run.op, run.rows) for run in read.runs] == [(Op.DELETE, [{"id": 2}])]


@pytest.mark.integration
async def test_a_table_may_change_its_shape_between_rows(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("INSERT INTO items VALUES (1, 'n')")
        await application.run("ALTER TABLE items ADD COLUMN age int DEFAULT 3")
        await application.run("INSERT INTO items VALUES (2, 'n')")
        await application.run("ALTER TABLE items ALTER COLUMN name TYPE varchar(30)")
        await application.run("INSERT INTO items VALUES (3, 'n')")
        await read.until(lambda: read.rows() == {n: item(n) for n in (1, 2, 3)})
        await application.run("ALTER TABLE items RENAME COLUMN note TO remark")
        await application.run("INSERT INTO items VALUES (4, 'n')")
        with pytest.raises(DeniedError, match="public.items column note") as caught:
            await read.forever()
        assert caught.value.reason is Reason.SCHEMA_MISMATCH


@pytest.mark.integration
async def test_only_a_release_moves_the_slot(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database, slot="fabric_released")
    async with reading(source) as read:
        await read.until_ended()
        await application.run("INSERT INTO items VALUES (1, 'n')")
        await read.until(lambda: bool(read.rows()))
        assert (await source.status())["lag_seconds"] > 0
        held = await confirmed(application)
        await asyncio.sleep(0.5)
        assert await confirmed(application) == held
        await source.release(read.reached.position)
        assert (await source.status())["lag_seconds"] == 0
        async with asyncio.timeout(5):
            while await confirmed(application) == held:
                await asyncio.sleep(0.02)


async def confirmed(application: Application) -> object:
    rows = await application.rows(
        "(SELECT confirmed_flush_lsn::text AS at FROM pg_replication_slots"
        " WHERE database = current_database()) s"
    )
    return rows[0]["at"]


@pytest.mark.integration
async def test_many_small_commits_share_a_reached(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        before = len(read.events)
        await application.run("INSERT INTO items VALUES (%s, 'n')", [(n,) for n in range(10)])
        for number in range(10, 20):
            await application.run(f"INSERT INTO items VALUES ({number}, 'n')")
        await read.until(lambda: len(read.rows()) == 20)
        said = [event for event in read.events[before:] if isinstance(event, Reached)]
        assert 1 <= len(said) <= 12


@pytest.mark.integration
async def test_types_without_a_binary_form_of_ours_make_the_stream_textual(database: str) -> None:
    application = Application(database)
    await application.run(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN pennies AS numeric(10, 2);"
        "CREATE TABLE items (id bigint PRIMARY KEY, address inet NOT NULL, tags text[],"
        " mood mood NOT NULL, price pennies, at timestamptz NOT NULL, day date NOT NULL,"
        " doc jsonb, body bytea, flag bool, span interval)"
    )
    fields = [
        {"name": "id", "type": "long"},
        {"name": "address", "type": "string"},
        {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
        {"name": "mood", "type": {"type": "enum", "name": "Mood", "symbols": ["good", "bad"]}},
        {
            "name": "price",
            "type": [
                "null",
                {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
            ],
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "doc", "type": ["null", {"type": "map", "values": "int"}]},
        {"name": "body", "type": ["null", "bytes"]},
        {"name": "flag", "type": ["null", "boolean"]},
        {"name": "span", "type": ["null", "string"]},
    ]
    insert = (
        "INSERT INTO items VALUES ({}, '10.1.2.3', '{{a,NULL,\"b c\"}}', 'good', -12.5,"
        " '2024-02-29 12:00:00.000001+07', 'infinity', '{{\"a\": 1}}', '\\x00ff', true, '1 day')"
    )
    await application.run(insert.format(1))
    async with reading(new_source(database, of=schema(*fields))) as read:
        await read.until_ended()
        await application.run(insert.format(2))
        await read.until(lambda: len(read.rows()) == 2)
        first, second = read.rows().values()
        assert {**first, "id": 2} == second
        assert first == {
            "id": 1,
            "address": "10.1.2.3",
            "tags": ["a", None, "b c"],
            "mood": "good",
            "price": (-1250).to_bytes(2, "big", signed=True),
            "at": 1_709_182_800_000_001,
            "day": 2**31 - 1,
            "doc": {"a": 1},
            "body": b"\x00\xff",
            "flag": True,
            "span": "1 day",
        }


@pytest.mark.integration
async def test_a_value_that_the_schema_cannot_hold_stops_the_source(database: str) -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}
    application = Application(database)
    await application.run("CREATE TABLE items (id bigint PRIMARY KEY, price numeric NOT NULL)")
    of = schema({"name": "id", "type": "long"}, {"name": "price", "type": decimal})
    async with reading(new_source(database, of=of)) as read:
        await read.until_ended()
        await application.run("INSERT INTO items VALUES (1, 'NaN')")
        with pytest.raises(DeniedError, match="column price"):
            await read.forever()
    async with reading(new_source(database, of=of)) as read:
        with pytest.raises(DeniedError, match="column price"):
            await read.forever()


@pytest.mark.integration
async def test_a_two_million_byte_row_passes(database: str, postgres: Postgres) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("INSERT INTO items VALUES (1, repeat('x', 2000000))")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("INSERT INTO items VALUES (2, repeat('y', 2000000))")
        await read.until(lambda: set(read.rows()) == {1, 2})
    assert postgres.pid
