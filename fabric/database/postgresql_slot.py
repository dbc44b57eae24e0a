"""The replication slot: its health, and whether a source may go on from where it was."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.database.postgresql_blockers import blockers, told
from fabric.database.postgresql_connect import translated
from fabric.database.postgresql_token import Token
from fabric.database.postgresql_window import Visible
from fabric.database.postgresql_wire import parse_lsn
from fabric.model.errors import Reason, UnavailableError, UsageError

_BUSY_S_MAX = 3.0
"""How long to wait for a walsender of a dead connection to let go."""
_POLL_S = 0.1
_CREATE_S_MAX = 60.0
_NAME = re.compile(r"[a-z0-9_]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as the server has it.

    Attributes:
        confirmed: commits before it are gone for us.
        pid: the process that uses it, or None.
        is_lost: its log was removed; it can never be read again.
        log_end: where the server's log ends on its disk; nobody was ever sent more.
    """

    confirmed: int
    pid: int | None
    is_lost: bool
    log_end: int


async def find(connection: "asyncpg.Connection[Any]", name: str) -> Slot | None:
    """Look a slot up.

    Raises:
        UsageError: SOURCE_UNFIT, the name belongs to a slot of another kind.
    """
    record = await connection.fetchrow(
        "SELECT plugin::text, database::text = pg_catalog.current_database() AS here, active_pid,"
        " confirmed_flush_lsn::text AS confirmed, wal_status,"
        " pg_catalog.pg_current_wal_flush_lsn()::text AS log_end"
        " FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
        name,
    )
    if record is None:
        return None
    if record["plugin"] != "pgoutput" or not record["here"]:
        raise UsageError(
            Reason.SOURCE_UNFIT,
            f"slot {name}: it belongs to another plugin or database; name another slot",
        )
    confirmed = record["confirmed"]
    return Slot(
        confirmed=parse_lsn(confirmed) if confirmed else 0,
        pid=record["active_pid"],
        is_lost=confirmed is None or record["wal_status"] == "lost",
        log_end=parse_lsn(record["log_end"]),
    )


async def find_free(connection: "asyncpg.Connection[Any]", name: str) -> Slot | None:
    """Look a slot up and wait a little until nobody uses it.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, somebody uses it; names the process.
    """
    waited_s = 0.0
    while True:
        slot = await find(connection, name)
        if slot is None or slot.pid is None:
            return slot
        if waited_s >= _BUSY_S_MAX:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"slot {name}: process {slot.pid} of the server uses it; stop that capture or"
                " name another slot",
            )
        await asyncio.sleep(_POLL_S)
        waited_s += _POLL_S


async def renew(connection: "asyncpg.Connection[Any]", name: str, slot: Slot | None) -> int:
    """Drop the old slot, if there is one, and make a new one; where its log starts.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, the slot cannot be made now.
        UsageError: SOURCE_UNFIT, the server has no slot left or refuses us.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            Reason.SOURCE_UNFIT, f"slot {name!r}: use a-z, 0-9 and _, at most 63 characters"
        )
    if slot is not None:
        await connection.execute("SELECT pg_catalog.pg_drop_replication_slot($1)", name)
    try:
        with translated("make a replication slot", data_passes=True):
            return parse_lsn(await _create(connection, name))
    except asyncpg.InsufficientPrivilegeError as exc:
        raise UsageError(
            Reason.SOURCE_UNFIT, "role may not make a slot; ALTER ROLE ... REPLICATION"
        ) from exc


async def _create(connection: "asyncpg.Connection[Any]", name: str) -> str:
    """Make a slot; the server waits for every transaction that has written and is open."""
    try:
        lsn: str = await connection.fetchval(
            "SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')",
            name,
            timeout=_CREATE_S_MAX,
        )
    except TimeoutError:
        now = await connection.fetchval("SELECT pg_catalog.pg_current_snapshot()::text")
        found = await blockers(connection, xids=Visible.parse(now).running, table=None)
        raise UnavailableError(
            Reason.DATABASE_UNAVAILABLE,
            f"the replication slot is not made yet, it waits for {told(found) or 'the server'}",
        ) from None
    return lsn


def why_new_life(
    token: Token | None, slot: Slot | None, *, name: str, system: tuple[str, int]
) -> str | None:
    """Why the source cannot go on from its token; None when it can. Pure.

    Args:
        system: system identifier and timeline of the server.
    """
    if token is None:
        return "there is no token"
    if (token.system_id, token.timeline) != system:
        return "the server is another, or its history forked"
    if slot is None or token.slot != name:
        return "the slot is gone"
    if slot.is_lost:
        return "the slot's log was removed"
    if token.position >= slot.log_end:
        # A copy of the data keeps system, timeline and slot. What it commits up to the token
        # would be passed over without a word: START_REPLICATION begins behind it.
        return "the server was put back to an older copy: its log ends before the token"
    if slot.confirmed > token.position + 1:
        # START_REPLICATION would start later without a word, and rows would be lost.
        return "the slot is ahead of the token"
    return None
