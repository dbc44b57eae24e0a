"""Look at a PostgreSQL source as its capture will need it, and leave it as it is.

The session is read-only, so the server itself sees to it that nothing is changed. Each
part is looked at though another is ill: a person shall read all of it at once.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.database import postgresql_slot as slots
from fabric.database import postgresql_token as tokens
from fabric.database.finding import MADE, Capture, Finding, Usage, failed, ill, well
from fabric.database.postgresql_blockers import Blocker, blockers, told
from fabric.database.postgresql_columns import split_table
from fabric.database.postgresql_connect import connect, shut, translated, types_of
from fabric.database.postgresql_connections import LOOKING, look
from fabric.database.postgresql_preflight import check_server, check_table, lacking, making
from fabric.database.postgresql_slot import Slot
from fabric.database.postgresql_token import DONE, Progress, Token
from fabric.database.postgresql_window import Visible
from fabric.model.errors import FabricError, Reason
from fabric.ports import SourceTable

_OURS = "fabric"
"""Application name of a capture's replication connection."""
_AGAIN_S = 5.0
"""Between two looks at who holds a snapshot up."""
_GOES_ON = "see these transactions end; the snapshot goes on by itself then"
_MIB = 1024 * 1024
_ROOM = """
SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots,
    pg_catalog.current_setting('max_replication_slots')::int AS slots_max,
    (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders,
    pg_catalog.current_setting('max_wal_senders')::int AS senders_max
"""
_SLOT = """
SELECT s.wal_status, s.safe_wal_size AS left_bytes, a.application_name AS application,
    greatest(0, pg_catalog.pg_wal_lsn_diff(
        pg_catalog.pg_current_wal_lsn(), s.restart_lsn))::int8 AS held_bytes
FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a
    ON a.pid = s.active_pid
WHERE s.slot_name = $1
"""
_MAY_PUBLISH = """
SELECT coalesce((SELECT pg_catalog.pg_has_role(p.pubowner, 'USAGE')
        FROM pg_catalog.pg_publication p WHERE p.pubname = $1),
        pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))
    AND coalesce((SELECT bool_and(pg_catalog.pg_has_role(c.relowner, 'USAGE'))
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN unnest($2::text[], $3::text[]) AS t (schema, name)
            ON n.nspname = t.schema AND c.relname = t.name), true)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """A slot, who uses it and what its server keeps for it.

    Attributes:
        application: name that the session using it gave itself.
        wal_status: `reserved`, `extended`, `unreserved` or `lost`.
        held_bytes: log that is kept for it.
        left_bytes: log that may be written until it is lost; None for no limit.
    """

    slot: Slot
    application: str | None
    wal_status: str | None
    held_bytes: int
    left_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Replication slots and walsenders of a server: in use, and the most there may be."""

    slots: int
    slots_max: int
    senders: int
    senders_max: int


async def examine_source(url: str, capture: Capture, usage: Usage) -> list[Finding]:
    """Everything that the capture needs of its database."""
    try:
        connection = await connect(url, {**LOOKING, "row_security": "off"})
    except FabricError as exc:
        return [failed("server", exc)]
    try:
        return [
            await examined("server", _server(connection)),
            *[
                await examined(f"table {table.table}", _table(connection, table))
                for table in capture.tables
            ],
            *(
                [
                    await examined(
                        f"publication {capture.publication}", _publication(connection, capture)
                    )
                ]
                if capture.tables
                else []
            ),
            await examined(f"slot {capture.slot}", _slot(connection, capture)),
            await examined("room", _room(connection, capture)),
            await examined("connections", look(connection, usage, Reason.SOURCE_UNFIT)),
            *[
                await examined(f"snapshot of {each.table}", _snapshot(connection, each, token))
                for token in [tokens.decode(capture.resume)]
                if token is not None
                for each in _unfinished(token)
            ],
            *_lacking(tokens.decode(capture.resume)),
        ]
    finally:
        await shut(connection)


async def examined(part: str, look: Awaitable[Finding]) -> Finding:
    """What a look finds; its error, when it ends with one of ours or the driver's."""
    try:
        with translated(f"look at {part}"):
            return await look
    except FabricError as exc:
        return failed(part, exc)


