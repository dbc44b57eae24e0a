"""Who keeps a snapshot or a block waiting, in words for a person: sessions, prepared transactions.

pg_locks tells everybody who holds what; what else is told of a session needs pg_monitor.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

_NAMED_MAX = 3
# What is asked for may be locked: the catalogue says what its partitions are, pg_partition_tree()
# would wait for them.
_FOUND = """
SELECT DISTINCT ON (l.virtualtransaction) l.virtualtransaction AS ident, l.pid,
    p.transaction::text::int8 AS prepared,
    pg_catalog.to_char(coalesce(p.prepared, a.xact_start), 'YYYY-MM-DD HH24:MI:SS') AS since,
    CASE WHEN a.state IS NOT NULL THEN coalesce(a.wait_event = 'SyncRep', false) END
        AS is_committing
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_locks own ON own.virtualtransaction = l.virtualtransaction
    AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock' AND own.granted
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = own.transactionid
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
"""
_HERE = """ l.locktype = 'relation' AND l.database = (
        SELECT d.oid FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database())"""
_ORDER = " ORDER BY l.virtualtransaction, prepared"
_BLOCKERS = f"""
WITH RECURSIVE parts (oid) AS (
    SELECT $2::oid
  UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts ON i.inhparent = parts.oid
)
{_FOUND}
WHERE l.granted AND (
    l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock'
        AND l.transactionid::text::int8 = ANY ($1::int8[])
    OR {_HERE} AND l.mode = 'AccessExclusiveLock'
        AND l.relation IN (SELECT oid FROM parts))
{_ORDER}"""  # noqa: S608  # constants
# Who writes a table, or empties another for it, meets the first four modes; who looks up a
# foreign key the last two. Those who wait for such a lock themselves are in the way as well.
_LOCKERS = f"""
WITH RECURSIVE used (oid, is_written) AS (
    SELECT pg_catalog.to_regclass(name)::oid, true FROM unnest($1::text[]) AS n (name)
  UNION
    SELECT CASE WHEN k.conrelid = u.oid THEN k.confrelid ELSE k.conrelid END,
        k.confrelid = u.oid AND k.conrelid <> u.oid
    FROM pg_catalog.pg_constraint k
    JOIN (SELECT pg_catalog.to_regclass($2)::oid AS oid) u ON u.oid IN (k.conrelid, k.confrelid)
    WHERE k.contype = 'f'
  UNION
    SELECT i.inhrelid, u.is_written
    FROM pg_catalog.pg_inherits i JOIN used u ON i.inhparent = u.oid
)
{_FOUND}
WHERE l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND {_HERE} AND EXISTS (
    SELECT FROM used u WHERE u.oid = l.relation AND (
        l.mode IN ('ExclusiveLock', 'AccessExclusiveLock')
        OR u.is_written AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock')))
{_ORDER}"""  # noqa: S608  # constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One transaction that others wait for.

    Attributes:
        ident: the server's own name of it, as in pg_locks.
        pid: the session's process; None for a prepared transaction.
        prepared: id of a prepared transaction. The name that its application gave it may say
            anything, and a board is no place for that.
        since: when it began, or was prepared, UTC; None when we may not know.
        is_committing: its commit waits for a synchronous standby; None when we may not know.
    """

    ident: str
    pid: int | None
    prepared: int | None
    since: str | None
    is_committing: bool | None


async def blockers(
    connection: "asyncpg.Connection[Any]", *, xids: Collection[int], table: int | None
) -> list[Blocker]:
    """The transactions with one of these ids, and those that lock a table, the oldest first.

    Args:
        xids: of 32 bits.
        table: its object id, or None; its partitions count.
    """
    return _sorted(await connection.fetch(_BLOCKERS, list(xids), table))


async def lockers(
    connection: "asyncpg.Connection[Any]", table: str, *, ours: Collection[str]
) -> list[Blocker]:
    """The transactions whose locks keep others from writing a table, the oldest first.

    Args:
        table: quoted `schema.table`; its partitions and what foreign keys tie to it count.
        ours: further tables that are written with it.
    """
    return _sorted(await connection.fetch(_LOCKERS, [table, *ours], table))


def _sorted(records: Sequence[Any]) -> list[Blocker]:
    found = [Blocker(**dict(record)) for record in records]
    return sorted(found, key=lambda each: (each.since is None, each.since))


def told(found: Sequence[Blocker]) -> str:
    """Who they are and what to do."""
    more = len(found) - _NAMED_MAX
    named = [_one(each) for each in found[:_NAMED_MAX]]
    return "; ".join(named + ([f"{more} more in pg_locks"] if more > 0 else []))


def _one(blocker: Blocker) -> str:
    since = f" since {blocker.since} UTC" if blocker.since else ""
    if blocker.pid is None:
        named = "" if blocker.prepared is None else f" {blocker.prepared}"
        return (
            f"transaction{named}, prepared{since} (pg_prepared_xacts): commit or roll back prepared"
        )
    if blocker.is_committing is None:
        # A commit that waits is done already where it was made: who ends it may lose it.
        return (
            f"process {blocker.pid}{since}: as a superuser look at its wait_event in"
            " pg_stat_activity; if that is SyncRep bring the standby back and do not end it,"
            " otherwise let it commit, or end it"
        )
    if blocker.is_committing:
        return f"process {blocker.pid}, whose commit waits for a standby{since}: bring that back"
    return f"process {blocker.pid} (pg_stat_activity), open{since}: let it commit, or end it"
