"""fabric.database.postgresql_slot"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fabric.database import postgresql_slot
from fabric.database.postgresql_slot import Slot, why_new_life
from fabric.database.postgresql_token import Token
from fabric.demo.postgresql import Postgres
from fabric.model.errors import Reason, UnavailableError, UsageError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, new_source, reading
from tests.contract.postgresql_world import NUMBERS, Application

database = postgresql_world.database
SYSTEM = ("7", 1)
TOKEN = Token(generation=1, system_id="7", timeline=1, slot="s", position=99, snapshots={})


def slot(confirmed: int = 100, *, is_lost: bool = False, log_end: int = 200) -> Slot:
    return Slot(confirmed=confirmed, pid=None, is_lost=is_lost, log_end=log_end)


def test_a_source_goes_on_only_where_nothing_is_missing() -> None:
    assert why_new_life(TOKEN, slot(100), name="s", system=SYSTEM) is None
    assert why_new_life(TOKEN, slot(50), name="s", system=SYSTEM) is None
    assert why_new_life(TOKEN, slot(log_end=100), name="s", system=SYSTEM) is None
    reasons = [
        why_new_life(None, slot(), name="s", system=SYSTEM),
        why_new_life(TOKEN, None, name="s", system=SYSTEM),
        why_new_life(TOKEN, slot(), name="other", system=SYSTEM),
        why_new_life(TOKEN, slot(101), name="s", system=SYSTEM),
        why_new_life(TOKEN, slot(is_lost=True), name="s", system=SYSTEM),
        why_new_life(TOKEN, slot(50, log_end=99), name="s", system=SYSTEM),
        why_new_life(TOKEN, slot(), name="s", system=("8", 1)),
        why_new_life(TOKEN, slot(), name="s", system=("7", 2)),
    ]
    assert None not in reasons


@pytest.mark.integration
async def test_a_slot_that_somebody_moved_on_starts_a_new_generation(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database, slot="fabric_moved")) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    await application.run("INSERT INTO items VALUES (1, 'would be lost')")
    await application.run(
        "SELECT pg_replication_slot_advance('fabric_moved', pg_current_wal_lsn())"
    )
    async with reading(new_source(database, slot="fabric_moved"), resume) as read:
        assert read.generation >= max(generation + 1, int(time.time()) - 5)
        await read.until_ended()
        assert set(read.rows()) == {1}


@pytest.mark.integration
async def test_a_slot_in_use_names_the_process(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    async with reading(new_source(database, slot="fabric_used")) as read:
        await read.until_ended()
        with pytest.raises(UnavailableError, match=r"process \d+") as caught:
            await new_source(database, slot="fabric_used").open(read.reached.resume)
        assert caught.value.reason is Reason.DATABASE_UNAVAILABLE


@pytest.mark.integration
async def test_a_lost_slot_starts_a_new_generation(database: str, postgres: Postgres) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database, slot="fabric_lost")) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    admin = Application(postgres.url("postgres"))
    await run_alone(admin, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    await admin.run("SELECT pg_reload_conf()")
    try:
        for _ in range(3):
            await application.run("INSERT INTO items SELECT i, 'x' FROM generate_series(1, 9) i")
            await application.run("DELETE FROM items")
            await admin.run("SELECT pg_switch_wal()")
            await run_alone(admin, "CHECKPOINT")
        await application.run("INSERT INTO items VALUES (5, 'kept')")
        async with reading(new_source(database, slot="fabric_lost"), resume) as read:
            assert read.generation > generation
            await read.until_ended()
            assert set(read.rows()) == {5}
    finally:
        await run_alone(admin, "ALTER SYSTEM RESET max_slot_wal_keep_size")
        await admin.run("SELECT pg_reload_conf()")


@pytest.fixture
def own_server(server_folder: Path) -> Iterator[Postgres]:
    """A server that a test may stop and put back."""
    server = Postgres(server_folder / f"own-{next(NUMBERS)}").create().start()
    yield server
    server.stop()


@pytest.mark.integration
async def test_a_server_put_back_to_an_older_copy_starts_a_new_generation(
    own_server: Postgres,
) -> None:
    url = own_server.create_database("x")
    application, source = Application(url), new_source(url, slot="fabric_copy")
    await application.run(ITEMS_DDL)
    async with reading(source) as read:
        await read.until_ended()
        resume = read.reached.resume
    data, copy = own_server.folder / "data", own_server.folder / "copy"
    own_server.stop()
    subprocess.run(["/bin/cp", "-a", data, copy], check=True)
    own_server.start()
    async with reading(source, resume) as read:
        await application.run(
            "INSERT INTO items SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i"
        )
        await read.until(lambda: len(read.rows()) == 1000)
        resume, generation = read.reached.resume, read.generation
    own_server.stop()
    shutil.rmtree(data)
    copy.rename(data)
    own_server.start()
    async with reading(source, resume) as read:
        await application.run("INSERT INTO items VALUES (5, 'new')")
        assert read.generation > generation
        await read.until_ended()
        await read.until(lambda: set(read.rows()) == {5})


@pytest.mark.integration
async def test_a_restart_of_the_server_is_no_new_life(own_server: Postgres) -> None:
    url = own_server.create_database("x")
    source, resume = new_source(url, slot="fabric_restarted", silence_s=0.1), None
    application, generations, positions = Application(url), set(), []
    await application.run(ITEMS_DDL)
    for life, kill in enumerate((False, True, False, True)):
        async with reading(source, resume) as read:
            generations.add(read.generation)
            await application.run(f"INSERT INTO items VALUES ({life}, 'n')")
            await read.until(lambda life=life: life in read.rows(), releasing=True)
            if life > 1:  # an idle time: the token moves on with keepalives, and to a file's end
                await application.run("SELECT pg_switch_wal()")
                idle = len(read.events)
                await read.until(lambda idle=idle: len(read.events) > idle + 5, releasing=True)
            resume = read.reached.resume
            positions.append(read.reached.position)
        own_server.stop(kill=kill)
        own_server.start()
    async with reading(source, resume) as read:
        generations.add(read.generation)
    assert len(generations) == 1
    assert positions == sorted(set(positions))


async def run_alone(application: Application, statement: str) -> None:
    import psycopg

    connection = await psycopg.AsyncConnection.connect(application.url, autocommit=True)
    async with connection:
        await connection.execute(statement)  # type: ignore[arg-type]  # tests' own text


@pytest.mark.integration
async def test_a_slot_of_another_kind_or_name_is_refused(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    await Application(database).run(
        "SELECT pg_create_logical_replication_slot('fabric_other', 'test_decoding')"
    )
    with pytest.raises(UsageError, match="another plugin"):
        await new_source(database, slot="fabric_other").open(None)
    with pytest.raises(UsageError, match="a-z"):
        await new_source(database, slot="Not a name").open(None)
    await Application(database).run("SELECT pg_drop_replication_slot('fabric_other')")


@pytest.mark.integration
async def test_a_slot_that_waits_long_says_for_whom(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_slot, "_CREATE_S_MAX", 0.3)
    await Application(database).run(ITEMS_DDL)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("INSERT INTO items VALUES (1, 'n')")
        pid = connection.info.backend_pid
        with pytest.raises(UnavailableError, match=f"slot is not made yet.* process {pid} "):
            await new_source(database).open(None)
