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


async def test_a_row_that_somebody_holds_is_waited_for_in_tries(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_locked, "_PAUSE_S", 0.0)
    monkeypatch.setattr(postgresql_locked, "TRY_S", 0.1)
    monkeypatch.setattr(postgresql_locked, "LONG_TRY_S", 1.0)
    async with applying(database) as sink:
        await sink.upsert(item(1))
        took: list[float] = []
        async with await psycopg.AsyncConnection.connect(database) as holder:
            await holder.execute("UPDATE items SET name = 'held'")
            for _ in range(11):
                start = time.monotonic()
                with pytest.raises(UnavailableError, match="another transaction holds rows of it"):
                    await sink.upsert(item(1, "ours"))
                took.append(time.monotonic() - start)
        assert [number for number, seconds in enumerate(took) if seconds > 0.9] == [9]
        await sink.upsert(item(1, "ours"))
        assert sink.sink._locked._tries == {}


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
