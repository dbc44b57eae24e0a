"""Our own tables in a target database (schema `fabric`): streams, datasets, quarantine, schemas."""

from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import StreamState

NONE, TRACKED, UNTRACKED = "none", "tracked", "untracked"
"""Snapshot of a stream: not running; running, keys remembered; running into an empty table."""
_LOCK = 0x666162726963
"""Key of the advisory lock under which tables are made."""
_DDL = """
CREATE TABLE IF NOT EXISTS fabric.streams (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE, origin text, topic text, partition integer,
    generation bigint NOT NULL, position bigint NOT NULL, ordinal bigint NOT NULL,
    chain bytea NOT NULL, "offset" bigint NOT NULL, cluster text NOT NULL,
    topic_id text NOT NULL, incomplete boolean NOT NULL, snapshot text NOT NULL DEFAULT 'none',
    PRIMARY KEY (topic, origin, partition));
CREATE TABLE IF NOT EXISTS fabric.datasets (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE, topic text, relation text,
    PRIMARY KEY (topic, relation));
CREATE TABLE IF NOT EXISTS fabric.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    origin text NOT NULL, partition integer NOT NULL, "offset" bigint NOT NULL,
    reason text NOT NULL, key bytea NOT NULL, change bytea NOT NULL, schema bytea,
    parked_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS fabric.schemas (id bytea PRIMARY KEY, text text NOT NULL);
"""
_INDEX = "CREATE INDEX quarantine_of_stream ON fabric.quarantine (topic, origin, partition, id)"
_HAS_INDEX = "SELECT pg_catalog.to_regclass('fabric.quarantine_of_stream') IS NOT NULL"
_NAMES_SCHEMA = """
SELECT true FROM pg_catalog.pg_attribute
WHERE attrelid = 'fabric.quarantine'::regclass AND attname = 'schema' AND NOT attisdropped
"""
_PLACE = """
 RETURNING id, incomplete, snapshot,
    coalesce((SELECT s.origin FROM fabric.streams s WHERE s.topic = $2 ORDER BY s.id LIMIT 1), $1)
        = $1 AS is_first,
    EXISTS (SELECT FROM fabric.streams s WHERE s.topic = $2 AND s.origin <> $1) AS is_shared,
    EXISTS (SELECT FROM fabric.quarantine q
        WHERE q.topic = $2 AND q.origin = $1 AND q.partition = $3) AS has_parked
"""
_INSERT = (
    """
INSERT INTO fabric.streams (origin, topic, partition, generation, position, ordinal, chain,
    "offset", cluster, topic_id, incomplete)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING"""
    + _PLACE
)
_UPDATE = (
    """
UPDATE fabric.streams SET generation = $4, position = $5, ordinal = $6, chain = $7,
    "offset" = $8, cluster = $9, topic_id = $10, incomplete = incomplete OR $11
WHERE origin = $1 AND topic = $2 AND partition = $3
    AND generation = $12 AND position = $13 AND ordinal = $14 AND chain = $15"""
    + _PLACE
)
PLAIN_MOVE = """
UPDATE fabric.streams AS m SET generation = {3}, position = {4}, ordinal = {5}, chain = {6},
    "offset" = {7}, cluster = {8}, topic_id = {9}, incomplete = incomplete OR {10}
WHERE origin = {0} AND topic = {1} AND partition = {2}
    AND generation = {11} AND position = {12} AND ordinal = {13} AND chain = {14}
    AND snapshot = '{none}'
    AND NOT EXISTS (SELECT FROM fabric.streams s WHERE s.topic = {1} AND s.origin <> {0})
    AND NOT EXISTS (SELECT FROM fabric.quarantine q
        WHERE q.topic = {1} AND q.origin = {0} AND q.partition = {2})
RETURNING incomplete"""
"""As `move`, only for a stream without a snapshot or parked changes, whose origin alone fills
the dataset; to be formatted with the names of `move_values`' parameters."""
_TOUCH = (
    """
UPDATE fabric.streams SET position = position
WHERE origin = $1 AND topic = $2 AND partition = $3"""
    + _PLACE
)
_FIELDS = """origin, topic, partition, generation, position, ordinal, chain, "offset", cluster,
    topic_id, incomplete, snapshot"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A stream's row, locked by this transaction.

    Attributes:
        is_first: its origin filled the dataset here before any other.
        is_shared: other origins fill the dataset too.
        has_parked: some of its changes are in quarantine.
    """

    id: int
    incomplete: bool
    snapshot: str
    is_first: bool
    is_shared: bool
    has_parked: bool