async def _server(connection: "asyncpg.Connection[Any]") -> Finding:
    await check_server(connection)
    major = connection.get_server_version().major
    return well("server", f"PostgreSQL {major}, wal_level logical, the role may replicate")


async def _table(connection: "asyncpg.Connection[Any]", table: SourceTable) -> Finding:
    fit, _ = await check_table(connection, table, await types_of(connection))
    key = ", ".join(table.schema.key)
    return well(f"table {table.table}", f"{len(fit.columns)} columns, identified by ({key})")


async def _publication(connection: "asyncpg.Connection[Any]", capture: Capture) -> Finding:
    missing = await lacking(connection, capture.tables, capture.publication)
    wanted = _wanted(capture, missing)
    places = [split_table(name) for name in wanted]
    may = await connection.fetchval(
        _MAY_PUBLISH,
        capture.publication,
        [schema for schema, _ in places],
        [name for _, name in places],
    )
    return of_publication(capture, missing, may_change=bool(may))


def _wanted(capture: Capture, missing: Sequence[str] | None) -> Sequence[str]:
    return [table.table for table in capture.tables] if missing is None else missing


def of_publication(
    capture: Capture, missing: tuple[str, ...] | None, *, may_change: bool
) -> Finding:
    """What a publication's lack of tables means.

    Args:
        missing: tables that it lacks; None when there is no such publication.
        may_change: whether the role may make it, or add what it lacks.
    """
    part = f"publication {capture.publication}"
    if missing == ():
        return well(part, f"holds {len(capture.tables)} tables whole")
    wanted = _wanted(capture, missing)
    seen = "there is none" if missing is None else f"it lacks {', '.join(wanted)}"
    if capture.resume is None and may_change:
        return well(part, f"{seen}; the agent mends that when it starts")
    statement = making(capture.publication, wanted, is_new=missing is None)
    remedy = (
        "start the agent again: it mends that, and reads these tables anew"
        if may_change
        else f"let an owner run: {statement}; then start the agent again"
    )
    return ill(part, Reason.SOURCE_UNFIT, f"{seen}, so their changes are not sent", remedy)


async def _slot(connection: "asyncpg.Connection[Any]", capture: Capture) -> Finding:
    found = await slots.find(connection, capture.slot)
    record = await connection.fetchrow(_SLOT, capture.slot)
    if found is None or record is None:
        return of_slot(capture, None)
    return of_slot(capture, SlotState(slot=found, **dict(record)))


async def _room(connection: "asyncpg.Connection[Any]", capture: Capture) -> Finding:
    found = await slots.find(connection, capture.slot)
    record = await connection.fetchrow(_ROOM)
    assert record is not None
    return of_room(Room(**dict(record)), found)


def _unfinished(token: Token) -> list[Progress]:
    """The dataset whose snapshot is under way; those after it wait for it."""
    return [each for each in token.snapshots.values() if each.state != DONE][:1]


def _lacking(token: Token | None) -> list[Finding]:
    """Tables to which more was applied than an agent remembers: slower, and no fault."""
    return [
        well(
            f"rows of {each.table}",
            "more were applied to it than are remembered: large values are read from the table for"
            " every change that lacks them, which is slower; a new snapshot ends it",
        )
        for each in (token.snapshots.values() if token else ())
        if each.lacks_any
    ]


async def _snapshot(
    connection: "asyncpg.Connection[Any]", progress: Progress, token: Token
) -> Finding:
    """Whether somebody holds a snapshot up, which is no fault of its agent.

    Whoever writes does so for a moment; only who is there after a while is worth a word.
    """
    found = await _holding(connection, progress, token)
    if found:
        await asyncio.sleep(_AGAIN_S)
        idents = {each.ident for each in found}
        again = await _holding(connection, progress, token)
        found = [each for each in again if each.ident in idents]
    part = f"snapshot of {progress.table}"
    if not found:
        return well(part, f"{progress.rows} rows read; nobody holds it up")
    return ill(part, Reason.NOT_READY, f"waits for {told(found)}", _GOES_ON)


