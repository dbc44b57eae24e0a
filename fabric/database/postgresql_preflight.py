"""What must hold before a source starts, checked at once and said with its remedy.

Only `check` changes anything: it makes what is missing of the publication.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import asyncpg

from fabric.database.postgresql_columns import (
    SPELLED,
    Selected,
    demand_exact_key,
    quoted,
    selected,
    split_table,
    table_sql,
)
from fabric.database.postgresql_connect import columns_of, relation_of, types_of
from fabric.database.postgresql_types import (
    Field,
    ServerColumn,
    TypeInfo,
    Unfit,
    demand_text,
    fields_of,
    reader_of,
)
from fabric.model.errors import Reason, UsageError
from fabric.ports import SourceTable

_VERSION_MIN = 150_000
_IDENTITY_KEYS = """
SELECT coalesce(array_agg(a.attname::text), '{}') FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1::oid AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTable:
    """A table that can be captured: how to select its columns, key columns first asked."""

    table: SourceTable
    columns: tuple[Selected, ...]
    key: tuple[ServerColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A database that can be captured.

    Attributes:
        binary: every captured column has a binary form that we read.
        is_new: the publication was made just now, so nothing was captured before.
        added: tables that were added to the publication just now.
        sender_timeout_s: the server's wal_sender_timeout; 0 for none.
    """

    types: Mapping[int, TypeInfo]
    tables: tuple[FitTable, ...]
    binary: bool
    is_new: bool
    added: frozenset[str]
    sender_timeout_s: float


async def check(
    connection: "asyncpg.Connection[Any]", tables: Sequence[SourceTable], publication: str
) -> Fit:
    """Check server, role, tables and publication; make the publication if there is none.

    Raises:
        UsageError: SOURCE_UNFIT or SCHEMA_MISMATCH, with the remedy.
    """
    timeout_s = await check_server(connection)
    types = await types_of(connection)
    fits: list[FitTable] = []
    binary = True
    for table in tables:
        fit, is_binary = await check_table(connection, table, types)
        fits.append(fit)
        binary = binary and is_binary
    is_new, added = await _publish(connection, tables, publication)
    return Fit(
        types=types,
        tables=tuple(fits),
        binary=binary,
        is_new=is_new,
        added=added,
        sender_timeout_s=timeout_s,
    )


async def check_server(connection: "asyncpg.Connection[Any]") -> float:
    """See that server and role can be captured; wal_sender_timeout in seconds, 0 for none.

    Raises:
        UsageError: SOURCE_UNFIT.
    """
    record = await connection.fetchrow(
        "SELECT pg_catalog.current_setting('server_version_num')::int AS version,"
        " pg_catalog.current_setting('wal_level') AS wal_level,"
        " pg_catalog.pg_is_in_recovery() AS standby,"
        " (SELECT setting::int / 1000.0 FROM pg_catalog.pg_settings"
        "  WHERE name = 'wal_sender_timeout')::float8 AS timeout_s,"
        " (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles"
        "  WHERE rolname = current_user) AS may_replicate"
    )
    assert record is not None
    if record["version"] < _VERSION_MIN:
        _unfit("server", "PostgreSQL 15 or newer is needed")
    if record["standby"]:
        _unfit("server", "a standby cannot be captured; connect to the primary")
    if record["wal_level"] != "logical":
        _unfit(
            "server",
            f"wal_level is {record['wal_level']}; set wal_level = logical and restart it",
        )
    if not record["may_replicate"]:
        _unfit("role", "it may not replicate; ALTER ROLE ... REPLICATION")
    return float(record["timeout_s"])


async def check_table(
    connection: "asyncpg.Connection[Any]", table: SourceTable, types: Mapping[int, TypeInfo]
) -> tuple[FitTable, bool]:
    """See that a table can be captured as its dataset; how, and whether in binary.

    Raises:
        UsageError: SOURCE_UNFIT.
    """
    found = await relation_of(connection, *split_table(table.table))
    name = f"table {table.table}"
    if found is None:
        _unfit(name, "it does not exist, or the role may not see it")
    relation, kind = found
    if kind not in ("r", "p"):
        _unfit(name, "it is not a table")
    may_read = await connection.fetchval(
        "SELECT pg_catalog.has_table_privilege($1::oid, 'SELECT')", relation
    )
    if not may_read:
        _unfit(name, "the role may not read it; GRANT SELECT on it")
    if kind == "r":
        await _check_alone(connection, name, relation)
    await _check_identity(connection, table, relation)
    columns = await columns_of(connection, relation, types)
    chosen: list[Selected] = []
    binary = True
    for field in fields_of(table.schema):
        column = _column(name, field, columns)
        try:
            reader = reader_of(field, column)
            if field.kind == "string":
                demand_text(column)
            if field.name in table.schema.key:
                demand_exact_key(field, column, SPELLED)
        except Unfit as exc:
            _unfit(f"{name} column {field.name}", str(exc))
        chosen.append(selected(field, column, reader))
        binary = binary and reader.binary is not None
    key = tuple(columns[field] for field in table.schema.key)
    return FitTable(table=table, columns=tuple(chosen), key=key), binary


def _column(name: str, field: Field, columns: Mapping[str, ServerColumn]) -> ServerColumn:
    column = columns.get(field.name)
    if column is None:
        _unfit(name, f"it has no column {field.name}; add it or take it out of the schema")
    if column.generated:
        _unfit(f"{name} column {field.name}", "it is generated, and the log leaves it out")
    if column.nullable and not field.nullable:
        _unfit(
            f"{name} column {field.name}",
            "it may be null and the field may not; set it NOT NULL or make the field nullable",
        )
    return column


async def _check_alone(connection: "asyncpg.Connection[Any]", name: str, relation: int) -> None:
    """A query of the table reads its children's rows, and the log gives those as the children's."""
    child = await connection.fetchval(
        "SELECT inhrelid::pg_catalog.regclass::text FROM pg_catalog.pg_inherits"
        " WHERE inhparent = $1::oid LIMIT 1",
        relation,
    )
    if child is not None:
        _unfit(
            name,
            f"{child} inherits from it, and the log leaves a child's changes out; ALTER TABLE"
            f" {child} NO INHERIT, or make it a partitioned table",
        )


async def _check_identity(
    connection: "asyncpg.Connection[Any]", table: SourceTable, relation: int
) -> None:
    """Updates and deletes name a row by the replica identity; it must be the dataset's key."""
    record = await connection.fetchrow(
        "SELECT relreplident::text AS identity, relpersistence::text AS persistence"
        " FROM pg_catalog.pg_class WHERE oid = $1::oid",
        relation,
    )
    assert record is not None
    name = f"table {table.table}"
    if record["persistence"] != "p":
        _unfit(name, "it is unlogged or temporary, and the log leaves it out; SET LOGGED")
    wanted = set(table.schema.key)
    keys = set(await connection.fetchval(_IDENTITY_KEYS, relation, record["identity"] == "i"))
    if record["identity"] == "n" or keys != wanted:
        listed = ", ".join(table.schema.key)
        _unfit(
            name,
            f"its replica identity is not the dataset's key; make ({listed}) the primary key, or a"
            " unique index on them the REPLICA IDENTITY",
        )


async def lacking(
    connection: "asyncpg.Connection[Any]", tables: Sequence[SourceTable], publication: str
) -> tuple[str, ...] | None:
    """Which tables a publication lacks; None when there is no such publication.

    Raises:
        UsageError: SOURCE_UNFIT, it leaves operations, rows or columns out.
    """
    whole = await connection.fetchval(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate"
        " FROM pg_catalog.pg_publication WHERE pubname = $1",
        publication,
    )
    if whole is None:
        return None
    if not whole:
        _unfit(
            f"publication {publication}",
            f"it leaves operations out; ALTER PUBLICATION {quoted(publication)} SET"
            " (publish = 'insert, update, delete, truncate')",
        )
    held = {
        (each["schemaname"], each["tablename"]): each
        for each in await connection.fetch(
            "SELECT schemaname::text, tablename::text, attnames::text[], rowfilter IS NOT NULL"
            " AS filtered FROM pg_catalog.pg_publication_tables WHERE pubname = $1",
            publication,
        )
    }
    missing: list[str] = []
    for table in tables:
        entry = held.get(split_table(table.table))
        if entry is None:
            missing.append(table.table)
        elif entry["filtered"] or not set(table.schema.fields) <= set(entry["attnames"]):
            _unfit(
                f"publication {publication}",
                f"it leaves rows or columns of {table.table} out; publish the table whole",
            )
    return tuple(missing)


def making(publication: str, tables: Sequence[str], *, is_new: bool) -> str:
    """The statement that makes a publication of these tables, or adds them to it."""
    name, listed = quoted(publication), ", ".join(map(table_sql, tables))
    if is_new:
        made = f"CREATE PUBLICATION {name} FOR TABLE {listed}"
        return f"{made} WITH (publish_via_partition_root = true)"
    return f"ALTER PUBLICATION {name} ADD TABLE {listed}"


async def _publish(
    connection: "asyncpg.Connection[Any]", tables: Sequence[SourceTable], publication: str
) -> tuple[bool, frozenset[str]]:
    """See that the publication holds every table, whole; what was made or added."""
    missing = await lacking(connection, tables, publication)
    is_new = missing is None
    wanted = tuple(table.table for table in tables) if missing is None else missing
    if wanted:
        await _change(connection, making(publication, wanted, is_new=is_new))
    return is_new, frozenset() if is_new else frozenset(wanted)


async def _change(connection: "asyncpg.Connection[Any]", statement: str) -> None:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError as exc:
        raise UsageError(
            Reason.SOURCE_UNFIT, f"role may not publish; let an owner run: {statement}"
        ) from exc


def _unfit(what: str, why: str) -> NoReturn:
    raise UsageError(Reason.SOURCE_UNFIT, f"{what}: {why}")
