"""fabric.database.postgresql_examine: what a server tells, and that it is left as it was."""

import asyncio
from dataclasses import replace

import psycopg
import pytest

from fabric.database import postgresql_examine
from fabric.database.finding import Capture, Finding, Usage
from fabric.database.postgresql_examine import (
    Room,
    SlotState,
    examine_source,
    of_publication,
    of_room,
    of_slot,
)
from fabric.database.postgresql_slot import Slot
from fabric.database.postgresql_token import DONE, Progress, Token, encode
from fabric.demo.process import free_port
from fabric.model.errors import Reason
from fabric.ports import SourceTable
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS, ITEMS_DDL, TOPIC, new_source, reading
from tests.contract.postgresql_world import NUMBERS, Application

database = postgresql_world.database
TABLE = SourceTable(table="public.items", topic=TOPIC, schema=ITEMS)
CAPTURE = Capture(tables=[TABLE], slot="s", publication="fabric", resume=None, agent=None)
ALONE = Usage(captures=1, targets=0, tables=0, is_running=False)
TOKEN = Token(generation=1, system_id="7", timeline=1, slot="s", position=99, snapshots={})
CAPTURED = replace(CAPTURE, resume=encode(TOKEN))
RUNNING = replace(CAPTURED, agent=4711)
FREE = SlotState(
    slot=Slot(confirmed=100, pid=None, is_lost=False, log_end=200),
    application=None,
    wal_status="reserved",
    held_bytes=3 * 1024 * 1024,
    left_bytes=None,
)
USED = replace(FREE, slot=replace(FREE.slot, pid=9), application="fabric")


# What facts mean


@pytest.mark.parametrize(
    ("capture", "state"),
    [(CAPTURE, None), (CAPTURE, FREE), (CAPTURED, FREE), (RUNNING, USED)],
)
def test_a_slot_that_serves_is_well(capture: Capture, state: SlotState | None) -> None:
    assert of_slot(capture, state).reason is None


@pytest.mark.parametrize(
    ("capture", "state", "seen", "remedy"),
    [
        (CAPTURED, None, "it is gone", "reads everything anew"),
        (
            CAPTURED,
            replace(FREE, slot=replace(FREE.slot, is_lost=True), wal_status="lost"),
            "thrown its log away",
            "max_slot_wal_keep_size",
        ),
        (CAPTURED, replace(FREE, wal_status="unreserved"), "next checkpoint", "start the agent"),
        (CAPTURED, USED, "process 9", "name another slot"),
        (RUNNING, replace(USED, application="pg_recvlogical"), "pg_recvlogical", "stop that"),
        (RUNNING, replace(USED, application=None), "without a name", "stop that"),
        (RUNNING, FREE, "does not use it", "fabric status"),
        (
            CAPTURED,
            replace(FREE, slot=replace(FREE.slot, confirmed=101)),
            "ahead of the token",
            "who moved it",
        ),
    ],
)
def test_a_slot_that_does_not_serve_is_told_with_cause_and_remedy(
    capture: Capture, state: SlotState | None, seen: str, remedy: str
) -> None:
    found = of_slot(capture, state)
    assert found.reason is not None
    assert seen in found.seen
    assert remedy in found.remedy


def test_a_slot_says_how_much_log_it_holds_back_and_how_much_more_it_may() -> None:
    assert "3.0 MiB" in of_slot(CAPTURED, FREE).seen
    assert "lost after 1.0 MiB more" in of_slot(CAPTURED, replace(FREE, left_bytes=2**20)).seen


