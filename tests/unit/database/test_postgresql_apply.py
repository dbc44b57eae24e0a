"""fabric.database.postgresql_apply"""

from dataclasses import replace

import asyncpg
import pytest

from fabric.database.postgresql_apply import why
from fabric.database.postgresql_write import Missing
from fabric.model.change import Op
from fabric.model.errors import DeniedError, Reason
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, applying, item, target
from tests.contract.postgresql_world import Application
from tests.contract.sink_suite import Feed
from tests.fakes.ordinals import counting_ordinals

database = postgresql_world.database


def test_reasons_name_the_class_and_no_value() -> None:
    assert why(asyncpg.CheckViolationError("row (secret)")) == "CheckViolationError 23514"
    assert why(ValueError("secret")) == "a value does not fit its column"
    assert why(Missing("a row is missing")) == "a row is missing"


@pytest.mark.integration
async def test_one_bad_row_in_a_thousand_is_found_in_bulk(database: str) -> None:
    await Application(database).run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database) as sink:
        rows = [item(n, "too long" if n in (0, 333, 999) else "ok") for n in range(1000)]
        done = await sink.upsert(*rows)
        assert (done.applied, done.quarantined) == (997, 3)
        reasons = {each.reason for each in await sink.sink.quarantined(None)}
        assert reasons == {"StringDataRightTruncationError 22001"}


@pytest.mark.integration
async def test_parked_rows_of_a_run_do_not_count_its_ordinals_each_anew(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = counting_ordinals(monkeypatch)
    await Application(database).run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database) as sink:
        feed = Feed(sink.sink, sink.stream)
        block = feed.block((Op.UPSERT, [item(n, "too long") for n in (1, 2, 3)]))
        (run,) = block.runs
        await feed.send(replace(block, runs=(replace(run, steps=(2, 2)),)))
        idents = [each.id for each in await sink.sink.quarantined(None)]
        parked = [await sink.sink.parked(ident) for ident in idents]
    changes = [each.change for each in parked if each and each.change]
    assert [change.sequence.ordinal for change in changes] == [1, 3, 5]
    assert len(counted) == 1


@pytest.mark.integration
async def test_values_that_swap_a_unique_column_are_applied_one_by_one(database: str) -> None:
    await Application(database).run(ITEMS_DDL.replace("note text", "note text UNIQUE"))
    async with applying(database) as sink:
        await sink.upsert(item(1, "n", "a"), item(2, "n", "b"))
        done = await sink.upsert(item(1, "n", "tmp"), item(2, "n", "a"), item(1, "n", "b"))
        assert (done.applied, done.quarantined) == (3, 0)
    rows = {row["id"]: row["note"] for row in await Application(database).rows("items")}
    assert rows == {1: "b", 2: "a"}


@pytest.mark.integration
async def test_a_zero_character_is_poison_and_not_the_end(database: str) -> None:
    async with applying(database) as sink:
        done = await sink.upsert(item(1, "a\0b"), item(2))
        assert (done.applied, done.quarantined) == (1, 1)


@pytest.mark.integration
async def test_a_deferred_constraint_is_found_too(database: str) -> None:
    await Application(database).run(
        ITEMS_DDL.replace("note text", "note text UNIQUE DEFERRABLE INITIALLY DEFERRED")
    )
    async with applying(database) as sink:
        done = await sink.upsert(item(1, "n", "a"), item(2, "n", "a"), item(3, "n", "c"))
        assert (done.applied, done.quarantined) == (2, 1)


@pytest.mark.integration
async def test_a_table_that_changed_under_us_stops_and_parks_nothing(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await Application(database).run("ALTER TABLE items RENAME COLUMN note TO remark")
        with pytest.raises(DeniedError) as caught:
            await sink.upsert(item(2))
        assert caught.value.reason is Reason.TARGET_UNFIT
        assert list(await sink.sink.quarantined(None)) == []


@pytest.mark.integration
async def test_a_target_that_stops_names_the_sequence(database: str) -> None:
    await Application(database).run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database, target(quarantine=False)) as sink:
        with pytest.raises(DeniedError, match=r"\(1, 1, 2\).*22001") as caught:
            await sink.upsert(item(1), item(2, "too long"))
        assert "too long" not in str(caught.value)
        assert await Application(database).rows("items") == []


@pytest.mark.integration
async def test_a_truncate_and_a_new_snapshot_make_parked_changes_void(database: str) -> None:
    await Application(database).run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database) as sink:
        for mark in (Op.TRUNCATE, Op.SNAPSHOT_BEGIN):
            await sink.upsert(item(1, "too long"))
            assert len(await sink.sink.quarantined(None)) == 1
            await sink.apply((mark, []), (Op.UPSERT, [item(1, "ok")]))
            assert list(await sink.sink.quarantined(None)) == []


@pytest.mark.integration
async def test_a_row_whose_change_is_parked_outlives_the_snapshot(database: str) -> None:
    await Application(database).run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database) as sink:
        await sink.upsert(item(1), item(2))
        done = await sink.apply(
            (Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [item(1, "too long")]), (Op.SNAPSHOT_END, [])
        )
        assert done.quarantined == 1
    assert [row["id"] for row in await Application(database).rows("items")] == [1]


@pytest.mark.integration
async def test_a_snapshot_that_could_not_note_a_key_removes_nothing(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL.replace("name text", "name varchar(5)"))
    async with applying(database) as sink:
        await sink.upsert(item(1), item(2))
        await application.run("ALTER TABLE fabric.seen_1 ADD CHECK (id <> 1)")
        rows = [item(1, "too long"), item(2)]
        done = await sink.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, rows), (Op.SNAPSHOT_END, []))
        assert (done.quarantined, done.state.incomplete) == (1, True)
        assert len(await application.rows("items")) == 2
        await application.run(
            "ALTER TABLE fabric.seen_1 DROP CONSTRAINT seen_1_id_check;"
            " ALTER TABLE items ALTER name TYPE text"
        )
        done = await sink.apply(
            (Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, rows[:1]), (Op.SNAPSHOT_END, [])
        )
        assert not done.state.incomplete
    assert [row["id"] for row in await application.rows("items")] == [1]
