"""The quick way of a small block: state and rows in one statement, one trip to the server.

Most blocks only insert or overwrite a few rows of a stream in no special state. For them one
statement moves the stream's state and, only if it moved, writes the rows; the server makes it
one transaction. Whatever else the block or the stream holds, nothing is written, and the long
way decides.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg

from fabric.database.postgresql_reduce import reduce, whole
from fabric.database.postgresql_state import NONE, PLAIN_MOVE, move_values
from fabric.database.postgresql_tables import TargetTable
from fabric.database.postgresql_write import COPY_ROWS_MIN, columns_of_rows
from fabric.model.block import Block
from fabric.model.change import Op, Row
from fabric.ports import StreamState


def rows_of(block: Block, table: TargetTable) -> Sequence[Row] | None:
    """The rows to write, each key once; None when the block is not for the quick way."""
    if not 0 < block.count < COPY_ROWS_MIN:
        return None
    if any(run.op is not Op.UPSERT or run.absent for run in block.runs):
        return None
    return reduce([whole(run) for run in block.runs], table.target.schema.key).upserts


def statement(table: TargetTable) -> str:
    """The statement: the columns' arrays are its first parameters, then `move_values`."""
    places = range(len(table.columns))
    source = f"{table.arrays(places)} WHERE EXISTS (SELECT FROM moved)"
    move = PLAIN_MOVE.format(*(f"${len(table.columns) + n}" for n in range(1, 16)), none=NONE)
    return f"WITH moved AS ({move}), wrote AS ({table.upsert(source)}) SELECT incomplete FROM moved"  # noqa: S608  # quoted


async def apply(
    connection: "asyncpg.Connection[Any]",
    text: str,
    *,
    table: TargetTable,
    rows: Sequence[Row],
    block: Block,
    expected: StreamState,
    new: StreamState,
) -> bool | None:
    """Move the stream from `expected` to `new` and write `rows`.

    Args:
        text: the table's `statement`.

    Returns:
        Whether the stream's dataset is incomplete; None when nothing was done, because the
        stream is elsewhere or in a state that needs the long way.

    Raises:
        ValueError, KeyError, TypeError, asyncpg.PostgresError: a value does not fit; nothing
            was done.
    """
    values = columns_of_rows(table, table.target.schema.fields, rows)
    record = await connection.fetchrow(text, *values, *move_values(block.stream, expected, new))
    return None if record is None else bool(record["incomplete"])
