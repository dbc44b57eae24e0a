"""Changes as they lie in the outbox's file until they are sent."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fabric.database import sqlite_schemas as schemas
from fabric.database.datum import decode_change
from fabric.model.change import Change
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.limits import BLOCK_VALUES_MAX
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable

Room: TypeAlias = Callable[[Change], None]
"""Raises DeniedError TOO_LARGE for a change that nothing holds, not even alone.

The text goes on from the change's name: "is 2000000 bytes, more than one block holds".
"""
_SMALL_BYTES_MAX = 100_000
"""Far below what a block or an open record holds, whatever stands around the row."""
_LOOKS_MAX = 500
"""Waiting changes that are looked at: whichever stops the others is near the front."""
_COLUMNS = "SELECT id, topic, commit_us, datum, schema FROM fabric_outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One change; `by` is None when it is from before schemas were kept."""

    id: int
    topic: str
    commit_us: int
    datum: bytes = field(repr=False)
    by: str | None


def small_bytes(schema: RowSchema) -> int:
    """A change whose datum is no longer than this always fits, and need not be packed."""
    text = repr(schema.declared)
    if "'array'" not in text and "'map'" not in text:  # no row has more values than its type
        return _SMALL_BYTES_MAX
    return min(_SMALL_BYTES_MAX, BLOCK_VALUES_MAX // schema.nodes - 1)


def page(connection: sqlite3.Connection, *, after: int, rows_max: int) -> list[Waiting]:
    """What waits behind the change `after`, in order."""
    found = connection.execute(f"{_COLUMNS} WHERE id > ? ORDER BY id LIMIT ?", (after, rows_max))
    rows = found.fetchall()
    by = schemas.texts(connection, {row[4] for row in rows})
    return [
        Waiting(id=ident, topic=topic, commit_us=commit_us, datum=datum, by=by.get(schema))
        for ident, topic, commit_us, datum, schema in rows
    ]


def large(
    connection: sqlite3.Connection, tables: Mapping[str, SourceTable]
) -> Iterator[tuple[Waiting, SourceTable]]:
    """The first changes of these topics that may be too large, one at a time, in order.

    None of a file from before schemas were kept: its agent adds their column as it starts.
    """
    columns = connection.execute("SELECT name FROM pragma_table_info('fabric_outbox')").fetchall()
    if ("schema",) not in columns:
        return
    small = {topic: small_bytes(table.schema) for topic, table in tables.items()}
    left = _LOOKS_MAX
    sizes = connection.execute("SELECT id, topic, length(datum) FROM fabric_outbox ORDER BY id")
    for ident, topic, size in sizes:
        if size <= small.get(topic, size):
            continue
        for row in page(connection, after=ident - 1, rows_max=1):
            yield row, tables[topic]
        left -= 1
        if not left:
            return


def change_of(row: Waiting, table: SourceTable, generation: int = 0) -> Change:
    """The change under the sequence it travels under; raises Malformed as `decode_change`."""
    change = decode_change(row.datum, table.schema, table.topic, by=row.by)
    return change._replace(sequence=ChangeSequence(generation, row.id, 1), commit_us=row.commit_us)
