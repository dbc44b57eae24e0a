"""Changes that a SQLite target could not take, with the later changes of their keys."""

import sqlite3
from collections.abc import Mapping

from fabric.database import sqlite_schemas as schemas
from fabric.database.datum import decode_change, encode_change
from fabric.model.change import Change
from fabric.model.errors import Reason, UsageError
from fabric.model.limits import PARKED_KEYS_MAX
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import Parked, Target

_FIELDS = 'id, topic, origin, partition, "offset", reason, key, change, schema'


def parked_keys(connection: sqlite3.Connection, stream: Stream) -> set[bytes]:
    """Keys of the stream with a change in quarantine."""
    rows = connection.execute(
        "SELECT DISTINCT key FROM fabric_quarantine"
        " WHERE topic = ? AND origin = ? AND partition = ?",
        (str(stream.topic), str(stream.origin), stream.partition),
    )
    return {row[0] for row in rows}


def room(connection: sqlite3.Connection) -> int:
    """How many changes the quarantine still takes."""
    count = connection.execute("SELECT count(*) FROM fabric_quarantine").fetchone()[0]
    return PARKED_KEYS_MAX - int(count)


def park(
    connection: sqlite3.Connection, change: Change, target: Target, place: tuple[Stream, int, bytes]
) -> None:
    """Put one change into quarantine; `reason` is added with `explain`.

    Args:
        place: the stream, the offset of its record, the key's bytes.
    """
    stream, offset, key = place
    connection.execute(
        "INSERT INTO fabric_quarantine"
        ' (topic, origin, partition, "offset", reason, key, change, schema)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(stream.topic),
            str(stream.origin),
            stream.partition,
            offset,
            "an earlier change of this key is in quarantine",
            key,
            encode_change(change, target.schema),
            schemas.keep(connection, target.schema),
        ),
    )


def explain(connection: sqlite3.Connection, ident: int | None, reason: str) -> None:
    """Say why a change could not be applied; None: the one that was parked last."""
    connection.execute(
        "UPDATE fabric_quarantine SET reason = ?"
        " WHERE id = coalesce(?, (SELECT max(id) FROM fabric_quarantine))",
        (reason, ident),
    )


def listing(connection: sqlite3.Connection, topic: Topic | None) -> list[Parked]:
    """Everything, or one topic's, oldest first, without rows."""
    where = "" if topic is None else " WHERE topic = ?"
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM fabric_quarantine{where} ORDER BY id",  # noqa: S608  # constants
        () if topic is None else (str(topic),),
    ).fetchall()
    return [
        Parked(
            id=row[0],
            topic=Topic.parse(row[1]),
            partition=row[3],
            offset=row[4],
            reason=row[5],
            key=row[6],
            change=None,
        )
        for row in rows
    ]


def fetch(
    connection: sqlite3.Connection, ident: int, targets: Mapping[str, Target]
) -> tuple[Parked, Stream] | None:
    """One parked change with its row and stream, or None.

    Raises:
        UsageError: its dataset is not applied here any more.
        Malformed: the dataset's schema of today cannot read its row.
    """
    row = connection.execute(
        f"SELECT {_FIELDS} FROM fabric_quarantine WHERE id = ?",  # noqa: S608  # constant
        (ident,),
    ).fetchone()
    if row is None:
        return None
    target = targets.get(row[1])
    if target is None:
        raise UsageError(Reason.TOPIC_UNKNOWN, f"{row[1]} is not applied to this database")
    stream = Stream(origin=Origin.parse(row[2]), topic=target.topic, partition=row[3])
    by = schemas.texts(connection, [row[8]]).get(row[8])
    parked = Parked(
        id=row[0],
        topic=target.topic,
        partition=row[3],
        offset=row[4],
        reason=row[5],
        key=row[6],
        change=decode_change(row[7], target.schema, target.topic, by=by),
    )
    return parked, stream


def siblings(connection: sqlite3.Connection, ident: int) -> list[int]:
    """Ids of every parked change of the same stream and key, oldest first."""
    rows = connection.execute(
        "SELECT other.id FROM fabric_quarantine AS one JOIN fabric_quarantine AS other"
        " USING (topic, origin, partition, key) WHERE one.id = ? ORDER BY other.id",
        (ident,),
    )
    return [row[0] for row in rows]


def forget(connection: sqlite3.Connection, ident: int) -> None:
    """Remove one parked change."""
    connection.execute("DELETE FROM fabric_quarantine WHERE id = ?", (ident,))


def forget_stream(connection: sqlite3.Connection, stream: Stream) -> None:
    """Remove what a truncate has made void."""
    connection.execute(
        "DELETE FROM fabric_quarantine WHERE topic = ? AND origin = ? AND partition = ?",
        (str(stream.topic), str(stream.origin), stream.partition),
    )
