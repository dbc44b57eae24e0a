"""A target's table in SQLite: made or checked, and the statements that write it."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fabric.database import sqlite_state as states
from fabric.database.sqlite_capture import COLLATION_REMEDY, TableShape, is_collated, shape_of
from fabric.database.sqlite_thread import quote
from fabric.database.sqlite_values import (
    Column,
    RowReader,
    SqlValue,
    affinity,
    columns_of,
    row_tuple,
)
from fabric.model.change import Row
from fabric.model.errors import FabricError, Reason, UsageError
from fabric.model.partition import key_bytes, partition_of
from fabric.ports import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """SQL with the function that makes its parameters from a row."""

    sql: str
    values: Callable[[Row], tuple[SqlValue, ...]]


class TargetTable:
    """One table that a dataset is written to, with its side tables.

    Beside the table stand `fabric_seen_<table>`, keys seen since a snapshot began, by
    origin and partition, and `fabric_owned_<table>`, keys of rows that are not of the
    dataset's first origin: empty, and free, as long as one origin fills the dataset.
    """

    def __init__(self, target: Target, shape: TableShape | None) -> None:
        self.target = target
        self.columns = columns_of(target.schema, shape.columns if shape else {})
        by_name = {column.name: column for column in self.columns}
        self._key = tuple(by_name[name] for name in target.schema.key)
        self.name = quote(target.table)
        self.seen = quote(f"fabric_seen_{target.table}")
        self.owned = quote(f"fabric_owned_{target.table}")
        keys = [quote(column.name) for column in self._key]
        self.key_list = ", ".join(keys)
        declared = shape.columns if shape else {c.name: c.sql_type for c in self._key}
        typed = [f"{quote(c.name)} {declared.get(c.name, '')}" for c in self._key]
        self._typed_key = ", ".join(typed)
        marks = ", ".join("?" * len(keys))
        key_values = row_tuple(self._key)
        where = " AND ".join(f"{name} = ?" for name in keys)
        self.delete = Statement(sql=f"DELETE FROM {self.name} WHERE {where}", values=key_values)  # noqa: S608  # quoted
        self.see = f"INSERT OR IGNORE INTO {self.seen} VALUES (?, ?, {marks})"  # noqa: S608  # quoted
        self.own = f"INSERT OR REPLACE INTO {self.owned} VALUES (?, {marks})"  # noqa: S608  # quoted
        self.disown = f"DELETE FROM {self.owned} WHERE {where}"  # noqa: S608  # quoted
        self.key_values = key_values
        self._upserts: dict[tuple[str, ...], tuple[Statement, Statement | None]] = {}

    @property
    def ddl(self) -> tuple[str, ...]:
        """The statements that make the table as the schema says, when it is absent."""
        columns = ", ".join(
            f"{quote(c.name)} {c.sql_type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns
        )
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, PRIMARY KEY ({self.key_list}))",
        )

    @property
    def side_ddl(self) -> tuple[str, ...]:
        """The statements that make the side tables.

        Their key columns have the types of the table's own: SQLite uses an index only
        between columns of one affinity.
        """
        key = self.key_list
        return (
            f"CREATE TABLE IF NOT EXISTS {self.seen} (origin INTEGER, part INTEGER,"
            f" {self._typed_key}, PRIMARY KEY (origin, part, {key})) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {self.owned} (origin INTEGER, {self._typed_key},"
            f" PRIMARY KEY ({key})) WITHOUT ROWID",
        )

    def upsert(self, absent: tuple[str, ...]) -> tuple[Statement, Statement | None]:
        """The insert-or-update of a row without `absent` columns.

        With absent columns an update comes first (second item): SQLite checks NOT NULL
        of an insert before it looks for the conflict.
        """
        if absent not in self._upserts:
            self._upserts[absent] = self._make_upsert(absent)
        return self._upserts[absent]

    def _make_upsert(self, absent: tuple[str, ...]) -> tuple[Statement, Statement | None]:
        present = tuple(c for c in self.columns if c.name not in absent)
        rest = tuple(c for c in present if c not in self._key)
        names = ", ".join(quote(c.name) for c in present)
        marks = ", ".join("?" * len(present))
        sets = ", ".join(f"{quote(c.name)} = excluded.{quote(c.name)}" for c in rest)
        action = f"UPDATE SET {sets}" if sets else "NOTHING"
        insert = Statement(
            sql=f"INSERT INTO {self.name} ({names}) VALUES ({marks})"  # noqa: S608  # quoted
            f" ON CONFLICT ({self.key_list}) DO {action}",
            values=row_tuple(present),
        )
        if not absent or not rest:
            return insert, None
        assign = ", ".join(f"{quote(c.name)} = ?" for c in rest)
        where = " AND ".join(f"{quote(c.name)} = ?" for c in self._key)
        update = Statement(
            sql=f"UPDATE {self.name} SET {assign} WHERE {where}",  # noqa: S608  # quoted
            values=row_tuple(rest + self._key),
        )
        return insert, update

    def of_stream(self, is_first: bool) -> str:
        """SQL condition on `t`: the row is of this origin (:origin) and partition (:part)."""
        same = " AND ".join(f"w.{quote(c.name)} = t.{quote(c.name)}" for c in self._key)
        held = f"SELECT 1 FROM {self.owned} AS w WHERE {same}"  # noqa: S608  # quoted
        if is_first:
            condition = f"NOT EXISTS ({held})"
        else:
            condition = f"EXISTS ({held} AND w.origin = :origin)"
        if self.target.partitions == 1:
            return condition
        keys = ", ".join(f"t.{quote(c.name)}" for c in self._key)
        return f"{condition} AND {self._function}({keys}) = :part"

    def unseen(self) -> str:
        """SQL condition on `t`: the snapshot did not name this key."""
        same = " AND ".join(f"s.{quote(c.name)} = t.{quote(c.name)}" for c in self._key)
        return (
            f"NOT EXISTS (SELECT 1 FROM {self.seen} AS s"  # noqa: S608  # quoted
            f" WHERE s.origin = :origin AND s.part = :part AND {same})"
        )

    @property
    def _function(self) -> str:
        return quote(f"fabric_partition_{self.target.table}")

    def register(self, connection: sqlite3.Connection) -> None:
        """Give SQL the partition of a key; -1 for a key that is not of the schema."""
        if self.target.partitions == 1:
            return
        reader, target = RowReader(self._key), self.target

        @lru_cache(maxsize=1024)
        def partition(*values: Any) -> int:
            try:
                key = key_bytes(target.schema, reader.row(values))
            except (ValueError, FabricError):
                return -1
            return partition_of(key, target.salt, target.partitions)

        name = f"fabric_partition_{target.table}"
        connection.create_function(name, len(self._key), partition, deterministic=True)


def prepare(connection: sqlite3.Connection, target: Target) -> TargetTable:
    """Make the table or check it, and make its side tables.

    Raises:
        UsageError: TARGET_UNFIT, with the column and the remedy.
    """
    shape, table = check_table(connection, target)
    try:
        for statement in (() if shape else table.ddl) + table.side_ddl:
            connection.execute(statement)
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        # The text is about these statements, which hold names only.
        raise _unfit(target, f"cannot be made from the dataset's schema ({exc})") from exc
    table.register(connection)
    return table


def check_table(
    connection: sqlite3.Connection, target: Target
) -> tuple[TableShape | None, TargetTable]:
    """See that a table can be written as its dataset; no shape when it is to be made.

    Changes nothing. Raises UsageError TARGET_UNFIT, with the column and the remedy.
    """
    shape = shape_of(connection, target.table)
    if shape is None and _is_taken(connection, target.table):
        raise _unfit(target, "is not an ordinary table; name another one")
    if shape is None and states.is_filled(connection, target.topic):
        # Made empty it would look whole: the states say that its rows are in it.
        raise _unfit(
            target,
            "is gone, and its rows were applied and will not come again; put it back, or stop"  # noqa: S608  # a message
            " the agents and let it be filled anew:"
            f" DELETE FROM fabric_streams WHERE topic = '{target.topic}'",
        )
    table = TargetTable(target, shape)
    if shape is not None:
        _check(table, shape)
        if is_collated(connection, target.table, shape, target.schema.key):
            raise _unfit(target, f"its key compares with a collation; {COLLATION_REMEDY}")
    return shape, table


def _is_taken(connection: sqlite3.Connection, name: str) -> bool:
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return row is not None


def _check(table: TargetTable, shape: TableShape) -> None:
    target = table.target
    for column in table.columns:
        _check_column(target, column, shape)
    key = frozenset(target.schema.key)
    if key not in shape.keys:
        names = ", ".join(target.schema.key)
        raise _unfit(target, f"nothing makes the key unique; add a unique index on ({names})")
    left_out = shape.required - shape.defaulted - shape.generated - set(target.schema.fields)
    if left_out:
        raise _unfit(
            target,
            f"column {min(left_out)} is not in the dataset and NOT NULL; give it a default",
        )


def _check_column(target: Target, column: Column, shape: TableShape) -> None:
    name, declared = column.name, shape.columns.get(column.name)
    if declared is None:
        raise _unfit(
            target,
            f"column {name} is missing; ALTER TABLE {target.table} ADD COLUMN {name}"
            f" {column.sql_type}",
        )
    if name in shape.generated:
        raise _unfit(target, f"column {name} is generated; make it an ordinary column")
    if affinity(declared) not in column.affinities:
        raise _unfit(
            target,
            f"column {name} is {declared} and would change values; make it {column.sql_type}",
        )
    if column.nullable and name in shape.required:
        raise _unfit(target, f"column {name} is NOT NULL but may be null; drop the constraint")


def _unfit(target: Target, message: str) -> UsageError:
    return UsageError(Reason.TARGET_UNFIT, f"table {target.table}: {message}")
