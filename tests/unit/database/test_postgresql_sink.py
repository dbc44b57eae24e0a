"""fabric.database.postgresql_sink"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from fabric.database import postgresql_locked, postgresql_sink
from fabric.database.postgresql_sink import PostgresSink
from fabric.model.change import Op
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS_DDL,
    STREAM,
    TOPIC,
    Applying,
    applying,
    item,
    target,
)
from tests.contract.postgresql_world import Application

database = postgresql_world.database
KILL = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"  # and wait until it is gone
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_two_datasets_cannot_share_a_table() -> None:
    sink = PostgresSink("postgresql://127.0.0.1:1/x")
    other = replace(target(), topic=replace(TOPIC, dataset="other"), table="public.items")
    with pytest.raises(ConfigInvalid):
        await sink.open([target(), other])
    with pytest.raises(UnavailableError):
        await sink.open([target()])


async def test_a_sink_that_is_not_open_says_so() -> None:
    with pytest.raises(UnavailableError) as caught:
        await Applying(PostgresSink("postgresql://127.0.0.1:1/x")).upsert(item(1))
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE


@pytest.mark.integration
async def test_a_broken_connection_costs_one_try_at_most(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await Application(database).run(KILL)
        with suppress(UnavailableError):  # the loss is noticed before the block is sent, or by it
            await sink.upsert(item(2))
        await sink.upsert(item(3))
        assert sink.state == await sink.sink.state(STREAM)
    assert {1, 3} <= {row["id"] for row in await Application(database).rows("items")}


@pytest.mark.integration
async def test_a_foreign_key_waits_for_another_stream_and_is_poison_in_the_end(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Application(database)
    await application.run("CREATE TABLE parents (id text PRIMARY KEY)")
    await application.run(ITEMS_DDL.replace("note text", "note text REFERENCES parents"))
    async with applying(database) as sink:
        with pytest.raises(UnavailableError, match="another stream") as caught:
            await sink.upsert(item(1, "n", "p"))
        assert caught.value.reason is Reason.NOT_READY  # the database is well
        await application.run("INSERT INTO parents VALUES ('p')")
        assert (await sink.upsert(item(1, "n", "p"))).applied == 1
        with pytest.raises(UnavailableError, match="another stream"):
            await sink.upsert(item(2, "n", "q"))
        monkeypatch.setattr(postgresql_sink, "_WAIT_S_MAX", 0.0)
        done = await sink.upsert(item(2, "n", "q"), item(3, "n", "p"))
        assert (done.applied, done.quarantined) == (1, 1)


@pytest.mark.integration
async def test_a_table_that_somebody_locks_is_waited_for_but_not_for_ever(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(postgresql_sink, "_APPLY_S_MAX", 1.0)
    monkeypatch.setattr(postgresql_locked, "_PAUSE_S", 0.0)
    async with applying(database) as sink:
        await sink.upsert(item(1))
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("LOCK TABLE items")
            start = time.monotonic()
            with pytest.raises(UnavailableError) as caught:
                await sink.upsert(item(2))
            assert caught.value.reason is Reason.NOT_READY
            assert time.monotonic() - start < 5
        await sink.upsert(item(2))
    assert len(await Application(database).rows("items")) == 2


@pytest.mark.integration
async def test_a_cancelled_apply_writes_nothing_and_the_sink_goes_on(database: str) -> None:
    import psycopg

    async with applying(database) as sink:
        await sink.upsert(item(1))
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("LOCK TABLE items")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await sink.upsert(item(2))
        assert sink.state == await sink.sink.state(STREAM)
        await sink.upsert(item(3))
    rows = await Application(database).rows("items")
    assert sorted(str(row["id"]) for row in rows) == ["1", "3"]


@pytest.mark.integration
async def test_streams_of_one_sink_may_be_applied_at_the_same_time(database: str) -> None:
    async with applying(database) as one:
        two = Applying(one.sink, replace(STREAM, partition=1))

        async def feed(sink: Applying, first: int) -> None:
            for number in range(20):
                await sink.upsert(item(first + number))

        async with asyncio.TaskGroup() as group:
            group.create_task(feed(one, 0))
            group.create_task(feed(two, 100))
        assert set(await one.sink.streams(TOPIC)) == {one.stream, two.stream}
    assert len(await Application(database).rows("items")) == 40


@pytest.mark.integration
async def test_a_parked_delete_is_retried(database: str) -> None:
    application = Application(database)
    await application.run("CREATE TABLE children (item bigint)")
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await application.run(
            "ALTER TABLE items ADD CHECK (name <> 'bad') NOT VALID; INSERT INTO children VALUES (1)"
        )
        done = await sink.apply((Op.UPSERT, [item(1, "bad")]), (Op.DELETE, [{"id": 1}]))
        # Only the last state of a key is written: the delete.
        assert (done.applied, done.quarantined) == (2, 0)
        done = await sink.upsert(item(1, "bad"))
        done = await sink.apply((Op.DELETE, [{"id": 1}]))
        assert done.quarantined == 1
        await application.run("ALTER TABLE items DROP CONSTRAINT items_name_check")
        ident = (await sink.sink.quarantined(TOPIC))[0].id
        assert await sink.sink.retry(ident) == 2
    assert await application.rows("items") == []
