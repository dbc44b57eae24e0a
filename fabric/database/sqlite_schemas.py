"""Schemas that stored changes were written with, in the SQLite file that holds the changes.

All functions run on the thread of the file, inside the caller's transaction.
"""

import sqlite3
from collections.abc import Iterable

from fabric.database.datum import written
from fabric.model.schema import RowSchema

_DDL = (
    "CREATE TABLE IF NOT EXISTS fabric_schemas (id BLOB PRIMARY KEY, text TEXT NOT NULL)"
    " WITHOUT ROWID"
)
LOST = ""
"""Stands for a schema that somebody removed: nothing can be read by it."""


def create(connection: sqlite3.Connection, table: str) -> None:
    """Make what is absent, `table`'s column `schema` included.

    Changes from before that column name no schema.

    Args:
        table: one of our own, which exists.
    """
    connection.execute(_DDL)
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    if ("schema",) not in columns:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN schema BLOB")


def keep(connection: sqlite3.Connection, schema: RowSchema) -> bytes:
    """Keep a schema once; the id for the column `schema`."""
    one = written(schema)
    connection.execute("INSERT OR IGNORE INTO fabric_schemas VALUES (?, ?)", (one.id, one.text))
    return one.id


def texts(connection: sqlite3.Connection, ids: Iterable[bytes | None]) -> dict[bytes | None, str]:
    """What `decode_change` takes as `by`; None, the schema of changes from before, has none."""
    found: dict[bytes | None, str] = {}
    for ident in {*ids} - {None}:
        row = connection.execute(
            "SELECT text FROM fabric_schemas WHERE id = ?", (ident,)
        ).fetchone()
        found[ident] = LOST if row is None else row[0]
    return found
