"""Connections to PostgreSQL through asyncpg, and what its errors mean to us.

Messages name the server's error class and code and never quote its text, which may
hold a row's values.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import asyncpg

from fabric.database.postgresql_types import PASSED, ServerColumn, TypeInfo, server_column
from fabric.model.errors import ConfigInvalid, FabricError, Reason, UnavailableError

CONNECT_S_MAX = 10.0
STATEMENT_S_MAX = 60.0
"""Deadline of an ordinary statement."""
_SETTINGS = {
    "application_name": "fabric",
    "synchronous_commit": "local",
    "idle_in_transaction_session_timeout": "120000",
    "lock_timeout": "20000",
    "client_min_messages": "error",
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "jit": "off",
}
_TROUBLE = ("08", "53", "57", "58", "40", "55", "25", "XX")
"""SQLSTATE classes of a server in trouble or a lost race: the same statement may work later."""
# The spelling is asked for with length -1, none: SQL reads a bare `character` or `bit` as one of
# length 1, and would cut what is cast to it.
_TYPES = """
WITH RECURSIVE base (oid, type, typmod) AS (
    SELECT t.oid, t.oid, -1 FROM pg_catalog.pg_type t
  UNION ALL
    SELECT b.oid, t.typbasetype, CASE WHEN b.typmod < 0 THEN t.typtypmod ELSE b.typmod END
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.oid AS oid, CASE WHEN t.typtype = 'e' THEN 'enum'
         WHEN n.nspname <> 'pg_catalog' AND t.typname <> 'citext' THEN n.nspname || '.' || t.typname
         ELSE t.typname::text END AS base,
    CASE WHEN t.typcategory = 'A' THEN coalesce(
        CASE WHEN e.typtype = 'e' THEN 'enum' ELSE e.typname::text END, '') ELSE '' END AS element,
    pg_catalog.format_type(t.oid, -1) AS sql_type, b.typmod AS typmod
FROM base b
JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd'
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
"""
_COLUMNS = """
SELECT a.attname::text AS name, a.atttypid AS type_oid, a.atttypmod AS typmod,
    NOT a.attnotnull AS nullable, a.attgenerated <> '' AS generated,
    a.atthasdef OR a.attidentity <> '' AS has_default,
    coalesce(NOT c.collisdeterministic, false) AS is_folding
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


async def connect(
    url: str, settings: Mapping[str, str] | None = None, *, statement_s: float | None = None
) -> "asyncpg.Connection[Any]":
    """Open a connection with our settings; binary dates, times and decimals pass through.

    Args:
        statement_s: deadline of each statement; `STATEMENT_S_MAX` where none is given.

    Raises:
        ConfigInvalid: the URL does not parse, or the server does not take its credentials.
        UnavailableError: DATABASE_UNAVAILABLE.
    """
    try:
        with translated("connect"):
            return await _connect(
                url, {**_SETTINGS, **(settings or {})}, statement_s or STATEMENT_S_MAX
            )
    except ValueError as exc:  # asyncpg lets a port that is no number through as it is
        raise ConfigInvalid("url: not a PostgreSQL connection URL") from exc


async def _connect(
    url: str, settings: dict[str, str], statement_s: float
) -> "asyncpg.Connection[Any]":
    connection = await asyncpg.connect(
        url, timeout=CONNECT_S_MAX, command_timeout=statement_s, server_settings=settings
    )
    async with asyncio.timeout(CONNECT_S_MAX):
        for name in PASSED:
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary"
            )
    return connection


@contextlib.contextmanager
def translated(doing: str, *, data_passes: bool = False) -> Iterator[None]:
    """Turn the driver's errors into ours.

    Args:
        doing: what was tried, for the message.
        data_passes: let through what data may cause; the caller knows the row.
    """
    try:
        yield
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as exc:
        raise ConfigInvalid(f"url: the server refuses us: {class_of(exc)}") from None
    except asyncpg.ClientConfigurationError as exc:
        raise ConfigInvalid("url: not a PostgreSQL connection URL") from exc
    except asyncpg.PostgresError as exc:
        if data_passes and not is_trouble(exc):
            raise
        raise _unavailable(doing, class_of(exc)) from None
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        if data_passes and isinstance(exc, ValueError):  # asyncpg's DataError: a value
            raise
        raise _unavailable(doing, type(exc).__name__) from exc


def _unavailable(doing: str, why: str) -> UnavailableError:
    return UnavailableError(Reason.DATABASE_UNAVAILABLE, f"cannot {doing}: {why}")


def is_trouble(exc: asyncpg.PostgresError) -> bool:
    """Whether the server's state, not our data, is the cause."""
    return code_of(exc)[:2] in _TROUBLE or isinstance(exc, asyncpg.InvalidCachedStatementError)


def sent_code(exc: FabricError) -> str | None:
    """The SQLSTATE that a server in trouble, or one that refuses us, sent; None without an answer.

    Args:
        exc: as `translated` raises it.
    """
    cause = exc.__context__
    if not isinstance(cause, asyncpg.PostgresError):
        return None
    # The driver itself says with class 08 that a connection broke.
    is_sent = isinstance(exc, ConfigInvalid) or is_trouble(cause)
    return code_of(cause) if is_sent and not code_of(cause).startswith("08") else None


def code_of(exc: asyncpg.PostgresError) -> str:
    """The SQLSTATE of an error."""
    return str(getattr(exc, "sqlstate", None) or "XX000")


def class_of(exc: Exception) -> str:
    """An error's class and code, without its text."""
    if isinstance(exc, asyncpg.PostgresError):
        return f"{type(exc).__name__} {code_of(exc)}"
    return type(exc).__name__


async def types_of(connection: "asyncpg.Connection[Any]") -> dict[int, TypeInfo]:
    """Every type of the database by object id, domains resolved to their base types."""
    return {
        record["oid"]: TypeInfo(
            base=record["base"],
            element=record["element"],
            sql_type=record["sql_type"],
            typmod=record["typmod"],
        )
        for record in await connection.fetch(_TYPES)
    }


async def columns_of(
    connection: "asyncpg.Connection[Any]", relation: int, types: Mapping[int, TypeInfo]
) -> dict[str, ServerColumn]:
    """The columns of a table by name."""
    records = await connection.fetch(_COLUMNS, relation)
    columns: dict[str, ServerColumn] = {}
    for record in records:
        column = server_column(record["name"], record["type_oid"], record["typmod"], types)
        columns[column.name] = replace(
            column,
            nullable=record["nullable"],
            generated=record["generated"],
            has_default=record["has_default"],
            is_folding=record["is_folding"],
        )
    return columns


async def relation_of(
    connection: "asyncpg.Connection[Any]", schema: str, name: str
) -> tuple[int, str] | None:
    """Object id and kind (pg_class.relkind) of a table, or None."""
    record = await connection.fetchrow(
        "SELECT c.oid, c.relkind::text AS kind FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        schema,
        name,
    )
    return (record["oid"], record["kind"]) if record else None


async def shut(connection: "asyncpg.Connection[Any] | None") -> None:
    """Close a connection, whatever state it is in."""
    if connection is None:
        return
    try:
        await connection.close(timeout=2.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
