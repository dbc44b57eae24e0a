import sqlite3
from collections.abc import Iterator

import pytest

from fabric.database import sqlite_schemas as schemas
from fabric.database.datum import written
from tests.contract.worlds import NOTES_SCHEMA, PEOPLE_SCHEMA


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE changes (id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO changes VALUES (1)")
    schemas.create(connection, "changes")
    schemas.create(connection, "changes")
    yield connection
    connection.close()


def test_changes_from_before_name_no_schema(database: sqlite3.Connection) -> None:
    assert database.execute("SELECT id, schema FROM changes").fetchall() == [(1, None)]
    assert schemas.texts(database, [None]) == {}


def test_a_schema_is_kept_once(database: sqlite3.Connection) -> None:
    ids = [schemas.keep(database, one) for one in (NOTES_SCHEMA, PEOPLE_SCHEMA, NOTES_SCHEMA)]
    assert database.execute("SELECT count(*) FROM fabric_schemas").fetchone() == (2,)
    assert schemas.texts(database, ids) == {
        ids[0]: written(NOTES_SCHEMA).text,
        ids[1]: written(PEOPLE_SCHEMA).text,
    }


def test_a_schema_that_somebody_removed_is_not_taken_for_none(database: sqlite3.Connection) -> None:
    ident = schemas.keep(database, NOTES_SCHEMA)
    database.execute("DELETE FROM fabric_schemas")
    assert schemas.texts(database, [ident, None]) == {ident: schemas.LOST}
