"""fabric.database.postgresql_shape"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_shape import NOTHING_KNOWN, Known, is_added
from fabric.model.errors import DeniedError, Reason
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, Reading, item, new_source, reading, schema
from tests.contract.postgresql_world import Application

database = postgresql_world.database
MORE: list[dict[str, Any]] = [
    {"name": "id", "type": "long"},
    {"name": "name", "type": "string"},
    {"name": "note", "type": ["null", "string"]},
    {"name": "more", "type": ["null", "string"], "default": None},
]


@asynccontextmanager
async def migrated(
    database: str, *statements: str, ddl: str = ITEMS_DDL, fields: list[dict[str, Any]] = MORE
) -> AsyncIterator[Reading]:
    """A source that was away while rows came and its table was changed, open again."""
    application, slot = Application(database), f"of_{database.rpartition('/')[2]}"
    await application.run(ddl)
    async with reading(new_source(database, slot=slot)) as read:
        await read.until_ended()
        resume = read.reached.resume
    await application.run("INSERT INTO items VALUES (1, 'n')")
    for statement in statements:
        await application.run(statement)
    await application.run("INSERT INTO items (id, name) VALUES (2, 'n')")
    source = new_source(database, slot=slot, of=schema(*fields))
    async with reading(source, resume) as read:
        yield read


@pytest.mark.integration
async def test_a_column_that_was_added_is_null_in_rows_from_before(database: str) -> None:
    add = "ALTER TABLE items ADD COLUMN unknown int, ADD COLUMN more text"
    async with migrated(database, add) as read:
        await Application(database).run("INSERT INTO items (id, name, more) VALUES (3, 'n', 'm')")
        await read.until(lambda: 3 in read.rows())
    assert read.rows() == {
        1: {**item(1), "more": None},
        2: {**item(2), "more": None},
        3: {**item(3), "more": "m"},
    }


@pytest.mark.integration
@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE items RENAME COLUMN note TO more", "ALTER TABLE items ADD COLUMN note text"],
        ["ALTER TABLE items ADD COLUMN more text DEFAULT 'x'"],
        ["ALTER TABLE items ADD COLUMN more text", "ALTER TABLE items RENAME note TO remark",
         "ALTER TABLE items ADD COLUMN note text"],
    ],
)  # fmt: skip
async def test_what_only_looks_added_is_not_read_as_null(
    database: str, statements: list[str]
) -> None:
    async with migrated(database, *statements) as read:
        with pytest.raises(DeniedError, match="drop the replication slot") as caught:
            await read.forever()
        assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert read.rows() == {}


@pytest.mark.integration
@pytest.mark.parametrize("has_row", [False, True])
async def test_a_column_that_is_dropped_while_the_source_runs_still_stops_it(
    database: str, has_row: bool
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read:
        await read.until_ended()
        if has_row:
            await application.run("INSERT INTO items VALUES (1, 'n')")
            await read.until(lambda: 1 in read.rows())
        await application.run("ALTER TABLE items DROP COLUMN note")
        await application.run("INSERT INTO items VALUES (2, 'n')")
        with pytest.raises(DeniedError, match="column note: the table has no such column$"):
            await read.forever()


@pytest.mark.integration
async def test_a_type_that_is_gone_says_what_ends_it(database: str) -> None:
    ddl = "CREATE TYPE mood AS ENUM ('n'); " + ITEMS_DDL.replace("name text", "name mood")
    changes = ["ALTER TABLE items ALTER COLUMN name TYPE text", "DROP TYPE mood"]
    async with migrated(database, *changes, ddl=ddl, fields=MORE[:3]) as read:
        with pytest.raises(DeniedError, match="type is gone.*drop the replication slot") as caught:
            await read.forever()
        assert caught.value.reason is Reason.SOURCE_UNFIT


@pytest.mark.integration
async def test_so_does_a_type_without_a_binary_form_of_ours(database: str) -> None:
    ddl = ITEMS_DDL.replace("name text", "name xml")
    change = "ALTER TABLE items ALTER COLUMN name TYPE text USING name::text"
    async with migrated(database, change, ddl=ddl, fields=MORE[:3]) as read:
        with pytest.raises(DeniedError, match="another type.*drop the replication slot"):
            await read.forever()


def test_only_what_comes_after_every_old_column_was_added() -> None:
    columns = tuple(wire.Column(name, 20, -1, False) for name in ("a", "b"))
    old = wire.Relation(oid=1, namespace="public", name="t", identity="d", columns=columns)

    def added(names: list[str], filled: tuple[str, ...] = ()) -> bool:
        return is_added(Known(before=9, names={1: names}, filled={1: filled}), old, "c")

    assert added(["a", "b", "c"])
    assert added(["a", "b", "d", "c"], ("d",))
    assert not added(["a", "b", "c"], ("c",))
    assert not added(["a", "c", "b"])  # it has the place of one that was renamed
    assert not added(["a", "c"])
    assert not added(["a", "b"])
    assert not is_added(NOTHING_KNOWN, old, "c")
