import asyncpg
import pytest

from fabric.database.digest import TableDigest, table_digest
from fabric.demo.postgresql import Postgres
from fabric.model.errors import UnavailableError, UsageError
from tests.contract.worlds import NOTES_SCHEMA, PEOPLE_SCHEMA, decimal_bytes, person

pytestmark = pytest.mark.integration

_DDL = (
    'CREATE TABLE "People" (id bigint PRIMARY KEY, name text NOT NULL, born date NOT NULL,'
    " seen timestamptz NOT NULL, active boolean NOT NULL, score double precision, photo bytea,"
    " balance numeric(12, 2))"
)


async def test_the_digest_of_a_table_is_that_of_its_physical_values(postgres: Postgres) -> None:
    url = postgres.create_database("digest")
    connection = await asyncpg.connect(url)
    await connection.execute(_DDL)
    await connection.execute(
        """INSERT INTO "People" VALUES
        (1, 'Ánh', '1970-01-11', '1970-01-01 00:00:01.5+00', true, 2, '\\x00ff', 12.5),
        (2, '', '1900-01-01', '1969-12-31 23:59:59.999999+00', false, NULL, NULL, NULL),
        (3, 'x', 'infinity', '-infinity', false, '-0', '', -0.01)"""
    )
    await connection.execute("CREATE TABLE notes (region text, number text, body text)")
    await connection.execute("INSERT INTO notes VALUES ('a', 'many', NULL)")
    await connection.close()
    expected = TableDigest(PEOPLE_SCHEMA)
    rows = [
        person(1, "Ánh", born=10, seen=1_500_000, active=True, score=2.0, photo=b"\x00\xff"),
        person(2, name="", born=-25_567, seen=-1, active=False, score=None, photo=None),
        person(3, "x", born=2**31 - 1, seen=-(2**63), active=False, score=0.0, photo=b""),
    ]
    rows[1]["name"] = ""
    for row, unscaled in zip(rows, (1250, None, -1), strict=True):
        row["balance"] = None if unscaled is None else decimal_bytes(unscaled)
        expected.add(row)
    found = await table_digest("postgresql", url, "public.People", PEOPLE_SCHEMA)
    assert found == (3, expected.value)
    with pytest.raises(UnavailableError):
        await table_digest("postgresql", url, "none", PEOPLE_SCHEMA)
    with pytest.raises(UsageError):
        await table_digest("postgresql", url, "notes", NOTES_SCHEMA)


async def test_a_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        await table_digest("postgresql", "postgresql://x@127.0.0.1:1/x", "t", PEOPLE_SCHEMA)
