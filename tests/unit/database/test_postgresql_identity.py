"""fabric.database.postgresql_identity"""

import asyncio
import itertools
import json
from typing import Any

import psycopg
import pytest

from fabric.database.postgresql_identity import (
    Identity,
    changed,
    from_json,
    is_remade,
    to_json,
)
from fabric.model.change import Op
from fabric.model.errors import Reason, UnavailableError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    ITEMS_DDL,
    TOPIC,
    Reading,
    item,
    new_source,
    reading,
    schema,
)
from tests.contract.postgresql_world import Application

database = postgresql_world.database


def identity(**changes: Any) -> Identity:
    fields = {"table": 7, "publication": 8, "entries": frozenset({9}), "parts": frozenset({"1/1"})}
    return Identity(**{**fields, **changes})


def test_a_table_goes_on_while_it_never_left_the_publication() -> None:
    assert identity().goes_on_as(identity())
    assert identity(entries=frozenset({9, 10})).goes_on_as(identity(entries=frozenset({9, 11})))
    others = [
        identity(table=1),
        identity(publication=1),
        identity(entries=frozenset({10})),
        identity(entries=frozenset()),
        identity(parts=frozenset()),
        identity(parts=frozenset({"1/2"})),
    ]
    assert [identity().goes_on_as(other) for other in others] == [False] * len(others)


def test_a_new_partition_is_told_by_its_id() -> None:
    more = identity(parts=frozenset({"1/1", "20/4", "3/3"}))
    assert identity().goes_on_as(more)
    assert identity().added(more) == [3, 20]


