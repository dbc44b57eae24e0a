"""A SQLite database as a target: rows, high-water sequences and quarantine in one transaction."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from fabric.database import sqlite_quarantine as quarantine
from fabric.database import sqlite_state as states
from fabric.database.sqlite_apply import Applier
from fabric.database.sqlite_tables import TargetTable, prepare
from fabric.database.sqlite_thread import SqliteThread
from fabric.model.block import Block
from fabric.model.change import Change, Op, Run
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.model.names import Stream, Topic
from fabric.ports import Applied, Parked, StreamState, Target


class SqliteSink:
    """Implements ports.ChangeSink. Foreign keys of the target are not enforced for us:

    streams arrive in an order of their own.

    Args:
        path: the database file, made when absent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._thread = SqliteThread(path, create=True, synchronous="NORMAL")
        self._tables: dict[str, TargetTable] = {}

    async def open(self, targets: Sequence[Target]) -> None:
        """Make or check every table; see ports.ChangeSink.open."""
        plain = [replace(t, table=t.table.removeprefix("main.")) for t in targets]
        names = [target.table for target in plain]
        if len(set(names)) != len(names):
            raise ConfigInvalid("apply.tables: two datasets name one table; give each its own")
        await self._thread.open()
        try:
            self._tables = await self._thread.write(lambda c: _prepare(c, plain))
        except BaseException:
            await self.close()
            raise

    async def state(self, stream: Stream) -> StreamState | None:
        """The stored state of one stream."""
        return await self._thread.call(lambda c: states.load(c, stream))

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream of the topic that has a state here."""
        return await self._thread.call(lambda c: states.load_all(c, topic))

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Write rows and state in one transaction; see ports.ChangeSink.apply."""
        table = self._table(block.stream.topic)
        return await self._thread.write(lambda c: _apply(c, table, block, (expected, new)))

    def _table(self, topic: Topic) -> TargetTable:
        table = self._tables.get(str(topic))
        if table is None:
            raise UsageError(Reason.TOPIC_UNKNOWN, f"{topic} is not applied to this database")
        return table

    async def quarantined(self, topic: Topic | None) -> Sequence[Parked]:
        """List quarantine, oldest first, without rows."""
        return await self._thread.call(lambda c: quarantine.listing(c, topic))

    async def parked(self, ident: int) -> Parked | None:
        """One parked change with its row."""
        targets = {topic: table.target for topic, table in self._tables.items()}
        found = await self._thread.call(lambda c: quarantine.fetch(c, ident, targets))
        return found[0] if found else None

    async def retry(self, ident: int) -> int:
        """Apply the parked changes of this one's key, oldest first, until one fails.

        Returns:
            How many were applied.

        Raises:
            UsageError: CONFIG_INVALID, no such change.
        """
        return await self._thread.write(lambda c: _retry(c, ident, self._tables))

    async def drop(self, ident: int) -> None:
        """Forget a parked change; its stream becomes incomplete. Raises UsageError as `retry`."""
        await self._thread.write(lambda c: _drop(c, ident, self._tables))

    async def close(self) -> None:
        """Close the connection."""
        await self._thread.close()


def _prepare(connection: sqlite3.Connection, targets: Sequence[Target]) -> dict[str, TargetTable]:
    states.create(connection)
    return {str(target.topic): prepare(connection, target) for target in targets}


def _apply(
    connection: sqlite3.Connection,
    table: TargetTable,
    block: Block,
    states_of: tuple[StreamState | None, StreamState],
) -> Applied:
    expected, new = states_of
    stored = states.load(connection, block.stream)
    if not _is_same(stored, expected):
        raise UnavailableError(
            Reason.OVERLOADED, f"another writer moved {block.stream}; read its state again"
        )
    applier = Applier(
        connection,
        table,
        stream=block.stream,
        offset=new.offset - 1,
        stops=not table.target.quarantine,
    )
    if stored is not None and stored.high.generation < block.generation:
        applier.snapshot = states.Snapshot.NONE  # it can end only in its own generation
    is_open = applier.snapshot is not states.Snapshot.NONE
    with _uncaptured(connection):
        for run in block.runs:
            applier.apply(run, block.generation)
    was = (stored.incomplete if stored else False) or new.incomplete
    state = replace(
        new,
        incomplete=_incomplete(block.runs, was, is_open=is_open),
        in_snapshot=applier.snapshot is not states.Snapshot.NONE,
    )
    states.store(connection, block.stream, state, applier.snapshot)
    return Applied(state=state, applied=applier.applied, quarantined=applier.quarantined)


def _is_same(stored: StreamState | None, expected: StreamState | None) -> bool:
    """Compare all but `incomplete`, which people may set while the stream runs."""
    if stored is None or expected is None:
        return stored is expected
    return stored == replace(expected, incomplete=stored.incomplete)


def _incomplete(runs: Sequence[Run], was: bool, *, is_open: bool) -> bool:
    """Whether rows may lack after `runs`; an end whose snapshot began elsewhere says nothing."""
    for run in runs:
        if run.op is Op.SNAPSHOT_BEGIN:
            was = is_open = True
        elif run.op is Op.SNAPSHOT_END and is_open:
            was = is_open = False
    return was


@contextmanager
def _uncaptured(connection: sqlite3.Connection) -> Iterator[None]:
    """Triggers of a capture in the same database see the flag; nobody else ever does."""
    connection.execute("INSERT INTO fabric_applying VALUES (1)")
    yield
    connection.execute("DELETE FROM fabric_applying")


def _found(
    connection: sqlite3.Connection, ident: int, tables: Mapping[str, TargetTable]
) -> tuple[Change, int, Stream]:
    targets = {topic: table.target for topic, table in tables.items()}
    found = quarantine.fetch(connection, ident, targets)
    if found is None or found[0].change is None:
        raise UsageError(
            Reason.CONFIG_INVALID, f"no change {ident} is in quarantine; list them first"
        )
    return found[0].change, found[0].offset, found[1]


def _retry(connection: sqlite3.Connection, ident: int, tables: Mapping[str, TargetTable]) -> int:
    _found(connection, ident, tables)
    done = 0
    for each in quarantine.siblings(connection, ident):
        change, offset, stream = _found(connection, each, tables)
        applier = Applier(
            connection, tables[str(stream.topic)], stream=stream, offset=offset, stops=True
        )
        applier.unpark()
        try:
            with _uncaptured(connection):
                applier.apply(_single(change), change.sequence.generation)
        except DeniedError as exc:
            connection.execute("DELETE FROM fabric_applying")
            quarantine.explain(connection, each, exc.args[0])
            break
        quarantine.forget(connection, each)
        done += 1
    return done


def _single(change: Change) -> Run:
    return Run(
        op=change.op,
        position=change.sequence.position,
        ordinal=change.sequence.ordinal,
        commit_us=change.commit_us,
        rows=[] if change.row is None else [change.row],
        absent=change.absent,
    )


def _drop(connection: sqlite3.Connection, ident: int, tables: Mapping[str, TargetTable]) -> None:
    _, _, stream = _found(connection, ident, tables)
    quarantine.forget(connection, ident)
    states.mark_incomplete(connection, stream)
