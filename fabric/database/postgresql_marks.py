"""A connection of its own for a block whose marks touch many rows, in one transaction.

To empty a table, or to remove what a snapshot has not met, may take the server hours. The
sink's own connection serves every topic, within a deadline after which a server is taken
for gone; so such a block goes apart, and the others go on beside it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from fabric.database import postgresql_origin as origins
from fabric.database.postgresql_connect import connect, shut, translated
from fabric.database.postgresql_tables import TargetTable
from fabric.database.postgresql_write import make_staging
from fabric.model.block import Block
from fabric.model.change import Op
from fabric.model.errors import Reason, UnavailableError

MARKS_S_MAX = 6 * 3600.0
"""Deadline of one block with such a mark, and of each of its statements."""
_SETTINGS = {
    # A row that an application holds for a while must not cost the work of hours.
    "lock_timeout": "600000",
    "statement_timeout": "0",
}
_LONG = frozenset({Op.TRUNCATE, Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END})
# Servers before 14 do not have it. Without it a statement goes on after its agent is gone, with
# the stream's row locked, until it comes to its end.
_WATCH = (
    "SELECT pg_catalog.set_config(name, '10s', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'client_connection_check_interval'"
)


def has_marks(block: Block) -> bool:
    """Whether a block holds marks that may touch every row of its stream."""
    return any(run.op in _LONG for run in block.runs)


@asynccontextmanager
async def apart(
    url: str, table: TargetTable, *, has_origin: bool
) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Connect, for one block of one table.

    Args:
        has_origin: the sink writes under a replication origin, so this must, too.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE; NOT_READY, no replication origin is free.
    """
    connection: asyncpg.Connection[Any] | None = None
    with translated("apply a block with marks", data_passes=True):
        async with asyncio.timeout(MARKS_S_MAX):
            try:
                connection = await connect(url, _SETTINGS, statement_s=MARKS_S_MAX)
                if await origins.take(connection) is None and has_origin:
                    raise UnavailableError(
                        Reason.NOT_READY, "no replication origin is free for a block with marks"
                    )
                await connection.execute(_WATCH)
                await make_staging(connection, table)
                yield connection
            except BaseException:
                # A statement may still run; closing in good order would wait for it.
                if connection is not None:
                    connection.terminate()
                raise
            await shut(connection)
