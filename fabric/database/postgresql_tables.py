"""Target tables: made or checked against the schema, and the statements that write them.

Values come from a source `v` with columns c0, c1, … in the schema's order: either arrays
(`unnest`) or a staging table that a COPY has filled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import asyncpg

from fabric.database import postgresql_state as states
from fabric.database.postgresql_columns import (
    ROUNDING,
    Selected,
    Written,
    demand_exact_key,
    key_selected,
    quoted,
    rows_of,
    split_table,
    table_sql,
    written,
)
from fabric.database.postgresql_connect import class_of, columns_of, is_trouble, relation_of
from fabric.database.postgresql_state import give_up_snapshots
from fabric.database.postgresql_types import ServerColumn, TypeInfo, Unfit, fields_of, made_type
from fabric.model.change import Row
from fabric.model.errors import Reason, UsageError
from fabric.ports import Target

_UNIQUE = """
SELECT array_agg(a.attname::text) AS names, bool_or(EXISTS (
        SELECT FROM pg_catalog.pg_collation c
        WHERE c.oid = ANY (i.indcollation) AND NOT c.collisdeterministic)) AS is_folding
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1::oid AND i.indisunique AND i.indimmediate AND i.indisvalid
    AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = i.indnatts
GROUP BY i.indexrelid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """One dataset's table and how to write it.

    Attributes:
        name: quoted `schema.table`.
        columns: in the schema's order.
        key: how to read the key columns back.
        seen, owned: our own tables beside it: keys of the running snapshot by stream, and
            keys whose row belongs to another origin than the dataset's first.
        staging: the temporary table of the connection.
    """

    target: Target
    name: str
    columns: tuple[Written, ...]
    key: tuple[Selected, ...]
    seen: str
    owned: str
    staging: str

    def places(self, names: Sequence[str]) -> list[int]:
        """Where these fields stand in `columns`."""
        fields = self.target.schema.fields
        return [fields.index(name) for name in names]

    def arrays(self, places: Sequence[int]) -> str:
        """The source `v` made of array parameters $1, $2, …"""
        marks = ", ".join(f"${n}::{self.columns[p].wire}[]" for n, p in enumerate(places, 1))
        names = ", ".join(f"c{place}" for place in places)
        return f"unnest({marks}) AS v ({names})"

    def staged(self) -> str:
        """The source `v` that a COPY has filled."""
        return f"pg_temp.{self.staging} AS v"

    def value(self, place: int) -> str:
        """The expression that turns a sent value into the column's."""
        return self.columns[place].sql.format(f"v.c{place}")

    def upsert(self, source: str) -> str:
        """Insert whole rows or overwrite them."""
        schema = self.target.schema
        names = ", ".join(map(quoted, schema.fields))
        values = ", ".join(map(self.value, range(len(self.columns))))
        key = ", ".join(map(quoted, schema.key))
        sets = ", ".join(
            f"{quoted(name)} = excluded.{quoted(name)}"
            for name in schema.fields
            if name not in schema.key
        )
        then = f"UPDATE SET {sets}" if sets else "NOTHING"
        return (
            f"INSERT INTO {self.name} ({names}) OVERRIDING SYSTEM VALUE"  # noqa: S608  # quoted
            f" SELECT {values} FROM {source} ON CONFLICT ({key}) DO {then}"
        )

    def update(self, source: str, absent: Sequence[str]) -> str:
        """Update the columns that are there, of rows that exist."""
        schema = self.target.schema
        present = [n for n in schema.fields if n not in absent and n not in schema.key]
        # A row whose key alone came must still be found, so the key is set to itself.
        names = present or schema.key[:1]
        places = self.places(names)
        sets = ", ".join(
            f"{quoted(name)} = {self.value(place)}"
            for name, place in zip(names, places, strict=True)
        )
        return f"UPDATE {self.name} AS t SET {sets} FROM {source} WHERE {self._same('t')}"  # noqa: S608  # quoted

    def delete(self, source: str) -> str:
        """Delete rows by key."""
        return f"DELETE FROM {self.name} AS t USING {source} WHERE {self._same('t')}"  # noqa: S608  # quoted

    def see(self, source: str, stream: int) -> str:
        """Remember keys of the running snapshot of a stream."""
        return (
            f"INSERT INTO {self.seen} SELECT {stream}, {self._key_values()} FROM {source}"  # noqa: S608  # quoted
            " ON CONFLICT DO NOTHING"
        )

    def own(self, source: str, mark: str) -> str:
        """Say that rows belong to the origin given as parameter `mark`."""
        key = ", ".join(map(quoted, self.target.schema.key))
        return (
            f"INSERT INTO {self.owned} SELECT {mark}::text, {self._key_values()} FROM {source}"  # noqa: S608  # quoted
            f" ON CONFLICT ({key}) DO UPDATE SET fabric_origin = excluded.fabric_origin"
        )

    def disown(self, source: str) -> str:
        """Say that rows belong to nobody else."""
        return f"DELETE FROM {self.owned} AS t USING {source} WHERE {self._same('t')}"  # noqa: S608  # quoted

    def mine(self, *, is_first: bool, is_shared: bool) -> str:
        """The condition on `t` for rows of the origin $1; $1 is always used."""
        owned = f"EXISTS (SELECT FROM {self.owned} AS o WHERE {self.match('o')}"
        if not is_first:
            return f"{owned} AND o.fabric_origin = $1::text)"
        return f"$1::text IS NOT NULL AND NOT {owned})" if is_shared else "$1::text IS NOT NULL"

    def unseen(self, stream: int) -> str:
        """The condition on `t` for rows that the running snapshot has not met."""
        return (
            f"NOT EXISTS (SELECT FROM {self.seen} AS s WHERE s.fabric_stream = {stream}"
            f" AND {self.match('s')})"
        )

    def keys(self) -> str:
        """The key columns of `t`, as `key` reads them."""
        return ", ".join(column.sql for column in self.key)

    def key_rows(self, records: Sequence[Any]) -> list[Row]:
        """Key rows from what selecting `keys()` gave."""
        return rows_of(self.key, records)

    def _key_values(self) -> str:
        return ", ".join(map(self.value, self.places(self.target.schema.key)))

    def _same(self, alias: str) -> str:
        key = self.target.schema.key
        return " AND ".join(
            f"{alias}.{quoted(name)} = {self.value(place)}"
            for name, place in zip(key, self.places(key), strict=True)
        )

    def match(self, alias: str) -> str:
        """The condition that the keys of `alias` and `t` are the same."""
        return " AND ".join(f"{alias}.{quoted(n)} = t.{quoted(n)}" for n in self.target.schema.key)


