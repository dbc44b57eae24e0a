"""Changes that a target could not take, with the later changes of their keys."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from fabric.database.datum import decode_change, encode_change, written
from fabric.model.change import Change
from fabric.model.errors import DeniedError, Reason, UsageError
from fabric.model.limits import PARKED_KEYS_MAX
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import Parked, Target

_FIELDS = 'id, topic, origin, partition, "offset", reason, key, change'
_BY = (
    "CASE WHEN schema IS NOT NULL THEN"
    " coalesce((SELECT text FROM fabric.schemas AS s WHERE s.id = schema), '') END"
)
"""The schema that the change was written with; empty, so unreadable, if somebody removed it."""
LATER = "an earlier change of this key is in quarantine"


async def parked_keys(connection: "asyncpg.Connection[Any]", stream: Stream) -> set[bytes]:
    """Keys of the stream with a change in quarantine."""
    records = await connection.fetch(
        "SELECT DISTINCT key FROM fabric.quarantine"
        " WHERE topic = $1 AND origin = $2 AND partition = $3",
        *_where(stream),
    )
    return {record["key"] for record in records}


async def park(
    connection: "asyncpg.Connection[Any]",
    target: Target,
    changes: Sequence[tuple[Change, bytes]],
    *,
    place: tuple[Stream, int],
    reason: str,
) -> None:
    """Put changes with their keys into quarantine.

    Args:
        place: the stream and the offset of the record.

    Raises:
        DeniedError: APPLY_FAILED, the quarantine is full.
        Malformed: a row does not fit the schema, so that it cannot even be stored.
    """
    stream, offset = place
    held = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM fabric.quarantine LIMIT $1) AS q", PARKED_KEYS_MAX
    )
    if held + len(changes) > PARKED_KEYS_MAX:
        raise DeniedError(
            Reason.APPLY_FAILED,
            f"quarantine holds {held} changes and is full; retry or drop some",
        )
    by = written(target.schema)
    await connection.execute(
        "INSERT INTO fabric.schemas VALUES ($1, $2) ON CONFLICT DO NOTHING", by.id, by.text
    )
    await connection.execute(
        "INSERT INTO fabric.quarantine"
        ' (topic, origin, partition, "offset", reason, key, change, schema)'
        " SELECT $1, $2, $3, $4, $5, v.key, v.change, $8"
        " FROM unnest($6::bytea[], $7::bytea[]) WITH ORDINALITY AS v (key, change, place)"
        " ORDER BY v.place",
        *_where(stream),
        offset,
        reason,
        [key for _, key in changes],
        [encode_change(change, target.schema) for change, _ in changes],
        by.id,
    )


async def explain(connection: "asyncpg.Connection[Any]", ident: int, reason: str) -> None:
    """Say anew why a change could not be applied."""
    await connection.execute(
        "UPDATE fabric.quarantine SET reason = $2 WHERE id = $1", ident, reason
    )


async def listing(connection: "asyncpg.Connection[Any]", topic: Topic | None) -> list[Parked]:
    """Everything, or one topic's, oldest first, without rows."""
    records = await connection.fetch(
        'SELECT id, topic, partition, "offset", reason, key FROM fabric.quarantine'
        " WHERE $1::text IS NULL OR topic = $1 ORDER BY id",
        None if topic is None else str(topic),
    )
    return [_parked(record, None) for record in records]


async def fetch(
    connection: "asyncpg.Connection[Any]", ident: int, targets: Mapping[str, Target]
) -> tuple[Parked, Stream] | None:
    """One parked change with its row and stream, or None.

    Raises:
        UsageError: its dataset is not applied here any more.
        Malformed: the dataset's schema of today cannot read its row.
    """
    record = await connection.fetchrow(
        f"SELECT {_FIELDS}, {_BY} AS by FROM fabric.quarantine WHERE id = $1",  # noqa: S608  # constants
        ident,
    )
    if record is None:
        return None
    target = targets.get(record["topic"])
    if target is None:
        raise UsageError(Reason.TOPIC_UNKNOWN, f"{record['topic']} is not applied here")
    change = decode_change(record["change"], target.schema, target.topic, by=record["by"])
    stream = Stream(
        origin=Origin.parse(record["origin"]), topic=target.topic, partition=record["partition"]
    )
    return _parked(record, change), stream


def _parked(record: Any, change: Change | None) -> Parked:
    return Parked(
        id=record["id"],
        topic=Topic.parse(record["topic"]),
        partition=record["partition"],
        offset=record["offset"],
        reason=record["reason"],
        key=record["key"],
        change=change,
    )


async def siblings(connection: "asyncpg.Connection[Any]", ident: int) -> list[int]:
    """Ids of every parked change of the same stream and key, oldest first."""
    records = await connection.fetch(
        "SELECT other.id FROM fabric.quarantine AS one JOIN fabric.quarantine AS other"
        " USING (topic, origin, partition, key) WHERE one.id = $1 ORDER BY other.id",
        ident,
    )
    return [record["id"] for record in records]


async def forget(connection: "asyncpg.Connection[Any]", ident: int) -> None:
    """Remove one parked change."""
    await connection.execute("DELETE FROM fabric.quarantine WHERE id = $1", ident)


async def forget_stream(connection: "asyncpg.Connection[Any]", stream: Stream) -> None:
    """Remove what a truncate or a new snapshot has made void."""
    await connection.execute(
        "DELETE FROM fabric.quarantine WHERE topic = $1 AND origin = $2 AND partition = $3",
        *_where(stream),
    )


def _where(stream: Stream) -> tuple[str, str, int]:
    return str(stream.topic), str(stream.origin), stream.partition
