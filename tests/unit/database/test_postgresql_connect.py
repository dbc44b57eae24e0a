"""fabric.database.postgresql_connect"""

import asyncpg
import pytest

from fabric.database.postgresql_connect import (
    class_of,
    columns_of,
    connect,
    is_trouble,
    relation_of,
    sent_code,
    shut,
    translated,
    types_of,
)
from fabric.model.errors import ConfigInvalid, UnavailableError
from tests.contract import postgresql_world

database = postgresql_world.database


def test_a_servers_trouble_is_unavailable_and_never_quotes_it() -> None:
    with pytest.raises(UnavailableError) as caught, translated("do it"):
        raise asyncpg.DeadlockDetectedError("key (id)=(secret)")
    assert str(caught.value).endswith("cannot do it: DeadlockDetectedError 40P01")
    for failure in (OSError(), TimeoutError(), asyncpg.InterfaceError("gone")):
        with pytest.raises(UnavailableError), translated("do it"):
            raise failure


def test_what_data_caused_passes_only_to_those_who_ask_for_it() -> None:
    failure = asyncpg.UniqueViolationError("key (id)=(secret)")
    assert not is_trouble(failure)
    with pytest.raises(asyncpg.UniqueViolationError), translated("do it", data_passes=True):
        raise failure
    with pytest.raises(UnavailableError) as caught, translated("do it"):
        raise failure
    assert "secret" not in str(caught.value)
    assert class_of(ValueError("secret")) == "ValueError"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (asyncpg.TooManyConnectionsError(), "53300"),
        (asyncpg.CannotConnectNowError(), "57P03"),
        (asyncpg.InvalidPasswordError(), "28P01"),
        (asyncpg.ConnectionDoesNotExistError(), None),  # which the driver says by itself
        (asyncpg.DivisionByZeroError(), None),
        (TimeoutError(), None),
        (ConnectionRefusedError(), None),
    ],
)
def test_an_answer_of_the_server_is_told_from_none(failure: Exception, code: str | None) -> None:
    with pytest.raises((UnavailableError, ConfigInvalid)) as caught, translated("do it"):
        raise failure
    assert sent_code(caught.value) == code


async def test_a_url_that_is_none_is_a_configuration_error() -> None:
    for url in ("mysql://h/x", "postgresql://h:port/x"):
        with pytest.raises(ConfigInvalid):
            await connect(url)
    with pytest.raises(UnavailableError):
        await connect("postgresql://postgres@127.0.0.1:1/x")
    await shut(None)


@pytest.mark.integration
async def test_a_database_that_is_not_there_is_a_configuration_error(database: str) -> None:
    with pytest.raises(ConfigInvalid, match="3D000"):
        await connect(database + "_none")


@pytest.mark.integration
async def test_columns_are_seen_through_their_domains(database: str) -> None:
    connection = await connect(database)
    await connection.execute(
        "CREATE TYPE mood AS ENUM ('a'); CREATE DOMAIN inner_d AS numeric(10, 2);"
        " CREATE DOMAIN outer_d AS inner_d; CREATE TABLE x (id bigint PRIMARY KEY, d outer_d,"
        " m mood DEFAULT 'a', l integer[], c char(5), cs char(3)[], b bit(4),"
        " g int GENERATED ALWAYS AS (1) STORED,"
        " s int GENERATED ALWAYS AS IDENTITY, dropped int); ALTER TABLE x DROP COLUMN dropped"
    )
    found = await relation_of(connection, "public", "x")
    assert found is not None
    columns = await columns_of(connection, found[0], await types_of(connection))
    assert list(columns) == ["id", "d", "m", "l", "c", "cs", "b", "g", "s"]
    # A bare `character` or `bit` would be one of length 1.
    unbounded = {n: columns[n].sql_type for n in ("c", "cs", "b")}
    assert unbounded == {"c": "bpchar", "cs": "bpchar[]", "b": '"bit"'}
    assert (columns["d"].base, columns["d"].typmod) == ("numeric", (10 << 16 | 2) + 4)
    assert (columns["m"].base, columns["m"].sql_type) == ("enum", "mood")
    assert (columns["l"].element, columns["l"].sql_type) == ("int4", "integer[]")
    assert (columns["g"].generated, columns["s"].has_default) == (True, True)
    assert (columns["id"].nullable, columns["d"].nullable) == (False, True)
    assert await relation_of(connection, "public", "none") is None
    await shut(connection)
