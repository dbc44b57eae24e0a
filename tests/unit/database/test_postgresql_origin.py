"""fabric.database.postgresql_origin"""

import logging

import pytest

from fabric.database import postgresql_origin as origins
from fabric.database.postgresql_connect import connect, shut
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, applying, item, new_source, reading
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration


async def test_every_session_has_an_origin_of_its_own(database: str) -> None:
    one, two = await connect(database), await connect(database)
    names = {await origins.take(one), await origins.take(two)}
    assert None not in names
    assert len(names) == 2
    await shut(one)
    await shut(two)


async def test_a_role_without_the_right_goes_on_with_a_warning(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await Application(database).run("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    connection = await connect(database.replace("postgres@", "plain@"))
    with caplog.at_level(logging.WARNING):
        assert await origins.take(connection) is None
    assert "do not capture" in caplog.text
    await shut(connection)
    await Application(database).run("DROP ROLE plain")


async def test_what_a_sink_wrote_is_not_captured_again(database: str) -> None:
    """Two-way: rows of others come in, the source of the same table does not send them back."""
    application = Application(database)
    await application.run(ITEMS_DDL)
    async with reading(new_source(database)) as read, applying(database) as sink:
        await read.until_ended()
        await sink.upsert(item(1, "theirs"))
        await application.run("INSERT INTO items VALUES (2, 'ours')")
        await read.until(lambda: bool(read.rows()))
        assert set(read.rows()) == {2}
    assert len(await application.rows("items")) == 2
