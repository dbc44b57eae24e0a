"""Where a source starts: at its token, or in a new generation.

A generation is one life of the source. It ends when the server no longer has, or no longer
vouches for, all that changed since the token.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from fabric.database import postgresql_slot as slots
from fabric.database import postgresql_token as tokens
from fabric.database.postgresql_connect import translated
from fabric.database.postgresql_identity import Identity, goes_on, is_remade
from fabric.database.postgresql_preflight import Fit
from fabric.database.postgresql_token import Progress, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server with its tables, as a source finds it.

    Attributes:
        fit: what the tables are.
        found: who they are, by topic.
        system: system identifier and timeline of the server.
        slot: name of the replication slot.
    """

    fit: Fit
    found: Mapping[str, Identity]
    system: tuple[str, int]
    slot: str


async def begin(connection: "asyncpg.Connection[Any]", place: Place, resume: str | None) -> Token:
    """Where to start; a new generation has a new slot.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE.
        UsageError: SOURCE_UNFIT, the slot is another's or cannot be made.
    """
    fit, found, name = place.fit, place.found, place.slot
    old = tokens.decode(resume)
    with translated("look up the replication slot"):
        slot = await slots.find_free(connection, name)
        why = slots.why_new_life(old, slot, name=name, system=place.system)
        was = [each.identity for each in old.snapshots.values()] if old else []
        is_new = fit.is_new or is_remade(was, found)
        if old is not None and why is None and not is_new:
            return old.with_snapshots(await _snapshots(connection, place, old))
        lsn = await slots.renew(connection, name, slot)
    return Token(
        generation=max(int(time.time()), tokens.generation_in(resume) + 1),
        system_id=place.system[0],
        timeline=place.system[1],
        slot=name,
        position=lsn - 1,
        snapshots=await _snapshots(connection, place, None),
        unseen=None,  # what commits while the slot is made may wait for a standby still
    )


async def _snapshots(
    connection: "asyncpg.Connection[Any]", place: Place, old: Token | None
) -> dict[str, Progress]:
    """Progress of every dataset; one whose table or schema changed is read anew."""
    result: dict[str, Progress] = {}
    for table in (each.table for each in place.fit.tables):
        name = str(table.topic)
        now = place.found[name]
        fresh = Progress(
            table=table.table, fingerprint=table.schema.fingerprint.hex(), identity=now
        )
        kept = old.snapshots.get(name, fresh) if old else fresh
        same = (kept.table, kept.fingerprint) == (fresh.table, fresh.fingerprint)
        same = same and table.table not in place.fit.added
        same = same and await goes_on(connection, kept.identity, now)
        result[name] = replace(kept, identity=now) if same else fresh
    return result