async def create(connection: "asyncpg.Connection[Any]") -> None:
    """Make our schema and tables, if they are not there; holds a lock until the commit."""
    await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", _LOCK)
    exists = await connection.fetchval(
        "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = 'fabric'"
    )
    try:
        if not exists:
            await connection.execute("CREATE SCHEMA fabric")
        await connection.execute(_DDL)
        # IF NOT EXISTS would wait for who writes the table, and a mark does so for hours.
        if not await connection.fetchval(_HAS_INDEX):
            await connection.execute(_INDEX)
        if not await connection.fetchval(_NAMES_SCHEMA):  # a quarantine from before the column
            await connection.execute("ALTER TABLE fabric.quarantine ADD COLUMN schema bytea")
    except asyncpg.InsufficientPrivilegeError as exc:
        raise UsageError(
            Reason.TARGET_UNFIT,
            "the role may not make the schema fabric; let an owner run: CREATE SCHEMA fabric"
            " AUTHORIZATION <role>",
        ) from exc


async def dataset_number(connection: "asyncpg.Connection[Any]", topic: Topic, table: str) -> int:
    """The number of a dataset in a table, made on first use."""
    number: int = await connection.fetchval(
        "INSERT INTO fabric.datasets (topic, relation) VALUES ($1, $2)"
        " ON CONFLICT (topic, relation) DO UPDATE SET relation = excluded.relation RETURNING id",
        str(topic),
        table,
    )
    return number


async def move(
    connection: "asyncpg.Connection[Any]",
    stream: Stream,
    *,
    expected: StreamState | None,
    new: StreamState,
) -> Place:
    """Compare and swap; the row stays locked until the transaction ends.

    Raises:
        UnavailableError: OVERLOADED, `expected` does not stand any more.
    """
    if expected is None:
        record = await connection.fetchrow(_INSERT, *_new_values(stream, new))
    else:
        record = await connection.fetchrow(_UPDATE, *move_values(stream, expected, new))
    if record is None:
        raise UnavailableError(
            Reason.OVERLOADED, f"another writer moved {stream}; read its state again"
        )
    return Place(**dict(record))


def move_values(stream: Stream, expected: StreamState, new: StreamState) -> tuple[object, ...]:
    """The 15 parameters of a move from one state to the next."""
    return (*_new_values(stream, new), *expected.high, expected.chain)


def _new_values(stream: Stream, new: StreamState) -> tuple[object, ...]:
    place = (new.chain, new.offset, new.cluster, new.topic_id)
    return (*_where(stream), *new.high, *place, new.incomplete)


async def lock(connection: "asyncpg.Connection[Any]", stream: Stream) -> Place:
    """Take a stream's row without moving it."""
    record = await connection.fetchrow(_TOUCH, *_where(stream))
    if record is None:
        raise UsageError(Reason.INTERNAL, f"{stream} has changes in quarantine and no state")
    return Place(**dict(record))


async def mark(
    connection: "asyncpg.Connection[Any]", ident: int, *, incomplete: bool, snapshot: str
) -> None:
    """Note what the marks of a block have made of a stream."""
    await connection.execute(
        "UPDATE fabric.streams SET incomplete = $2, snapshot = $3 WHERE id = $1",
        ident,
        incomplete,
        snapshot,
    )


async def give_up_snapshots(connection: "asyncpg.Connection[Any]", topic: Topic) -> None:
    """What running snapshots have met is not known: their ends remove nothing, and the dataset
    stays incomplete until the next one."""
    await connection.execute(
        "UPDATE fabric.streams SET snapshot = 'none', incomplete = true"
        " WHERE topic = $1 AND snapshot = 'tracked'",
        str(topic),
    )


async def load(connection: "asyncpg.Connection[Any]", stream: Stream) -> StreamState | None:
    """The stored state of one stream."""
    record = await connection.fetchrow(
        f"SELECT {_FIELDS} FROM fabric.streams"  # noqa: S608  # constant
        " WHERE origin = $1 AND topic = $2 AND partition = $3",
        *_where(stream),
    )
    return _state(record) if record else None


async def load_all(
    connection: "asyncpg.Connection[Any]", topic: Topic
) -> dict[Stream, StreamState]:
    """Every stream of a topic."""
    records = await connection.fetch(
        f"SELECT {_FIELDS} FROM fabric.streams WHERE topic = $1 ORDER BY id",  # noqa: S608  # constant
        str(topic),
    )
    return {
        Stream(origin=Origin.parse(each["origin"]), topic=topic, partition=each["partition"]): (
            _state(each)
        )
        for each in records
    }


async def is_filled(connection: "asyncpg.Connection[Any]", topic: Topic) -> bool:
    """Whether some stream of the topic has a state here; asks only, so there may be no schema."""
    if not await connection.fetchval("SELECT pg_catalog.to_regclass('fabric.streams')"):
        return False
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM fabric.streams WHERE topic = $1)", str(topic)
    )
    return found


def _where(stream: Stream) -> tuple[str, str, int]:
    return str(stream.origin), str(stream.topic), stream.partition


def _state(record: Any) -> StreamState:
    return StreamState(
        high=ChangeSequence(record["generation"], record["position"], record["ordinal"]),
        chain=record["chain"],
        offset=record["offset"],
        cluster=record["cluster"],
        topic_id=record["topic_id"],
        incomplete=record["incomplete"],
        in_snapshot=record["snapshot"] != NONE,
    )