async def prepare(
    connection: "asyncpg.Connection[Any]",
    target: Target,
    number: int,
    types: Mapping[int, TypeInfo],
) -> TargetTable:
    """Make the table or check it, and our own tables beside it.

    Args:
        number: of the dataset in this database, names our tables.

    Raises:
        UsageError: TARGET_UNFIT, with column and remedy.
    """
    fit = await check_table(connection, target, types)
    if fit is None:
        await _make(connection, target)
        fit = await check_table(connection, target, types)
    assert fit is not None
    by_name = {field.name: field for field in fields_of(target.schema)}
    made = TargetTable(
        target=target,
        name=table_sql(target.table),
        columns=fit.writing,
        key=tuple(key_selected(by_name[n], fit.columns[n]) for n in target.schema.key),
        seen=f"fabric.seen_{number}",
        owned=f"fabric.owned_{number}",
        staging=f"fabric_in_{number}",
    )
    await _make_ours(connection, made, fit.columns)
    await _forget_if_unfilled(connection, made)
    if await _retype(connection, made, made.seen, (fit.columns, types)):
        await give_up_snapshots(connection, target.topic)
    await _retype(connection, made, made.owned, (fit.columns, types))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTable:
    """A table that is there and can be written: how, in the schema's order, and its columns."""

    writing: tuple[Written, ...]
    columns: Mapping[str, ServerColumn]


async def check_table(
    connection: "asyncpg.Connection[Any]", target: Target, types: Mapping[int, TypeInfo]
) -> FitTable | None:
    """See that a table can be written as its dataset; None when it is to be made. Changes nothing.

    Raises:
        UsageError: TARGET_UNFIT, with column and remedy.
    """
    found = await relation_of(connection, *split_table(target.table))
    if found is None:
        await _demand_new(connection, target)
        return None
    relation, kind = found
    if kind not in ("r", "p"):
        _unfit(target, "it is not a table")
    columns = await columns_of(connection, relation, types)
    writing: list[Written] = []
    for field in fields_of(target.schema):
        column = columns.get(field.name)
        if column is None:
            _unfit(target, f"it has no column {field.name}; add it or let us make the table")
        try:
            writing.append(written(field, column))
            if field.name in target.schema.key:
                demand_exact_key(field, column, ROUNDING)
        except Unfit as exc:
            _unfit(target, f"column {field.name}: {exc}")
        if field.nullable and not column.nullable:
            _unfit(target, f"column {field.name}: the field may be null; DROP NOT NULL")
    for column in columns.values():
        free = column.nullable or column.has_default or column.generated
        if column.name not in target.schema.fields and not free:
            _unfit(target, f"column {column.name} is not in the schema; give it a default")
    unique = await connection.fetch(_UNIQUE, relation)
    of_key = [each for each in unique if set(each["names"]) == set(target.schema.key)]
    if not of_key:
        listed = ", ".join(target.schema.key)
        _unfit(target, f"it has no primary key or unique index on exactly ({listed})")
    if any(each["is_folding"] for each in of_key):
        _unfit(target, "a unique index on its key has a collation that is not deterministic")
    return FitTable(writing=tuple(writing), columns=columns)


