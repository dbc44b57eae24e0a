"""fabric.database.postgresql_examine_target"""

import psycopg
import pytest

from fabric.database.finding import Finding, Usage
from fabric.database.postgresql_examine_target import examine_target
from fabric.demo.process import free_port
from fabric.model.change import Op
from fabric.model.errors import Reason
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, applying, item, target
from tests.contract.postgresql_world import Application

database = postgresql_world.database
ALONE = Usage(captures=0, targets=1, tables=1, is_running=False)
SPOILT = "ALTER TABLE items ADD CONSTRAINT spoilt CHECK (name <> 'poison') NOT VALID"


async def look(url: str) -> dict[str, Finding]:
    return {found.part: found for found in await examine_target(url, [target()], ALONE)}


def ills(found: dict[str, Finding]) -> set[str]:
    return {part for part, item in found.items() if item.reason is not None}


@pytest.mark.integration
async def test_an_empty_database_will_do_and_stays_empty(database: str) -> None:
    found = await look(database)
    assert not ills(found)
    assert "makes it" in found["table items"].seen
    with psycopg.connect(database) as server:
        made = server.execute("SELECT count(*) FROM pg_class WHERE oid > 16383").fetchone()
        assert made == (0,)


@pytest.mark.integration
async def test_a_target_in_use_is_well_until_a_change_waits_in_quarantine(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1))
        assert not ills(await look(database))
        await Application(database).run(SPOILT)
        await sink.upsert(item(2, "poison"))
    found = await look(database)
    assert ills(found) == {"quarantine"}
    assert found["quarantine"].seen.startswith("1 ")


@pytest.mark.integration
async def test_a_dataset_that_may_lack_rows_is_named_until_its_snapshot_has_ended(
    database: str,
) -> None:
    part = f"dataset {target().topic}"
    async with applying(database) as sink:
        await sink.apply((Op.SNAPSHOT_BEGIN, []), (Op.UPSERT, [item(1)]))
        found = await look(database)
        assert ills(found) == {part}
        assert "its end has not come" in found[part].seen
        await sink.apply((Op.SNAPSHOT_END, []))
        assert not ills(await look(database))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        (ITEMS_DDL.replace(", note text", ""), "no column note"),
        (ITEMS_DDL.replace("PRIMARY KEY", "NOT NULL"), "no primary key"),
    ],
)
async def test_a_table_that_does_not_fit_is_named(database: str, ddl: str, words: str) -> None:
    await Application(database).run(ddl)
    found = await look(database)
    assert ills(found) == {"table items"}
    assert words in found["table items"].seen


@pytest.mark.integration
async def test_a_role_that_may_not_write_is_told_what_to_grant(database: str) -> None:
    application = Application(database)
    await application.run("DROP ROLE IF EXISTS scribe; CREATE ROLE scribe LOGIN")
    url = database.replace("postgres@", "scribe@")
    found = await look(url)
    assert ills(found) == {"schema fabric", "table items"}
    assert "CREATE SCHEMA fabric" in found["schema fabric"].remedy
    assert "GRANT CREATE ON SCHEMA public" in found["table items"].remedy
    await application.run(f"CREATE SCHEMA fabric AUTHORIZATION scribe; {ITEMS_DDL}")
    found = await look(url)
    assert ills(found) == {"table items"}
    assert "GRANT SELECT, INSERT" in found["table items"].remedy
    await application.run("GRANT ALL ON items TO scribe")
    assert not ills(await look(url))
    await application.run("DROP OWNED BY scribe CASCADE; DROP ROLE scribe")


async def test_a_server_that_is_away_is_one_finding() -> None:
    (found,) = await examine_target(
        f"postgresql://x:hunter2@127.0.0.1:{free_port()}/x", [target()], ALONE
    )
    assert found.reason is Reason.DATABASE_UNAVAILABLE
    assert "hunter2" not in repr(found)
