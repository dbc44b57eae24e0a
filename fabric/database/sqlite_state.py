"""The sink's own tables in a SQLite target: states of streams, origins, snapshots, quarantine.

All functions run on the sink's thread, inside the caller's transaction.
"""

import sqlite3
from collections.abc import Mapping
from enum import IntEnum

from fabric.database import sqlite_schemas as schemas
from fabric.database.sqlite_capture import APPLYING
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import StreamState

_DDL = (
    "CREATE TABLE IF NOT EXISTS fabric_streams (id INTEGER PRIMARY KEY, origin TEXT NOT NULL,"
    " topic TEXT NOT NULL, partition INTEGER NOT NULL, generation INTEGER NOT NULL,"
    " position INTEGER NOT NULL, ordinal INTEGER NOT NULL, chain BLOB NOT NULL,"
    ' "offset" INTEGER NOT NULL, cluster TEXT NOT NULL, topic_id TEXT NOT NULL,'
    " incomplete INTEGER NOT NULL, snapshot INTEGER NOT NULL, UNIQUE (topic, origin, partition))",
    "CREATE TABLE IF NOT EXISTS fabric_origins (id INTEGER PRIMARY KEY, topic TEXT NOT NULL,"
    " origin TEXT NOT NULL, UNIQUE (topic, origin))",
    "CREATE TABLE IF NOT EXISTS fabric_quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    ' topic TEXT NOT NULL, origin TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER'
    " NOT NULL, reason TEXT NOT NULL, key BLOB NOT NULL, change BLOB NOT NULL, schema BLOB)",
    "CREATE INDEX IF NOT EXISTS fabric_quarantine_key ON fabric_quarantine (topic, key)",
    APPLYING,
)
_FIELDS = (
    "generation, position, ordinal, chain,"
    ' "offset", cluster, topic_id, incomplete, snapshot'
)  # fmt: skip


class Snapshot(IntEnum):
    """Whether a snapshot of a stream is under way, and whether seen keys are written down."""

    NONE = 0
    UNTRACKED = 1
    """The stream had no rows when it began, so none can be stale when it ends."""
    TRACKED = 2


def create(connection: sqlite3.Connection) -> None:
    """Make what is absent."""
    for statement in _DDL:
        connection.execute(statement)
    schemas.create(connection, "fabric_quarantine")


def load(connection: sqlite3.Connection, stream: Stream) -> StreamState | None:
    """The state of one stream, or None."""
    row = connection.execute(
        f"SELECT {_FIELDS} FROM fabric_streams WHERE topic = ? AND origin = ? AND partition = ?",  # noqa: S608  # constant
        (str(stream.topic), str(stream.origin), stream.partition),
    ).fetchone()
    return None if row is None else _state(row)


def load_all(connection: sqlite3.Connection, topic: Topic) -> Mapping[Stream, StreamState]:
    """The states of every stream of a topic."""
    rows = connection.execute(
        f"SELECT origin, partition, {_FIELDS} FROM fabric_streams WHERE topic = ? ORDER BY id",  # noqa: S608  # constant
        (str(topic),),
    ).fetchall()
    return {
        Stream(origin=Origin.parse(origin), topic=topic, partition=partition): _state(fields)
        for origin, partition, *fields in rows
    }


def is_filled(connection: sqlite3.Connection, topic: Topic) -> bool:
    """Whether some stream of the topic has a state here; asks only, so there may be no table."""
    there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'fabric_streams'"
    if connection.execute(there).fetchone() is None:
        return False
    rows = "SELECT 1 FROM fabric_streams WHERE topic = ?"
    return connection.execute(rows, (str(topic),)).fetchone() is not None


def _state(row: "tuple[object, ...] | list[object]") -> StreamState:
    generation, position, ordinal, chain, offset, cluster, topic_id, incomplete, snapshot = row
    return StreamState(
        high=ChangeSequence(int(str(generation)), int(str(position)), int(str(ordinal))),
        chain=chain if isinstance(chain, bytes) else b"",
        offset=int(str(offset)),
        cluster=str(cluster),
        topic_id=str(topic_id),
        incomplete=bool(incomplete),
        in_snapshot=snapshot != Snapshot.NONE,
    )


def store(
    connection: sqlite3.Connection, stream: Stream, state: StreamState, snapshot: Snapshot
) -> None:
    """Write the state of one stream."""
    connection.execute(
        f"INSERT INTO fabric_streams (topic, origin, partition, {_FIELDS})"  # noqa: S608  # constant
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic, origin, partition)"
        " DO UPDATE SET generation = excluded.generation, position = excluded.position,"
        " ordinal = excluded.ordinal, chain = excluded.chain,"
        ' "offset" = excluded."offset", cluster = excluded.cluster,'
        " topic_id = excluded.topic_id, incomplete = excluded.incomplete,"
        " snapshot = excluded.snapshot",
        (
            str(stream.topic),
            str(stream.origin),
            stream.partition,
            *state.high,
            state.chain,
            state.offset,
            state.cluster,
            state.topic_id,
            state.incomplete,
            snapshot,
        ),
    )


def snapshot_of(connection: sqlite3.Connection, stream: Stream) -> Snapshot:
    """Whether a snapshot of this stream is under way."""
    row = connection.execute(
        "SELECT snapshot FROM fabric_streams WHERE topic = ? AND origin = ? AND partition = ?",
        (str(stream.topic), str(stream.origin), stream.partition),
    ).fetchone()
    return Snapshot.NONE if row is None else Snapshot(row[0])


def mark_incomplete(connection: sqlite3.Connection, stream: Stream) -> None:
    """Note that the stream's rows are no longer all that its source has."""
    connection.execute(
        "UPDATE fabric_streams SET incomplete = 1 WHERE topic = ? AND origin = ? AND partition = ?",
        (str(stream.topic), str(stream.origin), stream.partition),
    )


def origin_ids(connection: sqlite3.Connection, stream: Stream) -> tuple[int, int, int]:
    """Id of the stream's origin (made when new), of the topic's first origin, and their count."""
    topic, origin = str(stream.topic), str(stream.origin)
    connection.execute(
        "INSERT OR IGNORE INTO fabric_origins (topic, origin) VALUES (?, ?)", (topic, origin)
    )
    rows = connection.execute(
        "SELECT id, origin FROM fabric_origins WHERE topic = ? ORDER BY id", (topic,)
    ).fetchall()
    own = next(ident for ident, name in rows if name == origin)
    return own, rows[0][0], len(rows)
