"""Writes the runs of one block to a SQLite table, inside the sink's transaction.

A run is one batch. When a batch fails on a row, it is halved under savepoints until
the row stands alone: 1,000 good rows with one bad cost about ten extra statements,
not a thousand.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import assert_never

from fabric.database import sqlite_quarantine as quarantine
from fabric.database.sqlite_state import Snapshot, origin_ids, snapshot_of
from fabric.database.sqlite_tables import Statement, TargetTable
from fabric.model.change import Change, Op, Ordinals, Row, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import (
    DeniedError,
    FabricError,
    Malformed,
    Reason,
    UsageError,
    sqlite_name,
)
from fabric.model.names import Stream
from fabric.model.partition import key_bytes

_POISON = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
)
"""What one row can cause; everything else is the database's trouble and not the row's."""
_NAMES_COLUMNS = frozenset(
    f"SQLITE_CONSTRAINT_{kind}"
    for kind in ("CHECK", "DATATYPE", "FOREIGNKEY", "NOTNULL", "PRIMARYKEY", "ROWID", "UNIQUE")
)
"""Errors whose text names constraints and columns only. Others' may quote the row: a trigger's
is the target's own."""


class Applier:
    """Applies one stream's changes to one table in the transaction that is open.

    Args:
        offset: of the record that carries the changes, for the quarantine.
        stops: raise at the first change that cannot be applied.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: TargetTable,
        *,
        stream: Stream,
        offset: int,
        stops: bool,
    ) -> None:
        self._connection = connection
        self._table = table
        self._stream = stream
        self._offset = offset
        self._stops = stops
        own, first, count = origin_ids(connection, stream)
        self._is_first, self._is_shared = own == first, count > 1
        self._place = {"origin": own, "part": stream.partition}
        self._parked = quarantine.parked_keys(connection, stream)
        self._room: int | None = None
        self._ordinals = Ordinals()
        self.snapshot = snapshot_of(connection, stream)
        self.applied = 0
        self.quarantined = 0

    def apply(self, run: Run, generation: int) -> None:
        """Apply one run.

        Raises:
            DeniedError: APPLY_FAILED, when this target stops at such changes.
        """
        match run.op:
            case Op.UPSERT:
                self._batch(_Part(run, generation, self._upsert))
            case Op.DELETE:
                self._batch(_Part(run, generation, self._delete))
            case Op.TRUNCATE:
                self._on_mark(self._truncate)
            case Op.SNAPSHOT_BEGIN:
                self._begin()
            case Op.SNAPSHOT_END:
                self._on_mark(self._end)
            case Op.SCHEMA:
                self.applied += 1
            case _:
                assert_never(run.op)

    def unpark(self) -> None:
        """Treat no key as parked: a retry applies the parked changes themselves."""
        self._parked.clear()

    def _batch(self, part: "_Part") -> None:
        free = self._without_parked(part)
        if not free.rows:
            return
        try:
            with _savepoint(self._connection):
                free.write(free.run, free.rows)
        except _POISON as exc:
            if len(free.rows) == 1:
                self._refuse(free, exc)
                return
        else:
            self.applied += len(free.rows)
            return
        first, second = free.halves()
        self._batch(first)
        self._batch(second)

    def _without_parked(self, part: "_Part") -> "_Part":
        """Park the changes whose key has a parked change already; the rest."""
        if not self._parked:
            return part
        free: list[int] = []
        for place, row in enumerate(part.rows):
            if self._key(row) in self._parked:
                self._park(part, place)
            else:
                free.append(place)
        return part if len(free) == len(part.rows) else part.only(free)

    def _key(self, row: Row) -> bytes:
        return key_bytes(self._table.target.schema, row)

    def _refuse(self, part: "_Part", exc: Exception) -> None:
        reason = why(exc)
        if self._stops:
            raise DeniedError(
                Reason.APPLY_FAILED,
                f"table {self._table.target.table}: a change cannot be applied: {reason}",
            ) from None  # the cause may quote the value
        self._park(part, 0)
        quarantine.explain(self._connection, None, reason)

    def _park(self, part: "_Part", place: int) -> None:
        row = part.rows[place]
        key = self._key(row)
        self._take_room()
        change = part.change(place, self._stream, self._ordinals)
        where = (self._stream, self._offset, key)
        quarantine.park(self._connection, change, self._table.target, where)
        self._parked.add(key)
        self.quarantined += 1
        if part.run.op is Op.UPSERT and self.snapshot is Snapshot.TRACKED:
            # The source has this key; the row we hold of it must outlive the snapshot's end.
            try:
                self._see([row])
            except _POISON:
                return  # a key that cannot be bound is in no row either

    def _take_room(self) -> None:
        if self._room is None:
            self._room = quarantine.room(self._connection)
        if self._room <= 0:
            raise DeniedError(
                Reason.APPLY_FAILED, "quarantine is full; retry or drop some of its changes"
            )
        self._room -= 1

    def _upsert(self, run: Run, rows: Sequence[Row]) -> None:
        insert, update = self._table.upsert(run.absent)
        if update is None:
            self._many(insert, rows)
        else:
            for row in rows:
                if not self._connection.execute(update.sql, update.values(row)).rowcount:
                    self._connection.execute(insert.sql, insert.values(row))
        if not self._is_first:
            values = self._table.key_values
            origin = self._place["origin"]
            self._connection.executemany(self._table.own, [(origin, *values(row)) for row in rows])
        elif self._is_shared:
            self._disown(rows)
        if self.snapshot is Snapshot.TRACKED:
            self._see(rows)

    def _delete(self, _run: Run, rows: Sequence[Row]) -> None:
        self._many(self._table.delete, rows)
        if self._is_shared:
            self._disown(rows)

    def _many(self, statement: Statement, rows: Sequence[Row]) -> None:
        values = statement.values
        self._connection.executemany(statement.sql, [values(row) for row in rows])

    def _disown(self, rows: Sequence[Row]) -> None:
        values = self._table.key_values
        self._connection.executemany(self._table.disown, [values(row) for row in rows])

    def _see(self, rows: Sequence[Row]) -> None:
        values = self._table.key_values
        place = (self._place["origin"], self._place["part"])
        self._connection.executemany(self._table.see, [(*place, *values(row)) for row in rows])

    def _on_mark(self, work: Callable[[], None]) -> None:
        """Marks touch many rows, so one that fails has no key to park: it stops the stream."""
        try:
            with _savepoint(self._connection):
                work()
        except sqlite3.IntegrityError as exc:
            raise DeniedError(
                Reason.APPLY_FAILED,
                f"table {self._table.target.table}: rows cannot be removed: {why(exc)}",
            ) from exc
        self.applied += 1

    def _truncate(self) -> None:
        self._remove(self._own)
        self._clear_seen()
        quarantine.forget_stream(self._connection, self._stream)
        self._parked.clear()

    def _begin(self) -> None:
        self._clear_seen()
        own = self._connection.execute(
            f"SELECT 1 FROM {self._table.name} AS t WHERE {self._own} LIMIT 1",  # noqa: S608  # quoted
            self._place,
        ).fetchone()
        self.snapshot = Snapshot.TRACKED if own else Snapshot.UNTRACKED
        self.applied += 1

    def _end(self) -> None:
        if self.snapshot is Snapshot.TRACKED:
            self._remove(f"{self._own} AND {self._table.unseen()}")
        self._clear_seen()
        self.snapshot = Snapshot.NONE

    @property
    def _own(self) -> str:
        return self._table.of_stream(self._is_first)

    def _remove(self, condition: str) -> None:
        table = self._table
        self._connection.execute(
            f"DELETE FROM {table.name} AS t WHERE {condition}",  # noqa: S608  # quoted
            self._place,
        )
        if not self._is_first:
            keys = table.key_list
            self._connection.execute(
                f"DELETE FROM {table.owned} WHERE origin = :origin AND ({keys}) NOT IN"  # noqa: S608  # quoted
                f" (SELECT {keys} FROM {table.name})",
                self._place,
            )

    def _clear_seen(self) -> None:
        self._connection.execute(
            f"DELETE FROM {self._table.seen} WHERE origin = :origin AND part = :part",  # noqa: S608  # quoted
            self._place,
        )


class _Part:
    """Some rows of one run that are written together, with their ordinals."""

    def __init__(
        self,
        run: Run,
        generation: int,
        write: Callable[[Run, Sequence[Row]], None],
        places: Sequence[int] | None = None,
    ) -> None:
        self.run = run
        self.write = write
        self._generation = generation
        self._places: Sequence[int] = range(len(run.rows)) if places is None else places
        self.rows = run.rows if places is None else [run.rows[place] for place in places]

    def only(self, places: Sequence[int]) -> "_Part":
        """The part with these of its rows."""
        kept = [self._places[place] for place in places]
        return _Part(self.run, self._generation, self.write, kept)

    def halves(self) -> tuple["_Part", "_Part"]:
        """Two parts, in order."""
        middle = len(self.rows) // 2
        return self.only(range(middle)), self.only(range(middle, len(self.rows)))

    def change(self, place: int, stream: Stream, ordinals: Ordinals) -> Change:
        """One row as a change."""
        run = self.run
        ordinal = ordinals.at(run, self._places[place])
        return Change(
            topic=stream.topic,
            origin=stream.origin,
            op=run.op,
            sequence=ChangeSequence(self._generation, run.position, ordinal),
            commit_us=run.commit_us,
            row=self.rows[place],
            absent=run.absent,
        )


def why(exc: Exception) -> str:
    """Why a row was refused, in words that hold no value of it."""
    if isinstance(exc, sqlite3.Error):
        name = sqlite_name(exc)
        return f"{name}: {exc}" if name in _NAMES_COLUMNS else name
    if isinstance(exc, Malformed | FabricError):
        return str(exc)
    return "a value does not fit its column"


@contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT fabric_batch")
    try:
        yield
    except BaseException:
        if not connection.in_transaction:
            raise UsageError(
                Reason.TARGET_UNFIT,
                "a constraint or trigger of the table rolls back whole transactions;"
                " let it abort the statement instead",
            ) from None
        connection.execute("ROLLBACK TO fabric_batch")
        connection.execute("RELEASE fabric_batch")
        raise
    connection.execute("RELEASE fabric_batch")