def test_an_identity_reads_as_it_is_written() -> None:
    assert from_json(to_json(identity())) == identity()
    assert from_json(to_json(None)) is None
    for bad in ({}, [], 5, {**to_json(identity()), "entries": 5}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            from_json(bad)


def test_another_publication_is_a_new_one() -> None:
    now = {"t": identity()}
    assert not is_remade([identity(table=1), None], now)
    assert not is_remade([], now)
    assert is_remade([None, identity(publication=1)], now)


def test_a_changed_table_makes_the_source_open_again() -> None:
    error = changed("public.items")
    assert error.reason is Reason.DATABASE_UNAVAILABLE
    assert "public.items" in str(error)


def anew(read: Reading) -> set[object]:
    """Keys that a reader holds after the last snapshot."""
    ops = [run.op for run in read.runs]
    start = len(ops) - 1 - ops[::-1].index(Op.SNAPSHOT_BEGIN)
    return {row["id"] for run in read.runs[start:] for row in run.rows}


REMADE = (
    "DROP TABLE items; {ddl}; INSERT INTO items VALUES (5, 'new');"
    " ALTER PUBLICATION fabric ADD TABLE items"
)


@pytest.mark.integration
async def test_a_table_made_again_and_published_by_its_owner_is_read_anew(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    await application.run(REMADE.format(ddl=ITEMS_DDL))
    async with reading(source, resume) as read:
        await read.until_ended()
        assert anew(read) == {5}
        assert read.generation == generation


@pytest.mark.integration
async def test_a_table_that_left_and_came_back_is_read_anew_after_a_failed_open(
    database: str,
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    name = "fabric_came_back"
    async with reading(new_source(database, slot=name)) as read:
        await read.until_ended()
        resume = read.reached.resume
        await application.run("ALTER PUBLICATION fabric DROP TABLE items")
        await application.run("INSERT INTO items VALUES (5, 'unpublished')")
        # The slot is still in use, so this open fails after it has mended the publication.
        with pytest.raises(UnavailableError, match="process"):
            await new_source(database, slot=name).open(resume)
    async with reading(new_source(database, slot=name), resume) as read:
        await read.until_ended()
        assert anew(read) == {5}


@pytest.mark.integration
async def test_rows_written_under_another_name_are_sent(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database, silence_s=60.0)) as read:
        await read.until_ended()
        await application.run("ALTER TABLE items RENAME TO items_old")
        await application.run("INSERT INTO items_old VALUES (1, 'n')")
        await application.run("ALTER TABLE items_old RENAME TO items")
        await application.run("INSERT INTO items VALUES (2, 'n')")
        await read.until(lambda: read.rows() == {1: item(1), 2: item(2)})


SWAP = "ALTER TABLE items RENAME TO items_old; ALTER TABLE items_new RENAME TO items"


@pytest.mark.integration
@pytest.mark.parametrize(
    "change", [SWAP, "DROP TABLE items", "ALTER PUBLICATION fabric DROP TABLE items"]
)
async def test_a_table_that_is_another_while_the_source_runs_ends_the_stream(
    database: str, change: str
) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; CREATE TABLE items_new (LIKE items INCLUDING ALL)")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run(change)
        with pytest.raises(UnavailableError, match="table public.items is another"):
            await read.forever()


@pytest.mark.integration
async def test_a_busy_source_looks_at_its_tables_too(database: str) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; CREATE TABLE items_new (LIKE items INCLUDING ALL)")
    async with reading(new_source(database)) as read, asyncio.TaskGroup() as group:
        await read.until_ended()
        await application.run(SWAP)
        writer = group.create_task(write_for_ever(database))
        with pytest.raises(UnavailableError, match="table public.items is another"):
            await read.forever()
        writer.cancel()


async def write_for_ever(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for number in itertools.count():
            await connection.execute("INSERT INTO items_old VALUES (%s, 'n')", (number,))


@pytest.mark.integration
async def test_a_table_that_took_the_name_is_read_anew(database: str) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; INSERT INTO items VALUES (1, 'old')")
    await application.run("CREATE TABLE items_new (LIKE items INCLUDING ALL)")
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume = read.reached.resume
        await application.run(SWAP)
        await application.run("INSERT INTO items VALUES (5, 'n')")
        # What is left of the old table has another shape by now, which is nobody's concern.
        await application.run("ALTER TABLE items_old RENAME COLUMN note TO remark")
        await application.run("INSERT INTO items_old VALUES (2, 'n')")
        await application.run("ALTER PUBLICATION fabric ADD TABLE items")
    async with reading(source, resume) as read:
        await read.until_ended()
        await application.run("INSERT INTO items VALUES (6, 'n')")
        await read.until(lambda: anew(read) == {5, 6})


PARTED = (
    ITEMS_DDL + " PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF items FOR VALUES FROM (0)"
    " TO (10); CREATE TABLE high PARTITION OF items FOR VALUES FROM (10) TO (20);"
    " INSERT INTO items VALUES (1, 'n'), (11, 'n'); CREATE TABLE top (LIKE items INCLUDING ALL);"
    " INSERT INTO top VALUES (21, 'n')"
)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("ALTER TABLE items ATTACH PARTITION top FOR VALUES FROM (20) TO (30)", {1, 11, 21}),
        ("ALTER TABLE items DETACH PARTITION high", {1}),
        ("DROP TABLE high", {1}),
        ("TRUNCATE low", {11}),
    ],
)
async def test_a_table_with_other_partitions_is_read_anew(
    database: str, change: str, left: set[object]
) -> None:
    application = Application(database)
    await application.run(PARTED)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume = read.reached.resume
        await application.run(change)
        with pytest.raises(UnavailableError, match="has other partitions"):
            await read.forever()
    async with reading(source, resume) as read:
        await read.until_ended()
        assert anew(read) == left


@pytest.mark.integration
async def test_a_partition_made_in_advance_needs_no_snapshot(database: str) -> None:
    application = Application(database)
    await application.run(PARTED)
    source = new_source(database)
    make = "CREATE TABLE {} PARTITION OF items FOR VALUES FROM ({}) TO ({})"
    async with reading(source) as read:
        await read.until_ended()
        await application.run(make.format("more", 30, 40))
        await looked(read, 3)
        await application.run("INSERT INTO items VALUES (31, 'n')")
        await read.until(lambda: 31 in read.rows())
        resume = read.reached.resume
    await application.run(make.format("most", 40, 50))
    async with reading(source, resume) as read:
        await application.run("INSERT INTO items VALUES (41, 'n')")
        await read.until(lambda: read.rows() == {41: item(41)})
        assert Op.SNAPSHOT_BEGIN not in [run.op for run in read.runs]


async def looked(read: Reading, partitions: int) -> None:
    """Read on until the token knows so many partitions."""

    def known() -> bool:
        parts = json.loads(read.reached.resume)["snapshot"][str(TOPIC)]["identity"]["parts"]
        return len(parts.split()) == partitions

    await read.until(known)


@pytest.mark.integration
async def test_a_child_that_comes_to_inherit_from_the_table_ends_the_stream(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("CREATE TABLE kid () INHERITS (items)")
        with pytest.raises(UnavailableError, match="table public.items"):
            await read.forever()


@pytest.mark.integration
async def test_a_publication_made_again_by_its_owner_starts_a_new_generation(
    database: str,
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    await application.run("DROP PUBLICATION fabric; INSERT INTO items VALUES (5, 'n')")
    await application.run("CREATE PUBLICATION fabric FOR TABLE items")
    async with reading(source, resume) as read:
        assert read.generation > generation
        await read.until_ended()
        assert anew(read) == {5}


@pytest.mark.integration
@pytest.mark.parametrize("of", ["ALL TABLES", "TABLES IN SCHEMA public"])
async def test_a_table_published_with_others_goes_on_from_its_token(database: str, of: str) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; CREATE PUBLICATION fabric FOR {of}")
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume = read.reached.resume
    await application.run("INSERT INTO items VALUES (5, 'n')")
    async with reading(source, resume) as read:
        await read.until(lambda: read.rows() == {5: item(5)})
        assert Op.SNAPSHOT_BEGIN not in [run.op for run in read.runs]


def test_columns_go_on_while_each_name_means_the_same_one() -> None:
    old = identity(columns=(1, 2, 3))
    assert old.goes_on_as(old)
    assert old.goes_on_as(identity(columns=(1, 0, 3)))  # a row will say that it is gone
    assert not old.goes_on_as(identity(columns=(1, 4, 3)))
    assert not old.goes_on_as(identity(columns=(2, 1, 3)))
    assert identity().goes_on_as(old)  # told by no earlier version
    assert identity(columns=(1, 0, 3)).after(old) == old
    assert old.after(None) == old.after(identity()) == old


READ_ANEW = [
    "ALTER TABLE items DROP COLUMN note, ADD COLUMN note text DEFAULT 'x'",
    "ALTER TABLE items DROP COLUMN note, ADD COLUMN note text DEFAULT 'x' || random()",
    "ALTER TABLE items RENAME note TO old; ALTER TABLE items ADD COLUMN note text DEFAULT 'x'",
]


@pytest.mark.integration
@pytest.mark.parametrize("change", READ_ANEW)
async def test_a_column_made_again_is_read_anew(database: str, change: str) -> None:
    """Its old rows have values that no log holds."""
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; INSERT INTO items VALUES (1, 'n', 'before')")
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume, generation = read.reached.resume, read.generation
    await application.run(change)
    async with reading(source, resume) as read:
        await read.until_ended()
        assert str(read.rows()[1]["note"]).startswith("x")
        assert read.generation == generation
        resume = read.reached.resume
    async with reading(source, resume) as read:  # and once
        await application.run("INSERT INTO items VALUES (2, 'n')")
        await read.until(lambda: 2 in read.rows())
        assert 1 not in read.rows()


@pytest.mark.integration
@pytest.mark.parametrize("has_looked", [False, True])
async def test_a_column_made_again_ends_a_running_stream(database: str, has_looked: bool) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; INSERT INTO items VALUES (1, 'n', 'before')")
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run("ALTER TABLE items DROP COLUMN note")
        if has_looked:
            position = read.reached.position
            await asyncio.sleep(0.4)
            await read.until(lambda: read.reached.position > position)
        await application.run("ALTER TABLE items ADD COLUMN note text DEFAULT 'x'")
        with pytest.raises(UnavailableError, match="table public.items is another"):
            await read.forever()


@pytest.mark.integration
async def test_a_column_with_a_default_is_read_when_the_schema_names_it(database: str) -> None:
    application = Application(database)
    await application.run(f"{ITEMS_DDL}; INSERT INTO items VALUES (1, 'n')")
    slot = f"of_{database.rpartition('/')[2]}"
    async with reading(new_source(database, slot=slot)) as read:
        await read.until_ended()
        await application.run("ALTER TABLE items ADD COLUMN more text DEFAULT 'x'")
        await application.run("INSERT INTO items VALUES (2, 'n')")
        await read.until(lambda: 2 in read.rows())
        resume = read.reached.resume
    text = {"type": ["null", "string"], "default": None}
    more = schema(
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        *({"name": name, **text} for name in ("note", "more")),
    )
    async with reading(new_source(database, slot=slot, of=more), resume) as read:
        await read.until_ended()
        assert [read.rows()[number]["more"] for number in (1, 2)] == ["x", "x"]
