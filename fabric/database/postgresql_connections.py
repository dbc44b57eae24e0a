"""Whether a PostgreSQL server has connections to spare for what an agent still has to open.

Three bounds count: the server's, the role's own and the database's own. Replication slots and
walsenders have theirs, and count for none of these: see `postgresql_examine.of_room`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.database.finding import Finding, Usage, ill, well
from fabric.database.postgresql_marks import CONNECTIONS as MARKS
from fabric.model.errors import Reason

LOOKING: Mapping[str, str] = {
    "application_name": "fabric-doctor",
    "default_transaction_read_only": "on",
}
"""Settings of a session that only looks; it is gone before the agent needs its place."""
_PART = "connections"
# Of another role's session one without pg_monitor sees neither its kind nor its name, but whether
# it has a role and a database: the server's own workers lack one of them.
_FOUND = """
WITH me AS (
    SELECT r.oid AS role, d.oid AS database, r.rolsuper AS is_super, r.rolconnlimit AS role_most,
        d.datconnlimit AS database_most,
        EXISTS (SELECT FROM pg_catalog.pg_roles k WHERE k.rolname = 'pg_use_reserved_connections'
            AND pg_catalog.pg_has_role(r.oid, k.oid, 'USAGE')) AS is_preferred
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
    WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()
), seen AS (
    SELECT a.usesysid = me.role AS is_role, a.datid = me.database AS is_here,
        a.application_name = 'fabric' AS is_ours
    FROM me, pg_catalog.pg_stat_activity a
    WHERE a.usesysid IS NOT NULL AND a.datid IS NOT NULL
        AND coalesce(a.backend_type = 'client backend', true)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_replication w WHERE w.pid = a.pid)
        AND NOT (a.usesysid = me.role AND a.application_name = $1)
)
SELECT pg_catalog.current_setting('max_connections')::int AS server_most,
    CASE WHEN me.is_super THEN 0
        ELSE pg_catalog.current_setting('superuser_reserved_connections')::int END
    + CASE WHEN me.is_super OR me.is_preferred THEN 0
        ELSE coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0) END
        AS reserved,
    (SELECT count(*) FROM seen) AS server_used,
    CASE WHEN NOT me.is_super AND me.role_most >= 0 THEN me.role_most END AS role_most,
    (SELECT count(*) FROM seen WHERE is_role) AS role_used,
    CASE WHEN NOT me.is_super AND me.database_most >= 0 THEN me.database_most END
        AS database_most,
    (SELECT count(*) FROM seen WHERE is_here) AS database_used,
    (SELECT count(*) FROM seen WHERE is_role AND is_here AND is_ours) AS held
FROM me
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Connections of a server, for one role in one database; no walsenders, none of a doctor.

    Attributes:
        server_most: `max_connections`.
        reserved: how many of them are for others than this role.
        server_used: by anybody.
        role_most, database_most: CONNECTION LIMIT; None where none counts for this role.
        role_used, database_used: of those.
        held: by the fabric's agents as this role in this database.
    """

    server_most: int
    reserved: int
    server_used: int
    role_most: int | None
    role_used: int
    database_most: int | None
    database_used: int
    held: int


async def look(connection: "asyncpg.Connection[Any]", usage: Usage, reason: Reason) -> Finding:
    """Whether what an agent has not opened yet finds room; `reason` says whose fault it is."""
    record = await connection.fetchrow(_FOUND, LOOKING["application_name"])
    assert record is not None
    return of_connections(Connections(**dict(record)), usage, reason)


def of_connections(found: Connections, usage: Usage, reason: Reason) -> Finding:
    """What the bounds mean to an agent, which needs the most that it can ever have at once.

    A capture has a session, beside its walsender. A target has one, too, and each of its tables
    two more while a block with marks is applied to it. What a running agent holds it has.
    """
    need = usage.captures + usage.targets + MARKS * usage.tables
    if usage.is_running:
        need = max(0, need - found.held)
    told = f"the agent has yet to open at most {need}"
    lacks = [*_server(found, need), *_limits(found, need)]
    if not lacks:
        return well(_PART, f"{found.server_used} of {_usable(found)} in use; {told}")
    return ill(
        _PART,
        reason,
        f"{' and '.join(seen for seen, _ in lacks)}; {told}",
        f"end what nobody needs, or {', and '.join(remedy for _, remedy in lacks)}",
    )


def _usable(found: Connections) -> int:
    return found.server_most - found.reserved


def _server(found: Connections, need: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the server's own bound, and what to do."""
    usable = _usable(found)
    if need > usable - found.server_used:
        most = found.server_used + need + found.reserved
        yield (
            f"{found.server_used} of the {usable} that max_connections leaves this role are in use",
            f"raise max_connections to {most} at least and restart the server",
        )


def _limits(found: Connections, need: int) -> Iterator[tuple[str, str]]:
    """The same of the limits of role and database."""
    for what, most, used in (
        ("role", found.role_most, found.role_used),
        ("database", found.database_most, found.database_used),
    ):
        if most is not None and need > most - used:
            yield (
                f"{used} of the {most} that the CONNECTION LIMIT of the {what} allows are in use",
                f"let an owner run: ALTER {what.upper()} <{what}> CONNECTION LIMIT {used + need}",
            )
