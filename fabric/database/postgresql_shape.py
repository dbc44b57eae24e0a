"""What the log says of a captured table's shape, held against the table as it is now.

The log describes rows by the catalog of their own time. Rows that were committed before the
source opened may so lack a column that was added since, or have a type that is gone; no
change of the table mends that.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_connect import translated
from fabric.database.postgresql_types import Unfit
from fabric.model.change import Value
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError
from fabric.ports import SourceTable

_NAMES = """
SELECT attrelid AS relation, array_agg(attname::text ORDER BY attnum) AS names,
    coalesce(array_agg(attname::text) FILTER (WHERE atthasmissing), '{}') AS filled
FROM pg_catalog.pg_attribute
WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped GROUP BY attrelid
"""

_ANEW = "the log holds rows from before; drop the replication slot, so that all is read anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the source saw when it opened.

    Attributes:
        before: end of the log before it looked: what was committed below is older.
        names: by object id of a table, its columns in the order in which they were added.
        filled: likewise those that gave every row of then a value, which the log does not hold.
    """

    before: int
    names: Mapping[int, Sequence[str]]
    filled: Mapping[int, Collection[str]]


NOTHING_KNOWN = Known(before=0, names={}, filled={})


async def end_of_log(connection: "asyncpg.Connection[Any]") -> int:
    """Where the log ends; to be asked before anything else is looked at."""
    return wire.parse_lsn(
        await connection.fetchval("SELECT pg_catalog.pg_current_wal_insert_lsn()::text")
    )


async def known_of(
    connection: "asyncpg.Connection[Any]", relations: Collection[int], before: int
) -> Known:
    """Look at tables by object id; raises UnavailableError DATABASE_UNAVAILABLE."""
    with translated("look at the tables' columns"):
        records = await connection.fetch(_NAMES, [*relations])
    return Known(
        before=before,
        names={each["relation"]: each["names"] for each in records},
        filled={each["relation"]: each["filled"] for each in records},
    )


def is_added(known: Known, relation: wire.Relation, name: str) -> bool:
    """Whether a column that `relation` lacks was added, empty, after the table had this shape.

    A column that was renamed must not read as null. Renaming keeps a column's place, and a new
    one comes after all others: so every old name must still be there, and before it.
    """
    names = [*known.names.get(relation.oid, ())]
    old = {column.name for column in relation.columns}
    if name not in names or name in known.filled[relation.oid] or not old <= {*names}:
        return False
    return all(names.index(each) < names.index(name) for each in old)


def check_identity(table: SourceTable, relation: wire.Relation) -> None:
    """The log must name a row by the schema's key, or updates and deletes go astray."""
    keyed = {column.name for column in relation.columns if column.is_key}
    wanted = set(table.schema.key)
    if relation.identity == "f":
        return
    if relation.identity == "n" or keyed != wanted:
        raise DeniedError(
            Reason.SCHEMA_MISMATCH,
            f"table {table.table}: its replica identity is not the dataset's key; make"
            f" ({', '.join(table.schema.key)}) the primary key or the replica identity",
        )


def mismatch(table: SourceTable, column: str, why: str, *, is_old: bool = False) -> FabricError:
    """A row or a shape does not fit the schema; where it is an old one, what ends that."""
    told = f"{why}; {_ANEW}" if is_old else why
    return DeniedError(Reason.SCHEMA_MISMATCH, f"table {table.table} column {column}: {told}")


def type_gone(table: SourceTable, column: str) -> FabricError:
    """A type that old rows have was dropped, so that nobody can tell any more what it was."""
    return DeniedError(
        Reason.SOURCE_UNFIT, f"table {table.table} column {column}: its type is gone, and {_ANEW}"
    )


def type_new(what: str) -> FabricError:
    """A type that was made after the source had opened."""
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE, f"{what} has a new type; the source must open again"
    )


def text_only(table: SourceTable, column: str, is_old: bool, _raw: bytes) -> Value:
    """Read a binary value of a column whose type has no binary form of ours.

    Raises:
        DeniedError: SCHEMA_MISMATCH, of an old row: to open again would ask for binary again.
        UnavailableError: the source must open again.
    """
    if is_old:
        raise mismatch(table, column, "it had another type", is_old=True)
    raise type_new("a column")


def why(exc: Exception) -> str:
    """The cause in words of ours; the interpreter's own messages may quote a value."""
    return str(exc) if type(exc) is Unfit else "a value does not fit the schema"