@pytest.mark.parametrize(
    ("room", "slot", "missing"),
    [
        (Room(slots=9, slots_max=10, senders=9, senders_max=10), None, None),
        (Room(slots=10, slots_max=10, senders=0, senders_max=10), FREE.slot, None),
        (Room(slots=10, slots_max=10, senders=10, senders_max=10), USED.slot, None),
        (Room(slots=10, slots_max=10, senders=0, senders_max=9), None, "max_replication_slots"),
        (Room(slots=1, slots_max=10, senders=10, senders_max=10), FREE.slot, "max_wal_senders"),
    ],
)
def test_room_is_wanted_only_for_what_is_not_there_yet(
    room: Room, slot: Slot | None, missing: str | None
) -> None:
    found = of_room(room, slot)
    assert (found.reason is None) is (missing is None)
    assert missing is None or missing in found.remedy


@pytest.mark.parametrize(
    ("capture", "missing", "may_change", "remedy"),
    [
        (CAPTURE, (), False, None),
        (CAPTURE, None, True, None),
        (CAPTURE, ("public.items",), True, None),
        (CAPTURE, None, False, 'CREATE PUBLICATION "fabric" FOR TABLE "public"."items"'),
        (CAPTURED, None, True, "start the agent again"),
        (CAPTURED, ("public.items",), True, "reads these tables anew"),
        (CAPTURED, ("public.items",), False, 'ALTER PUBLICATION "fabric" ADD TABLE'),
    ],
)
def test_a_publication_must_be_whole_once_a_capture_has_begun(
    capture: Capture, missing: tuple[str, ...] | None, may_change: bool, remedy: str | None
) -> None:
    found = of_publication(capture, missing, may_change=may_change)
    assert (found.reason is None) is (remedy is None)
    assert remedy is None or remedy in found.remedy


# On a real server


async def look(url: str, capture: Capture) -> dict[str, Finding]:
    return {item.part.split()[0]: item for item in await examine_source(url, capture, ALONE)}


def ills(found: dict[str, Finding]) -> set[str]:
    return {part for part, item in found.items() if item.reason is not None}


def kept(url: str) -> list[object]:
    """Everything of a server that a capture makes."""
    with psycopg.connect(url) as server:
        return [
            server.execute(f"SELECT {what} ORDER BY 1").fetchall()  # type: ignore[arg-type]  # ours
            for what in (
                "slot_name, confirmed_flush_lsn FROM pg_replication_slots",
                "pubname FROM pg_publication",
                "tablename FROM pg_publication_tables",
                "nspname FROM pg_namespace",
                "oid, relfilenode FROM pg_class WHERE relkind = 'r' AND oid > 16383",
            )
        ]


@pytest.fixture
def capture() -> Capture:
    return replace(CAPTURE, slot=f"fabric_look_{next(NUMBERS)}")


@pytest.mark.integration
async def test_a_fresh_database_is_fit_and_stays_as_it_was(database: str, capture: Capture) -> None:
    await Application(database).run(ITEMS_DDL)
    before = kept(database)
    found = await look(database, capture)
    assert not ills(found)
    assert set(found) == {"server", "table", "publication", "slot", "room", "connections"}
    assert kept(database) == before


@pytest.mark.integration
async def test_a_capture_is_well_while_it_runs_and_when_it_has_stopped(
    database: str, capture: Capture
) -> None:
    await Application(database).run(ITEMS_DDL)
    async with reading(new_source(database, slot=capture.slot)) as read:
        await read.until_ended()
        token = read.reached.resume
        running = await look(database, replace(capture, resume=token, agent=4711))
        assert not ills(running)
        assert "used by the running agent" in running["slot"].seen
        # The same slot for a host whose agent does not run: somebody else has it.
        held = await look(database, replace(capture, resume=token))
        assert ills(held) == {"slot"}
        assert "(fabric)" in held["slot"].seen
    assert not ills(await look(database, replace(capture, resume=token)))


@pytest.mark.integration
async def test_a_table_with_too_many_applied_rows_is_shown_and_well(
    database: str, capture: Capture
) -> None:
    await Application(database).run(ITEMS_DDL)
    rows = Progress(table="public.items", fingerprint="f", state=DONE)
    for count, shown in ((64, False), (65, True)):
        lacking = rows.with_foreign([(key,) for key in range(count)], at=9)
        token = replace(TOKEN, snapshots={str(TOPIC): lacking})
        found = await look(database, replace(capture, resume=encode(token)))
        assert ("rows" in found) == shown
    assert found["rows"].reason is None
    assert "more were applied" in found["rows"].seen