async def _demand_new(connection: "asyncpg.Connection[Any]", target: Target) -> None:
    """Refuse to make a table whose rows were applied: the states say that they are in it."""
    if await states.is_filled(connection, target.topic):
        _unfit(
            target,
            "it is gone, and its rows were applied and will not come again; put it back, or stop"  # noqa: S608  # a message
            " the agents and let it be filled anew:"
            f" DELETE FROM fabric.streams WHERE topic = '{target.topic}'",
        )


async def _make(connection: "asyncpg.Connection[Any]", target: Target) -> None:
    schema = split_table(target.table)[0]
    exists = await connection.fetchval(
        "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1", schema
    )
    parts = [
        f"{quoted(field.name)} {made_type(field)}{'' if field.nullable else ' NOT NULL'}"
        for field in fields_of(target.schema)
    ]
    parts.append(f"PRIMARY KEY ({', '.join(map(quoted, target.schema.key))})")
    try:
        if not exists:
            await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        await connection.execute(f"CREATE TABLE {table_sql(target.table)} ({', '.join(parts)})")
    except asyncpg.InsufficientPrivilegeError as exc:
        raise UsageError(
            Reason.TARGET_UNFIT,
            f"table {target.table}: it does not exist and the role may not make it; GRANT CREATE"
            f" ON SCHEMA {schema}",
        ) from exc


async def _make_ours(
    connection: "asyncpg.Connection[Any]", table: TargetTable, columns: Mapping[str, ServerColumn]
) -> None:
    key = table.target.schema.key
    parts = ", ".join(f"{quoted(n)} {columns[n].sql_type} NOT NULL" for n in key)
    names = ", ".join(map(quoted, key))
    await connection.execute(
        f"CREATE TABLE IF NOT EXISTS {table.seen} (fabric_stream bigint NOT NULL, {parts},"
        f" PRIMARY KEY (fabric_stream, {names}))"
    )
    await connection.execute(
        f"CREATE TABLE IF NOT EXISTS {table.owned} (fabric_origin text NOT NULL, {parts},"
        f" PRIMARY KEY ({names}))"
    )


async def _forget_if_unfilled(connection: "asyncpg.Connection[Any]", table: TargetTable) -> None:
    """Keep nothing of an earlier filling: whose rows those were says nothing of the next ones.

    Another sink may take such a row over meanwhile, and a DELETE that waits for it would not
    ask for the states again. So nobody writes while we look, and what is filled locks nothing.
    Owners come first, as with nearly every writer; the server ends any other embrace, and both
    come again.
    """
    if await states.is_filled(connection, table.target.topic):
        return
    for name in (table.owned, table.seen):
        await connection.execute(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute(
            f"DELETE FROM {name} WHERE NOT EXISTS"  # noqa: S608  # ours
            " (SELECT FROM fabric.streams AS s WHERE s.topic = $1)",
            str(table.target.topic),
        )


async def _retype(
    connection: "asyncpg.Connection[Any]",
    table: TargetTable,
    name: str,
    known: tuple[Mapping[str, ServerColumn], Mapping[int, TypeInfo]],
) -> bool:
    """Give a table of ours the target's key types, where it was made with others.

    Args:
        known: the target's columns, and the types of the database.

    Returns:
        Whether it had others: then it may lack keys that did not fit.

    Raises:
        UsageError: TARGET_UNFIT, what it keeps cannot be turned into them.
    """
    columns, types = known
    found = await relation_of(connection, *split_table(name))
    assert found is not None
    ours = await columns_of(connection, found[0], types)
    wanted = {n: columns[n].sql_type for n in table.target.schema.key if n in ours}
    parts = [
        f"ALTER COLUMN {quoted(n)} TYPE {sql_type} USING {quoted(n)}::text::{sql_type}"
        for n, sql_type in wanted.items()
        if (ours[n].sql_type, ours[n].typmod) != (sql_type, -1)
    ]
    if not parts:
        return False
    try:
        await connection.execute(f"ALTER TABLE {name} {', '.join(parts)}")
    except asyncpg.PostgresError as exc:
        if is_trouble(exc):
            raise
        raise UsageError(
            Reason.TARGET_UNFIT,
            f"table {table.target.table}: {name} holds keys that its key columns cannot:"
            f" {class_of(exc)}; DROP it once no snapshot runs and no other origin fills the table",
        ) from None  # the cause may quote a key
    return True


def _unfit(target: Target, why: str) -> NoReturn:
    raise UsageError(Reason.TARGET_UNFIT, f"table {target.table}: {why}")
