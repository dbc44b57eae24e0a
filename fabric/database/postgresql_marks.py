"""A connection of its own for a block whose marks touch many rows, in one transaction.

To empty a table, or to remove what a snapshot has not met, may take the server hours. The
sink's own connection serves every topic, within a deadline after which a server is taken
for gone; so such a block goes apart, and the others go on beside it. It may take as long as
it takes, because what is given up begins anew from nothing: instead of a deadline, the
server is asked again and again, over a second connection, whether it still works for us.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from fabric.database import postgresql_origin as origins
from fabric.database.postgresql_connect import connect, sent_code, shut, translated
from fabric.database.postgresql_tables import TargetTable
from fabric.database.postgresql_write import make_staging
from fabric.model.block import Block
from fabric.model.change import Op
from fabric.model.errors import FabricError, Reason, UnavailableError

_LOG = logging.getLogger(__name__)
MARKS_S_MAX = 30 * 86_400.0
"""Deadline of each statement of such a block; no server works longer at one."""
CONNECTIONS = 2
"""What each such block takes beside the sink's: one writes it, and one watches."""
_LOOK_S = 20.0
_SILENT_S = 180.0
"""So long after the last sign that the server works for us the block is given up."""
_LONG_S = 6 * 3600.0
"""After each such time the log says that a mark takes long, and what may be the matter."""
_SETTINGS = {
    # A row that an application holds for a while must not cost the work of hours.
    "lock_timeout": "600000",
    "statement_timeout": "0",
}
_USED_UP = "53300"
"""SQLSTATE of a server, a database or a role without a free connection."""
_LONG = frozenset({Op.TRUNCATE, Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END})
# Servers before 14 do not have it. Without it a statement goes on after its agent is gone, with
# the stream's row locked, until it comes to its end.
_WATCH = (
    "SELECT pg_catalog.set_config(name, '10s', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'client_connection_check_interval'"
)
_SESSION = """
SELECT pid, backend_start::text AS began FROM pg_catalog.pg_stat_activity
WHERE pid = pg_catalog.pg_backend_pid()
"""
_WORKS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
    WHERE pid = $1 AND backend_start::text = $2)
"""


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
        UnavailableError: DATABASE_UNAVAILABLE; NOT_READY, no replication origin is free, or
            not the two connections that this takes.
    """
    connection: asyncpg.Connection[Any] | None = None
    look = _Look(url)
    with translated("apply a block with marks", data_passes=True):
        async with asyncio.timeout(_SILENT_S) as deadline:
            try:
                with _counted():
                    connection = await connect(url, _SETTINGS, statement_s=MARKS_S_MAX)
                    await look.open()
                if await origins.take(connection) is None and has_origin:
                    raise UnavailableError(
                        Reason.NOT_READY, "no replication origin is free for a block with marks"
                    )
                await connection.execute(_WATCH)
                await make_staging(connection, table)
                session = await connection.fetchrow(_SESSION)
                async with _beside(_watch(look, tuple(session or ()), table, deadline)):
                    yield connection
            except BaseException:
                # A statement may still run; closing in good order would wait for it.
                if connection is not None:
                    connection.terminate()
                raise
            finally:
                look.close()
            await shut(connection)


@contextmanager
def _counted() -> Iterator[None]:
    """Say what a block with marks takes where no connection is free."""
    try:
        yield
    except UnavailableError as exc:
        if sent_code(exc) != _USED_UP:
            raise
        # The sink's own connection is well.
        raise UnavailableError(
            Reason.NOT_READY,
            "a block with marks takes two connections more than the target has free: raise"
            " max_connections, or the CONNECTION LIMIT of the role or the database",
        ) from None


class _Look:
    """A second connection, over which the server says whether it works over the first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection[Any] | None = None

    async def open(self) -> None:
        """Connect; raises as `connect`."""
        self._connection = await connect(self._url)

    async def works(self, session: tuple[int, str]) -> bool:
        """Whether the server has a session, or at least answers; it may refuse us a look."""
        try:
            with translated("look at a block with marks"):
                async with asyncio.timeout(_LOOK_S):
                    if self._connection is None:
                        await self.open()
                    assert self._connection is not None
                    return bool(await self._connection.fetchval(_WORKS, *session))
        except FabricError as exc:
            self.close()
            return sent_code(exc) is not None

    def close(self) -> None:
        """End the connection; `works` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


@asynccontextmanager
async def _beside(watch: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a watch, which raises nothing, beside what is done within; that may raise as it does."""
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch)
            yield
            watching.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _watch(
    look: _Look, session: tuple[int, str], table: TargetTable, deadline: asyncio.Timeout
) -> None:
    """Put a deadline off, for ever, while the server has our session."""
    began, told = time.monotonic(), 0
    while True:
        await asyncio.sleep(_LOOK_S)
        if await look.works(session) and not deadline.expired():
            deadline.reschedule(asyncio.get_running_loop().time() + _SILENT_S)
        told = _tell(table, time.monotonic() - began, told)


def _tell(table: TargetTable, took_s: float, told: int) -> int:
    """Say that a mark takes long, once each `_LONG_S`; how often that was said."""
    if took_s < (told + 1) * _LONG_S:
        return told
    _LOG.warning(
        "the server has been removing rows of table %s for %.0f h; let it end, and see whether the"
        " foreign keys that refer to the table have an index, and what its triggers do; see"
        " docs/runbooks/ConsumerStalled.md",
        table.target.table,
        took_s / 3600,
    )
    return told + 1