@pytest.mark.integration
async def test_who_holds_a_snapshot_up_is_named(
    database: str, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_examine, "_AGAIN_S", 0.1)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("INSERT INTO items SELECT i, 'n' FROM generate_series(1, 60) i")
    async with reading(new_source(database, slot=capture.slot, chunk_rows=10)) as read:
        await read.until(lambda: bool(read.rows()))
        captured = replace(capture, resume=read.reached.resume)
    found = await look(database, captured)
    assert not ills(found)
    assert "nobody holds it up" in found["snapshot"].seen
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("LOCK TABLE items")
        found = await look(database, captured)
        assert ills(found) == {"snapshot"}
        assert f"process {connection.info.backend_pid} " in found["snapshot"].seen
        assert "goes on by itself" in found["snapshot"].remedy


@pytest.mark.integration
async def test_who_is_there_for_a_moment_holds_no_snapshot_up(
    database: str, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("INSERT INTO items SELECT i, 'n' FROM generate_series(1, 60) i")
    async with reading(new_source(database, slot=capture.slot, chunk_rows=10)) as read:
        await read.until(lambda: bool(read.rows()))
        captured = replace(capture, resume=read.reached.resume)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("LOCK TABLE items")
        sleep, slept = asyncio.sleep, []

        async def meanwhile(seconds: float) -> None:
            await sleep(0)
            if seconds >= 1:  # the next transaction of the same session
                slept.append(seconds)
                await connection.commit()
                await connection.execute("LOCK TABLE items")

        monkeypatch.setattr(asyncio, "sleep", meanwhile)
        found = await look(database, captured)
        assert "nobody holds it up" in found["snapshot"].seen
        assert slept == [5.0]


@pytest.mark.integration
async def test_what_was_broken_behind_a_captures_back_is_named(
    database: str, capture: Capture
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database, slot=capture.slot)) as read:
        await read.until_ended()
        captured = replace(capture, resume=read.reached.resume)
    await application.run("ALTER PUBLICATION fabric DROP TABLE items")
    found = await look(database, captured)
    assert ills(found) == {"publication"}
    assert "lacks public.items" in found["publication"].seen
    await application.run("DROP PUBLICATION fabric; ALTER TABLE items DROP CONSTRAINT items_pkey")
    assert ills(await look(database, captured)) == {"publication", "table"}
    await application.run(f"SELECT pg_drop_replication_slot('{capture.slot}')")
    found = await look(database, captured)
    assert ills(found) == {"publication", "table", "slot"}
    assert "gone" in found["slot"].seen


@pytest.mark.integration
async def test_a_role_with_too_few_rights_is_told_all_at_once(
    database: str, capture: Capture
) -> None:
    application = Application(database)
    await application.run(
        f"{ITEMS_DDL}; DROP ROLE IF EXISTS looker; CREATE ROLE looker LOGIN;"
        " GRANT USAGE ON SCHEMA public TO looker"
    )
    url = database.replace("postgres@", "looker@")
    found = await look(url, capture)
    assert ills(found) == {"server", "table", "publication"}
    assert "ALTER ROLE" in found["server"].seen
    assert "CREATE PUBLICATION" in found["publication"].remedy
    await application.run("DROP OWNED BY looker; DROP ROLE looker")


async def test_a_server_that_is_away_is_one_finding_without_its_password() -> None:
    url = f"postgresql://registry:hunter2@127.0.0.1:{free_port()}/x"
    (found,) = await examine_source(url, CAPTURE, ALONE)
    assert (found.part, found.reason) == ("server", Reason.DATABASE_UNAVAILABLE)
    assert "hunter2" not in repr(found)
