"""fabric.database.postgresql_preflight"""

import pytest

from fabric.database.postgresql_source import PostgresSource
from fabric.model.errors import Reason, UsageError
from fabric.model.schema import RowSchema
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import FOLDING, ITEMS, ITEMS_DDL, new_source, reading, schema
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration


async def refused(source: PostgresSource) -> str:
    with pytest.raises(UsageError) as caught:
        await source.open(None)
    assert caught.value.reason is Reason.SOURCE_UNFIT
    return str(caught.value)


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("CREATE TABLE other (id int)", "does not exist"),
        ("CREATE VIEW items AS SELECT 1 AS id", "not a table"),
        (ITEMS_DDL.replace("PRIMARY KEY", "NOT NULL"), "replica identity"),
        (ITEMS_DDL + "; ALTER TABLE items REPLICA IDENTITY NOTHING", "replica identity"),
        (ITEMS_DDL + "; CREATE TABLE kid () INHERITS (items)", "ALTER TABLE kid NO INHERIT"),
        (ITEMS_DDL.replace("CREATE", "CREATE UNLOGGED"), "SET LOGGED"),
        (ITEMS_DDL.replace(", note text", ""), "no column note"),
        (ITEMS_DDL.replace("name text NOT NULL", "name text"), "NOT NULL"),
        (ITEMS_DDL.replace("id bigint", "id numeric"), "type numeric is not long"),
        (ITEMS_DDL.replace("note text", "note integer"), "note: type integer is not string"),
        (
            ITEMS_DDL.replace("note text", "note text GENERATED ALWAYS AS ('x') STORED"),
            "generated",
        ),
    ],
)
async def test_a_table_that_cannot_be_captured_is_named_with_the_remedy(
    database: str, ddl: str, words: str
) -> None:
    await Application(database).run(ddl)
    assert words in await refused(new_source(database))


@pytest.mark.parametrize(
    ("publication", "words"),
    [
        ("FOR TABLE items WITH (publish = 'insert')", "leaves operations out"),
        ("FOR TABLE items WHERE (id > 5)", "leaves rows or columns"),
        ("FOR TABLE items (id, name)", "leaves rows or columns"),
    ],
)
async def test_a_publication_that_leaves_something_out_is_refused(
    database: str, publication: str, words: str
) -> None:
    await Application(database).run(f"{ITEMS_DDL}; CREATE PUBLICATION fabric {publication}")
    assert words in await refused(new_source(database))


async def test_a_table_is_added_to_a_publication_that_misses_it(database: str) -> None:
    await Application(database).run(f"{ITEMS_DDL}; CREATE PUBLICATION fabric")
    async with reading(new_source(database)) as read:
        await read.until_ended()


async def test_a_role_that_may_not_replicate_or_read_is_told(database: str) -> None:
    application = Application(database)
    await application.run(
        f"{ITEMS_DDL}; DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN;"
        " GRANT USAGE ON SCHEMA public TO weak"
    )
    url = database.replace("postgres@", "weak@")
    assert "may not replicate" in await refused(new_source(url))
    await application.run("ALTER ROLE weak REPLICATION")
    assert "GRANT SELECT" in await refused(new_source(url))
    await application.run("GRANT SELECT ON items TO weak")
    assert "CREATE PUBLICATION" in await refused(new_source(url))
    await application.run("CREATE PUBLICATION fabric FOR TABLE items")
    async with reading(new_source(url)) as read:
        await read.until_ended()
    await application.run("DROP OWNED BY weak; DROP ROLE weak")


@pytest.mark.parametrize("identity", ["FULL", "USING INDEX other"])
async def test_full_and_index_identities_are_fit(database: str, identity: str) -> None:
    await Application(database).run(
        f"{ITEMS_DDL}; CREATE UNIQUE INDEX other ON items (id);"
        f" ALTER TABLE items REPLICA IDENTITY {identity}"
    )
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await Application(database).run("INSERT INTO items VALUES (1, 'a'), (2, 'b')")
        await Application(database).run("UPDATE items SET id = 3 WHERE id = 1")
        await Application(database).run("DELETE FROM items WHERE id = 2")
        await read.until(lambda: set(read.rows()) == {3})


async def test_a_partitioned_table_is_read_as_one(database: str) -> None:
    await Application(database).run(
        ITEMS_DDL + " PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF items FOR VALUES FROM"
        " (0) TO (10); CREATE TABLE high PARTITION OF items FOR VALUES FROM (10) TO (20);"
        " INSERT INTO items VALUES (1, 'a'), (11, 'b')"
    )
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await Application(database).run("UPDATE items SET id = 12 WHERE id = 1")
        await read.until(lambda: set(read.rows()) == {11, 12})


@pytest.mark.parametrize("sql_type", ["numeric", "date", "time", "timestamp", "timestamptz"])
async def test_a_string_key_whose_value_has_several_texts_is_refused(
    database: str, sql_type: str
) -> None:
    await Application(database).run(f"CREATE TABLE items (id {sql_type} PRIMARY KEY)")
    by_text = schema({"name": "id", "type": "string"})
    assert "column id: type" in await refused(new_source(database, of=by_text))


async def test_a_key_whose_collation_folds_strings_is_refused(database: str) -> None:
    await Application(database).run(
        f"{FOLDING}; CREATE TABLE items (id text COLLATE folding PRIMARY KEY)"
    )
    by_text = schema({"name": "id", "type": "string"})
    assert "not deterministic" in await refused(new_source(database, of=by_text))


def other() -> RowSchema:
    return schema({"name": "id", "type": "int"}, {"name": "name", "type": "string"})


async def test_a_schema_that_is_not_the_tables_is_refused(database: str) -> None:
    await Application(database).run(ITEMS_DDL)
    assert "type bigint is not int" in await refused(new_source(database, of=other()))
    assert ITEMS.fields == ("id", "name", "note")
