"""What a sink does where somebody's lock keeps a block from its table: try again, and say whose.

A try waits briefly, because the sink's connection serves other topics too. Where nobody locks a
table, somebody holds rows: applications write them in turn, and who leaves that queue never
has a turn. So the block queues at once again, for longer. Between two tries of a topic all its
streams are refused at once, and the other topics have the connection.
"""

import time
from typing import Any

import asyncpg

from fabric.database.postgresql_blockers import Blocker, lockers, told
from fabric.database.postgresql_tables import TargetTable
from fabric.model.errors import Reason, UnavailableError
from fabric.model.names import Topic

TRY_S = 0.5
ROW_S = 5.0
"""How long a block queues for each row; twice as long after each time in vain."""
ROW_S_MAX = 20.0
_PAUSE_S = 1.0
PATIENT = "SET LOCAL lock_timeout = '20s'"
"""For a transaction that a person waits for."""


class Locked:
    """The topics of one sink whose tables, or rows of them, somebody holds."""

    def __init__(self) -> None:
        self._rows: dict[Topic, float] = {}  # held ones: how long to queue for each
        self._began: dict[Topic, float] = {}
        self._refused: dict[Topic, tuple[float, str]] = {}
        self._set: tuple[object, float] | None = None

    def check(self, topic: Topic) -> None:
        """Raise UnavailableError NOT_READY, as last time, while it is too early for a try."""
        until, why = self._refused.get(topic, (0.0, ""))
        if time.monotonic() < until:
            raise UnavailableError(Reason.NOT_READY, why)

    async def limit(self, connection: "asyncpg.Connection[Any]", table: TargetTable) -> None:
        """Set how long the next block of a table waits for each lock."""
        topic = table.target.topic
        self._began[topic] = time.monotonic()
        wait_s = self._rows.get(topic)
        if wait_s is None or await _lockers(connection, table):
            wait_s = TRY_S
        await self._wait(connection, wait_s)

    async def may_queue(self, connection: "asyncpg.Connection[Any]", table: TargetTable) -> bool:
        """Whether a try in vain waited briefly, and for rows; the next one waits for longer then.

        Who locks a table may keep it for hours, and its waiters would hold up others.
        """
        if self._waited_s(connection) > TRY_S or await _lockers(connection, table):
            return False
        await self._wait(connection, self._rows.setdefault(table.target.topic, ROW_S))
        return True

    async def _wait(self, connection: "asyncpg.Connection[Any]", wait_s: float) -> None:
        if self._set != (connection, wait_s):
            await connection.execute(f"SET lock_timeout = {round(wait_s * 1000)}")
            self._set = (connection, wait_s)

    def _waited_s(self, connection: "asyncpg.Connection[Any]") -> float:
        """How long the last try on a connection waited for each lock; 0, it is not the sink's."""
        return self._set[1] if self._set and self._set[0] is connection else 0.0

    async def refused(
        self, connection: "asyncpg.Connection[Any]", table: TargetTable
    ) -> UnavailableError:
        """The error of a try that came to nothing: NOT_READY, with who holds what it needs."""
        topic = table.target.topic
        # Who holds a row is known to its waiters only, and we wait no more.
        who = told(await _lockers(connection, table))
        who = who or "another transaction holds rows of it; see pg_stat_activity"
        why = f"table {table.target.table}: waits for a lock; {who}"
        pause_s, waited_s = _PAUSE_S, self._waited_s(connection)
        if waited_s > TRY_S:
            # The other topics have the connection for half of the time at least.
            pause_s = max(pause_s, waited_s)
            self._rows[topic] = min(2 * waited_s, ROW_S_MAX)
        self._refused[topic] = (time.monotonic() + pause_s, why)
        return UnavailableError(Reason.NOT_READY, why)

    def passed(self, topic: Topic) -> None:
        """A block of the topic was written; after one that took long the next queues, too."""
        self._refused.pop(topic, None)
        took_s = time.monotonic() - self._began.pop(topic, 0.0)
        if topic in self._rows and took_s > TRY_S:
            self._rows[topic] = ROW_S
        else:
            self._rows.pop(topic, None)


async def _lockers(connection: "asyncpg.Connection[Any]", table: TargetTable) -> list[Blocker]:
    return await lockers(connection, table.name, ours=(table.seen, table.owned))


async def probe(connection: "asyncpg.Connection[Any]", table: TargetTable) -> None:
    """See that nobody locks a table; raises asyncpg.LockNotAvailableError.

    For who is patient afterwards, so that no row held for a while costs long work.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {round(TRY_S * 1000)}")
        await connection.execute(f"LOCK TABLE {table.name} IN ROW EXCLUSIVE MODE")
