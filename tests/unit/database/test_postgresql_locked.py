"""fabric.database.postgresql_locked"""

import asyncio
import time
from dataclasses import replace

import psycopg
import pytest

from fabric.database import postgresql_locked, postgresql_sink
from fabric.model.change import Op
from fabric.model.errors import Reason, UnavailableError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, STREAM, TOPIC, Applying, applying, item
from tests.contract.postgresql_cases import target as target_of
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration
PARENTS = "CREATE TABLE parents (id text PRIMARY KEY); INSERT INTO parents VALUES ('p');"


@pytest.mark.parametrize(
    ("lock", "op"),
    [
        ("LOCK TABLE items", Op.UPSERT),
        ("LOCK TABLE items IN SHARE MODE", Op.UPSERT),
        ("LOCK TABLE parents IN EXCLUSIVE MODE", Op.UPSERT),  # removing rows asks for no parent
        ("ALTER TABLE items ADD COLUMN more text", Op.TRUNCATE),
    ],
)
async def test_a_lock_is_said_with_its_holder_and_its_topic_alone_waits(
    database: str, lock: str, op: Op
) -> None:
    application = Application(database)
    await application.run(PARENTS + ITEMS_DDL.replace("note text", "note text REFERENCES parents"))
    others = replace(TOPIC, dataset="others")
    more = replace(target_of(), topic=others, table="others")
    async with applying(database, target_of(), more) as sink:
        other = Applying(sink.sink, replace(STREAM, topic=others))
        await sink.upsert(item(1, "n", "p"))
        connection = sink.sink._connection
        async with await psycopg.AsyncConnection.connect(database) as holder:
            await holder.execute(lock)  # type: ignore[call-overload]  # tests' own text
            start = time.monotonic()
            for _ in range(2):  # and again, at once
                with pytest.raises(UnavailableError) as caught:
                    await sink.apply((op, [item(2, "n", "p")] if op is Op.UPSERT else []))
                assert caught.value.reason is Reason.NOT_READY
                assert f"table items: waits for a lock; process {holder.info.backend_pid} (" in str(
                    caught.value
                )
            await other.upsert(item(1))
            assert time.monotonic() - start < 3
        await asyncio.sleep(1)
        await sink.upsert(item(2, "n", "p"))
        assert sink.sink._connection is connection


async def test_a_row_that_applications_hold_in_turn_is_written_when_the_turn_comes(
    database: str,
) -> None:
    """Who leaves the queue again and again meets a holder each time."""
    application = Application(database)
    await application.run(ITEMS_DDL)
    is_over = False

    async def hold() -> None:
        async with await psycopg.AsyncConnection.connect(database) as holder:
            while not is_over:
                await holder.execute("UPDATE items SET name = name WHERE id = 1")
                await asyncio.sleep(0.7)
                await holder.commit()

    async with applying(database) as sink, asyncio.TaskGroup() as tasks:
        await sink.upsert(item(1))
        for _ in range(2):
            tasks.create_task(hold())
        await asyncio.sleep(0.3)
        start = time.monotonic()
        for number in range(3):
            await sink.upsert(item(1, f"ours {number}"))
        took = time.monotonic() - start
        is_over = True
    # A holder that comes back may pass whom its commit wakes: the server keeps no strict order.
    assert took < 3 * (2 * 0.7 + 0.5) + 2


async def test_a_row_that_somebody_keeps_is_waited_for_half_of_the_time(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("TRY_S", 0.2), ("ROW_S", 0.5), ("ROW_S_MAX", 1.0)):
        monkeypatch.setattr(postgresql_locked, name, seconds)
    others = replace(TOPIC, dataset="others")
    more = replace(target_of(), topic=others, table="others")
    await Application(database).run(ITEMS_DDL)
    async with applying(database, target_of(), more) as sink:
        other = Applying(sink.sink, replace(STREAM, topic=others))
        await sink.upsert(item(1))
        await other.upsert(item(1))
        took: list[float] = []
        async with await psycopg.AsyncConnection.connect(database) as holder:
            await holder.execute("UPDATE items SET name = 'held'")
            for _ in range(6):
                start = time.monotonic()
                with pytest.raises(UnavailableError, match="another transaction holds rows of it"):
                    await sink.upsert(item(1, "ours"))
                took.append(time.monotonic() - start)
                await other.upsert(item(1))
                if len(took) % 2 == 0:
                    await asyncio.sleep(1)
        assert max(took[1::2]) < 0.1  # refused at once
        assert 0.7 <= took[0] < 0.95  # a short try first, and again at once
        assert 1.0 <= took[2] < 1.25
        assert 1.0 <= took[4] < 1.25
        await asyncio.sleep(1)
        await sink.upsert(item(1, "ours"))
        assert sink.sink._locked._rows == {}


async def test_a_table_locked_after_its_rows_were_held_costs_the_other_topics_little(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_locked, "ROW_S", 1.0)
    await Application(database).run(ITEMS_DDL)
    async with applying(database) as sink:
        await sink.upsert(item(1))
        async with await psycopg.AsyncConnection.connect(database) as holder:
            await holder.execute("UPDATE items SET name = 'held'")
            with pytest.raises(UnavailableError, match="another transaction holds rows of it"):
                await sink.upsert(item(1, "ours"))
            await holder.execute("LOCK TABLE items")
            await asyncio.sleep(1)
            start = time.monotonic()
            with pytest.raises(UnavailableError, match="waits for a lock; process"):
                await sink.upsert(item(1, "ours"))
            assert time.monotonic() - start < 0.9


async def test_a_person_who_retries_a_change_waits_for_a_lock_longer(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_sink, "_WAIT_S_MAX", 0.0)
    application = Application(database)
    await application.run(PARENTS + ITEMS_DDL.replace("note text", "note text REFERENCES parents"))
    async with applying(database) as sink:
        assert (await sink.upsert(item(1, "n", "q"))).quarantined == 1
        (parked,) = await sink.sink.quarantined(TOPIC)
        await application.run("INSERT INTO parents VALUES ('q')")
        begin = psycopg.AsyncConnection.connect
        async with asyncio.TaskGroup() as tasks, await begin(database) as holder:
            await holder.execute("LOCK TABLE items")
            retrying = tasks.create_task(sink.sink.retry(parked.id))
            await asyncio.sleep(1.5)
        assert retrying.result() == 1