async def _holding(
    connection: "asyncpg.Connection[Any]", progress: Progress, token: Token
) -> list[Blocker]:
    """Who keeps the next chunk from being read just now."""
    now = Visible.parse(await connection.fetchval("SELECT pg_catalog.pg_current_snapshot()::text"))
    past = token.unseen
    xids = now.running if past is None else past.among(now.running)
    table = progress.identity.table if progress.identity else None
    return await blockers(connection, xids=xids, table=table)


def of_slot(capture: Capture, state: SlotState | None) -> Finding:
    """What a slot's state means to its capture."""
    part, token = f"slot {capture.slot}", tokens.decode(capture.resume)
    if state is None and token is None:
        return well(part, MADE)
    if state is None:
        return ill(
            part,
            Reason.SOURCE_UNFIT,
            "it is gone, and with it the log of what changed meanwhile",
            "find out who dropped it, then start the agent again: it reads everything anew",
        )
    if state.slot.is_lost:
        return ill(
            part,
            Reason.SOURCE_UNFIT,
            "the server has thrown its log away",
            "start the agent again: it reads everything anew; then raise max_slot_wal_keep_size,"
            " or stop the agent for shorter times",
        )
    if state.wal_status == "unreserved":
        return ill(
            part,
            Reason.SOURCE_UNFIT,
            f"it holds back {_size(state.held_bytes)} and loses them at the next checkpoint",
            "start the agent now, or raise max_slot_wal_keep_size and reload the server",
        )
    return _use(capture, state) or _way_on(capture, state, token) or _kept(part, state)


def _use(capture: Capture, state: SlotState) -> Finding | None:
    """Whether the wrong one uses it, or nobody where somebody should."""
    part, pid = f"slot {capture.slot}", state.slot.pid
    if pid is None:
        if capture.agent is None:
            return None
        return ill(
            part,
            Reason.NOT_READY,
            "the agent runs and does not use it",
            "see why this capture waits or has stopped: fabric status",
        )
    if capture.agent is not None and state.application == _OURS:
        return None
    return ill(
        part,
        Reason.SOURCE_UNFIT,
        f"process {pid} of the server uses it ({state.application or 'without a name'})",
        "stop that capture, or name another slot in [[capture]]",
    )


def _way_on(capture: Capture, state: SlotState, token: Token | None) -> Finding | None:
    """Whether an agent that is stopped can go on from it; a running one has moved on since."""
    if capture.agent is not None or token is None:
        return None
    system = (token.system_id, token.timeline)
    why = slots.why_new_life(token, state.slot, name=capture.slot, system=system)
    if why is None:
        return None
    return ill(
        f"slot {capture.slot}",
        Reason.SOURCE_UNFIT,
        f"the agent cannot go on from it: {why}",
        "find out who moved it, then start the agent: it reads everything anew",
    )


def _kept(part: str, state: SlotState) -> Finding:
    use = "free" if state.slot.pid is None else "used by the running agent"
    left = "" if state.left_bytes is None else f", lost after {_size(state.left_bytes)} more"
    return well(part, f"{use}, holds back {_size(state.held_bytes)} of log{left}")


def of_room(room: Room, slot: Slot | None) -> Finding:
    """Whether the server has room for what the capture still lacks."""
    lacks = []
    if slot is None and room.slots >= room.slots_max:
        lacks.append(("replication slots", room.slots_max, "max_replication_slots"))
    if (slot is None or slot.pid is None) and room.senders >= room.senders_max:
        lacks.append(("walsenders", room.senders_max, "max_wal_senders"))
    if not lacks:
        return well(
            "room",
            f"{room.slots} of {room.slots_max} replication slots and {room.senders} of"
            f" {room.senders_max} walsenders in use",
        )
    return ill(
        "room",
        Reason.SOURCE_UNFIT,
        " and ".join(f"all {most} {what} are in use" for what, most, _ in lacks),
        f"end what nobody needs, or raise {' and '.join(name for _, _, name in lacks)} and restart"
        " the server",
    )


def _size(count: int) -> str:
    return f"{count / _MIB:.1f} MiB"
