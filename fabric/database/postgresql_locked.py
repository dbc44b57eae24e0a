"""What a sink does where somebody's lock keeps a block from its table: try again, and say whose.

A try waits briefly, because the sink's connection serves other topics too. Between two tries of
a topic all its streams are refused at once; a long try now and then gets its turn where locks
queue.
"""

import time
from typing import Any

import asyncpg

from fabric.database.postgresql_blockers import lockers, told
from fabric.database.postgresql_tables import TargetTable
from fabric.model.errors import Reason, UnavailableError
from fabric.model.names import Topic

TRY_S = 0.5
LONG_TRY_S = 5.0
"""How long one try of `_LONG_EACH` waits."""
_LONG_EACH = 10
_PAUSE_S = 1.0
PATIENT = "SET LOCAL lock_timeout = '20s'"
"""For a transaction that a person waits for."""


class Locked:
    """The topics of one sink whose tables, or rows of them, somebody holds."""

    def __init__(self) -> None:
        self._tries: dict[Topic, int] = {}
        self._refused: dict[Topic, tuple[float, str]] = {}
        self._set: tuple[object, float] | None = None

    def check(self, topic: Topic) -> None:
        """Raise UnavailableError NOT_READY, as last time, while it is too early for a try."""
        until, why = self._refused.get(topic, (0.0, ""))
        if time.monotonic() < until:
            raise UnavailableError(Reason.NOT_READY, why)

    async def limit(self, connection: "asyncpg.Connection[Any]", topic: Topic) -> None:
        """Set how long the next block of a topic waits for each lock."""
        is_long = self._tries.get(topic, 0) % _LONG_EACH == _LONG_EACH - 1
        wanted = (connection, LONG_TRY_S if is_long else TRY_S)
        if self._set != wanted:
            await connection.execute(f"SET lock_timeout = {round(wanted[1] * 1000)}")
            self._set = wanted

    async def refused(
        self, connection: "asyncpg.Connection[Any]", table: TargetTable
    ) -> UnavailableError:
        """The error of a try that came to nothing: NOT_READY, with who holds what it needs."""
        topic = table.target.topic
        found = await lockers(connection, table.name, ours=(table.seen, table.owned))
        # Who holds a row is known to its waiters only, and we wait no more.
        who = told(found) or "another transaction holds rows of it; see pg_stat_activity"
        why = f"table {table.target.table}: waits for a lock; {who}"
        self._tries[topic] = self._tries.get(topic, 0) + 1
        self._refused[topic] = (time.monotonic() + _PAUSE_S, why)
        return UnavailableError(Reason.NOT_READY, why)

    def passed(self, topic: Topic) -> None:
        """A block of the topic met no lock."""
        self._tries.pop(topic, None)
        self._refused.pop(topic, None)


async def probe(connection: "asyncpg.Connection[Any]", table: TargetTable) -> None:
    """See that nobody locks a table; raises asyncpg.LockNotAvailableError.

    For who is patient afterwards, so that no row held for a while costs long work.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {round(TRY_S * 1000)}")
        await connection.execute(f"LOCK TABLE {table.name} IN ROW EXCLUSIVE MODE")
