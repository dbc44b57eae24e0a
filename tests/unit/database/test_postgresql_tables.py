"""fabric.database.postgresql_tables"""

import asyncio
from dataclasses import replace

import psycopg
import pytest

from fabric.database.finding import Usage
from fabric.database.postgresql_examine_target import examine_target
from fabric.model.change import Op
from fabric.model.errors import Reason, UsageError
from fabric.model.names import Origin
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import (
    FOLDING,
    ITEMS_DDL,
    STREAM,
    TOPIC,
    Applying,
    applying,
    item,
    schema,
    target,
)
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        (ITEMS_DDL.replace(", note text", ""), "no column note"),
        (ITEMS_DDL.replace("note text", "note text NOT NULL"), "DROP NOT NULL"),
        (ITEMS_DDL.replace("id bigint", "id integer"), "does not hold every long"),
        (ITEMS_DDL.replace("note text", "note integer"), "note: type integer is not string"),
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


async def test_a_table_that_was_dropped_is_not_made_empty_but_filled_anew_when_asked_to(
    database: str,
) -> None:
    application = Application(database)
    async with applying(database) as sink:
        await sink.upsert(item(1))
    await application.run("DROP TABLE items")
    usage = Usage(captures=0, targets=1, tables=1, is_running=False)
    looked = await examine_target(database, [target()], usage)
    (found,) = [each for each in looked if each.part == "table items"]
    assert found.reason is Reason.TARGET_UNFIT
    with pytest.raises(UsageError, match="is gone") as caught:
        async with applying(database):
            pass
    assert caught.value.reason is Reason.TARGET_UNFIT
    _, _, remedy = str(caught.value).partition("anew: ")
    await application.run(remedy)
    async with applying(database) as sink:
        assert await sink.sink.state(STREAM) is None
        await sink.upsert(item(1))
    assert await application.rows("items") == [item(1)]


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


BY_CODE = schema({"name": "id", "type": "string"}, {"name": "v", "type": ["null", "string"]})
CODES = [{"id": f"P{n:04}", "v": "x"} for n in range(3)]
SNAPSHOT = ((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, CODES), (Op.SNAPSHOT_END, []))


async def test_a_second_snapshot_keeps_rows_whose_key_has_a_length(database: str) -> None:
    await Application(database).run("CREATE TABLE items (id char(5) PRIMARY KEY, v text)")
    async with applying(database, target(BY_CODE)) as sink:
        for _ in range(2):
            done = await sink.apply(*SNAPSHOT)
            assert (done.quarantined, done.state.incomplete) == (0, False)
    assert len(await Application(database).rows("items")) == 3


@pytest.mark.parametrize("sql_type", ["numeric(5, 2)", "timestamp(0)", "time(0)", "name"])
async def test_a_key_that_rounds_strings_is_refused_and_named(database: str, sql_type: str) -> None:
    await Application(database).run(f"CREATE TABLE items (id {sql_type} PRIMARY KEY, v text)")
    with pytest.raises(UsageError, match="column id: .*make the column text") as caught:
        async with applying(database, target(BY_CODE)):
            pass
    assert caught.value.reason is Reason.TARGET_UNFIT


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE items (id text COLLATE folding PRIMARY KEY, v text)",
        "CREATE DOMAIN code AS text COLLATE folding;"
        " CREATE TABLE items (id code PRIMARY KEY, v text)",
        "CREATE TABLE items (id text PRIMARY KEY, v text);"
        " CREATE UNIQUE INDEX ON items (id COLLATE folding)",
    ],
)
async def test_a_key_whose_collation_folds_strings_is_refused(database: str, ddl: str) -> None:
    await Application(database).run(f"{FOLDING}; {ddl}")
    with pytest.raises(UsageError, match="not deterministic") as caught:
        async with applying(database, target(BY_CODE)):
            pass
    assert caught.value.reason is Reason.TARGET_UNFIT


async def test_what_is_no_key_may_fold_strings(database: str) -> None:
    await Application(database).run(
        f"{FOLDING}; CREATE TABLE items (id text PRIMARY KEY, v text COLLATE folding)"
    )
    async with applying(database, target(BY_CODE)) as sink:
        assert (await sink.upsert(*CODES)).quarantined == 0


async def test_two_origins_fill_a_table_whose_key_has_a_length(database: str) -> None:
    await Application(database).run("CREATE TABLE items (id char(5) PRIMARY KEY, v text)")
    async with applying(database, target(BY_CODE)) as sink:
        await sink.upsert(CODES[0])
        other = Applying(sink.sink, replace(STREAM, origin=replace(STREAM.origin, source="two")))
        assert (await other.upsert(CODES[1])).quarantined == 0


