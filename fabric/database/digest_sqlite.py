"""The digest of a SQLite table; reads only."""

import sqlite3

from fabric.database.digest import TableDigest
from fabric.database.registry import sqlite_path
from fabric.database.sqlite_thread import SqliteThread, quote, read_text
from fabric.database.sqlite_values import RowReader, columns_of
from fabric.model.errors import Reason, UsageError
from fabric.model.schema import RowSchema


async def sqlite_digest(url: str, table: str, schema: RowSchema) -> tuple[int, str]:
    """Number of rows and digest of one table; errors as `digest.table_digest`."""
    thread = SqliteThread(sqlite_path(url), create=False, synchronous="NORMAL")
    await thread.open()
    try:
        name = table.removeprefix("main.")
        return await thread.call(lambda c: read_text(c, lambda: _digest(c, name, schema)))
    finally:
        await thread.close()


def _digest(connection: sqlite3.Connection, table: str, schema: RowSchema) -> tuple[int, str]:
    digest = TableDigest(schema)
    reader = RowReader(columns_of(schema, {}))
    names = ", ".join(quote(name) for name in schema.fields)
    for values in connection.execute(f"SELECT {names} FROM {quote(table)}"):  # noqa: S608  # quoted
        try:
            row = reader.row(values)
        except ValueError as exc:
            raise UsageError(
                Reason.SCHEMA_MISMATCH,
                f"table {table}: a value in column {exc} is not of its declared type",
            ) from None
        digest.add(row)
    return digest.count, digest.value
