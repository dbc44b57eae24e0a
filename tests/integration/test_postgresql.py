"""PostgreSQL to PostgreSQL through the two adapters alone, killed again and again."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from fabric.demo.postgresql import Postgres
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL
from tests.contract.postgresql_world import NUMBERS, Application

database = postgresql_world.database
pytestmark = pytest.mark.integration
_ROOT = Path(__file__).parents[2]
_KILLS = 8
_ROWS = 4_000


@pytest.fixture
async def target_database(postgres: Postgres) -> AsyncIterator[str]:
    name = f"target_{next(NUMBERS)}"
    yield postgres.create_database(name)
    await asyncio.to_thread(postgres.drop_database, name)


async def write(url: str, worker: int, stop: asyncio.Event) -> None:
    """One application: it inserts, updates, moves and deletes rows of its own share of keys."""
    chance = random.Random(worker)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        number = 0
        while not stop.is_set():
            number += 1
            key = chance.randrange(_ROWS) // 3 * 3 + worker
            new = 100_000 + number * 3 + worker
            for statement, values in (
                ("UPDATE items SET name = %s WHERE id = %s", (f"u{number}", key)),
                ("DELETE FROM items WHERE id = %s", (key + 3,)),
                ("INSERT INTO items VALUES (%s, 'new')", (new,)),
                ("UPDATE items SET id = %s WHERE id = %s", (-new, key + 6)),
            ):
                await connection.execute(statement, values)
                if chance.random() < 0.5:
                    await connection.commit()
            await connection.commit()
            await asyncio.sleep(0.001)


async def start(source: str, target: str, state: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.postgresql_copier",
        source,
        target,
        str(state),
        cwd=_ROOT,
        stderr=asyncio.subprocess.PIPE,
    )


async def rows_of(url: str) -> list[object]:
    rows = await Application(url).rows("items")
    return sorted((row["id"], row["name"], row["note"]) for row in rows)  # type: ignore[type-var]  # ids are integers


@pytest.mark.timeout(180)
async def test_a_copy_that_is_killed_again_and_again_ends_up_equal(
    database: str, target_database: str, tmp_path: Path
) -> None:
    """Snapshot included: the kills start while it runs, under three writers."""
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(f"INSERT INTO items SELECT i, 'old' FROM generate_series(1, {_ROWS}) i")
    # A row that only the target has must be gone after the snapshot.
    await Application(target_database).run(f"{ITEMS_DDL}; INSERT INTO items VALUES (-1, 'stray')")
    chance = random.Random(20)
    stop = asyncio.Event()
    state = tmp_path / "token"
    async with asyncio.TaskGroup() as group:
        for worker in range(3):
            group.create_task(write(database, worker, stop))
        for _ in range(_KILLS):
            child = await start(database, target_database, state)
            await asyncio.sleep(0.7 + chance.random())
            assert child.returncode is None, (await child.communicate())[1].decode()
            child.send_signal(signal.SIGKILL)
            await child.communicate()
        stop.set()
    wanted = await rows_of(database)
    child = await start(database, target_database, state)
    try:
        async with asyncio.timeout(60):
            while await rows_of(target_database) != wanted:
                assert child.returncode is None
                await asyncio.sleep(0.2)
        streams = await Application(target_database).rows("fabric.streams")
        assert [row["incomplete"] for row in streams] == [False]
    finally:
        child.kill()
        await child.communicate()
