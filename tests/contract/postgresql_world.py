"""An application's own way into a PostgreSQL under test, and an empty database for each test."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from fabric.demo.postgresql import Postgres
from fabric.model.change import Row, Value
from tests.contract.worlds import decimal_bytes

NUMBERS = itertools.count()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PEOPLE_DDL = """
CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, born date NOT NULL,
  seen timestamptz NOT NULL, active boolean NOT NULL, score double precision, photo bytea,
  balance numeric(12, 2));
CREATE TABLE notes (region text, number integer, body text, PRIMARY KEY (region, number));
"""


def to_sql(row: Row) -> dict[str, Any]:
    """A row as an application stores it."""
    result: dict[str, Any] = dict(row)
    if isinstance(born := row.get("born"), int):
        result["born"] = date(1970, 1, 1) + timedelta(days=born)
    if isinstance(seen := row.get("seen"), int):
        result["seen"] = _EPOCH + timedelta(microseconds=seen)
    if isinstance(balance := row.get("balance"), bytes):
        result["balance"] = Decimal(int.from_bytes(balance, "big", signed=True)).scaleb(-2)
    return result


def from_sql(row: dict[str, Any]) -> Row:
    result: dict[str, Value] = dict(row)
    if "born" in row:
        result["born"] = (row["born"] - date(1970, 1, 1)).days
        result["seen"] = (row["seen"] - _EPOCH) // timedelta(microseconds=1)
    if row.get("balance") is not None:
        result["balance"] = decimal_bytes(int(row["balance"].scaleb(2)))
    return result


class Application:
    """Plain SQL on one database, each statement in a transaction of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def run(self, statement: str | sql.Composable, rows: Sequence[Any] = ()) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("SET TIME ZONE 'UTC'")
            text = sql.SQL(statement) if isinstance(statement, str) else statement  # type: ignore[arg-type]  # tests' own text
            if rows:
                await connection.cursor().executemany(text, rows)
            else:
                await connection.execute(text)

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        names = ", ".join(rows[0])
        marks = ", ".join(f"%({name})s" for name in rows[0])
        values = [to_sql(row) for row in rows]
        await self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

    async def rows(self, table: str) -> list[Row]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("SET TIME ZONE 'UTC'")
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(f"SELECT * FROM {table}")  # type: ignore[call-overload]  # tests' own text
            return [from_sql(row) for row in await cursor.fetchall()]


@asynccontextmanager
async def standby_away(url: str) -> AsyncIterator[None]:
    """Commits wait for a standby that is not there: in the log, and not visible to others."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            await _until(connection, "current_setting('synchronous_standby_names') = 'nobody'")
            yield
        finally:
            await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await connection.execute("SELECT pg_reload_conf()")
            await _until(connection, "current_setting('synchronous_standby_names') = ''")


async def until_held(url: str) -> None:
    """Wait until a commit waits for a standby."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await _until(
            connection,
            "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            " AND datname = current_database())",
        )


async def until_blocked(url: str, query: str) -> None:
    """Wait until a statement like `query` waits for a lock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await _until(
            connection,
            "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            f" AND datname = current_database() AND query ~ '{query}')",
        )


async def until_awaited(connection: "psycopg.AsyncConnection[Any]") -> None:
    """Wait until another session waits for the end of the transaction of `connection`."""
    await _until(
        connection,
        "EXISTS (SELECT FROM pg_locks WHERE NOT granted"
        " AND transactionid = pg_current_xact_id()::xid)",
    )


async def _until(connection: "psycopg.AsyncConnection[Any]", condition: str) -> None:
    async with asyncio.timeout(10):
        while True:
            cursor = await connection.execute(f"SELECT {condition}")  # type: ignore[call-overload]  # tests' own text
            if (await cursor.fetchone())[0]:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    name = f"test_{next(NUMBERS)}"
    yield postgres.create_database(name)
    await asyncio.to_thread(postgres.drop_database, name)
