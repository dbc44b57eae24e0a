"""The replication origin under which a sink writes, so that a capture can tell its rows.

An origin serves one session at a time and belongs to the whole server, so every sink
takes the first of `fabric_0`, `fabric_1`, … that nobody uses.
"""

import contextlib
import logging
from typing import Any

import asyncpg

_LOG = logging.getLogger(__name__)
_ORIGINS_MAX = 32


async def take(connection: "asyncpg.Connection[Any]") -> str | None:
    """Set the session's origin; its name, or None when the role or the server does not allow.

    Without one, a capture of the same tables would send our rows back.
    """
    for number in range(_ORIGINS_MAX):
        name = f"fabric_{number}"
        try:
            if await _setup(connection, name):
                return name
        except asyncpg.InsufficientPrivilegeError:
            _LOG.warning(
                "the sink's role may not set a replication origin; do not capture its tables"
            )
            return None
        except (asyncpg.ConfigurationLimitExceededError, asyncpg.ObjectNotInPrerequisiteStateError):
            break
    _LOG.warning("no replication origin is free; do not capture the sink's tables")
    return None


async def _setup(connection: "asyncpg.Connection[Any]", name: str) -> bool:
    # Another sink may make it in this very moment.
    with contextlib.suppress(asyncpg.UniqueViolationError):
        await connection.execute(
            "SELECT pg_catalog.pg_replication_origin_create($1)"
            " WHERE pg_catalog.pg_replication_origin_oid($1) IS NULL",
            name,
        )
    try:
        await connection.execute("SELECT pg_catalog.pg_replication_origin_session_setup($1)", name)
    except asyncpg.ObjectInUseError:
        return False
    return True
