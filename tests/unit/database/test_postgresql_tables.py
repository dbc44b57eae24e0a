"""fabric.database.postgresql_tables"""

import pytest

from fabric.model.change import Op
from fabric.model.errors import Reason, UsageError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, applying, item, schema, target
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        (ITEMS_DDL.replace(", note text", ""), "no column note"),
        (ITEMS_DDL.replace("note text", "note text NOT NULL"), "DROP NOT NULL"),
        (ITEMS_DDL.replace("id bigint", "id integer"), "does not hold every long"),
        (ITEMS_DDL.replace("PRIMARY KEY", "NOT NULL"), "no primary key"),
        (ITEMS_DDL.replace("note text", "note text, more int NOT NULL"), "give it a default"),
        (
            ITEMS_DDL.replace("note text", "note text GENERATED ALWAYS AS ('x') STORED"),
            "generated",
        ),
        ("CREATE VIEW items AS SELECT 1 AS id", "not a table"),
    ],
)
async def test_a_table_that_does_not_fit_is_named_with_the_remedy(
    database: str, ddl: str, words: str
) -> None:
    await Application(database).run(ddl)
    with pytest.raises(UsageError, match="table items") as caught:
        async with applying(database):
            pass
    assert caught.value.reason is Reason.TARGET_UNFIT
    assert words in str(caught.value)


async def test_a_table_of_another_order_and_wider_columns_fits(database: str) -> None:
    await Application(database).run(
        "CREATE TABLE items (extra int DEFAULT 5, note varchar(20), name varchar NOT NULL,"
        " id bigint GENERATED ALWAYS AS IDENTITY UNIQUE)"
    )
    async with applying(database) as sink:
        await sink.upsert(item(1, "a", "b"), item(2))
        await sink.apply((Op.DELETE, [{"id": 2}]))
    rows = await Application(database).rows("items")
    assert rows == [{"extra": 5, "note": "b", "name": "a", "id": 1}]


async def test_names_need_not_be_plain(database: str) -> None:
    odd = schema({"name": "id", "type": "long"}, {"name": "Order", "type": "string"})
    place = target(odd, table='My schema.select "all"')
    async with applying(database, place) as sink:
        await sink.upsert({"id": 1, "Order": "x"})
        await sink.upsert({"id": 1, "Order": "y"})
    assert await Application(database).rows('"My schema"."select ""all"""') == [
        {"id": 1, "Order": "y"}
    ]


async def test_a_role_that_may_not_make_tables_is_told_how(database: str) -> None:
    application = Application(database)
    await application.run("DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN")
    url = database.replace("postgres@", "writer@")
    with pytest.raises(UsageError, match="CREATE SCHEMA fabric"):
        async with applying(url):
            pass
    await application.run("CREATE SCHEMA fabric AUTHORIZATION writer")
    with pytest.raises(UsageError, match="GRANT CREATE"):
        async with applying(url):
            pass
    await application.run(f"{ITEMS_DDL}; GRANT ALL ON items TO writer")
    async with applying(url) as sink:
        await sink.upsert(item(1))
    await application.run("DROP OWNED BY writer CASCADE; DROP ROLE writer")