@pytest.mark.parametrize("is_dropped", [True, False])
async def test_whose_rows_they_were_is_forgotten_when_a_table_is_filled_anew(
    database: str, is_dropped: bool
) -> None:
    application = Application(database)
    two = replace(STREAM, origin=replace(STREAM.origin, source="two"))
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await Applying(sink.sink, two).upsert(item(2))
    await application.run("DROP TABLE items" if is_dropped else "DELETE FROM items")
    await application.run("DELETE FROM fabric.streams")
    async with applying(database) as sink:
        await sink.upsert(item(2))
        await Applying(sink.sink, two).apply((Op.TRUNCATE, []))
        assert await application.rows("items") == [item(2)]
        await sink.apply((Op.SNAPSHOT_BEGIN, []), (Op.SNAPSHOT_END, []))
    assert await application.rows("items") == []


async def test_what_another_sink_fills_meanwhile_is_not_forgotten(database: str) -> None:
    application, two = Application(database), "G01/registry/two"
    async with applying(database) as sink:
        await sink.upsert(item(1))
        other = replace(STREAM, origin=Origin.parse(two))
        await Applying(sink.sink, other).upsert(item(2))
    await application.run("DELETE FROM fabric.streams")
    async with await psycopg.AsyncConnection.connect(database) as writer:
        await writer.execute(
            "INSERT INTO fabric.streams (origin, topic, partition, generation, position, ordinal,"
            ' chain, "offset", cluster, topic_id, incomplete)'
            " VALUES (%s, %s, 0, 1, 1, 1, '', 1, '', '', false)",
            (two, str(TOPIC)),
        )
        await writer.execute(
            "INSERT INTO fabric.owned_1 VALUES (%s, 2)"
            " ON CONFLICT (id) DO UPDATE SET fabric_origin = excluded.fabric_origin",
            (two,),
        )
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(until_opened(database))
            await until_waits(database)
            await writer.commit()
            await opening
    assert await application.rows("fabric.owned_1") == [{"fabric_origin": two, "id": 2}]


async def test_a_sink_of_a_filled_table_opens_beside_one_that_writes(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1))
    async with await psycopg.AsyncConnection.connect(database) as writer:
        await writer.execute("INSERT INTO fabric.owned_1 VALUES ('G01/registry/two', 2)")
        async with asyncio.timeout(10):
            await until_opened(database)


async def until_opened(database: str) -> None:
    async with applying(database):
        pass


async def until_waits(database: str) -> None:
    """Wait until a sink waits for a lock."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while True:
                found = await connection.execute(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND application_name = 'fabric' AND datname = current_database())"
                )
                if (await found.fetchone() or (False,))[0]:
                    return
                await asyncio.sleep(0.02)


async def test_values_of_a_length_are_written_whole(database: str) -> None:
    await Application(database).run(
        "CREATE TABLE items (id bigint PRIMARY KEY, cs char(3)[], b bit(4))"
    )
    of = schema(
        {"name": "id", "type": "long"},
        {"name": "cs", "type": {"type": "array", "items": "string"}},
        {"name": "b", "type": "string"},
    )
    async with applying(database, target(of)) as sink:
        done = await sink.upsert({"id": 1, "cs": ["abc", "def"], "b": "0110"})
    rows = await Application(database).rows("(SELECT cs::text, b::text FROM items) t")
    assert (done.quarantined, rows) == (0, [{"cs": "{abc,def}", "b": "0110"}])


async def test_tables_of_ours_with_other_key_types_get_the_targets(database: str) -> None:
    application = Application(database)
    await application.run("CREATE TABLE items (id char(5) PRIMARY KEY, v text)")
    async with applying(database, target(BY_CODE)) as sink:
        await sink.upsert(*CODES)
        await application.run(
            "ALTER TABLE fabric.seen_1 ALTER id TYPE char(1);"
            " ALTER TABLE fabric.owned_1 ALTER id TYPE char(1);"
            " INSERT INTO fabric.owned_1 VALUES ('G01/registry/two', 'Q')"
        )
        await sink.apply((Op.SNAPSHOT_BEGIN, []))
        # Rows that came before could not be noted: the end of this snapshot must remove nothing.
        await sink.sink.open([target(BY_CODE)])
        done = await sink.apply((Op.UPSERT, CODES[:1]), (Op.SNAPSHOT_END, []))
        assert (done.quarantined, done.state.incomplete) == (0, True)
        assert len(await application.rows("items")) == 3
        done = await sink.apply(*SNAPSHOT)
        assert (done.quarantined, done.state.incomplete) == (0, False)
    assert [row["id"].rstrip() for row in await application.rows("fabric.owned_1")] == ["Q"]


async def test_keys_of_ours_that_the_target_cannot_hold_are_named(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1))
        await Application(database).run(
            "ALTER TABLE fabric.owned_1 ALTER id TYPE text;"
            " INSERT INTO fabric.owned_1 VALUES ('G01/registry/two', 'secret')"
        )
        with pytest.raises(UsageError, match=r"fabric.owned_1 .* 22P02") as caught:
            await sink.sink.open([target()])
    assert "secret" not in str(caught.value)
