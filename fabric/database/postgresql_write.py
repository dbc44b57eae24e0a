"""Writes rows of one dataset through one connection: in bulk, each key at most once.

Few rows go as array parameters, many through a COPY into a temporary table; which is
faster was measured.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asyncpg

from fabric.database.postgresql_reduce import Plan
from fabric.database.postgresql_state import TRACKED, Place
from fabric.database.postgresql_tables import TargetTable
from fabric.model.change import Row
from fabric.model.columns import values_of

COPY_ROWS_MIN = 500
"""From so many rows on a COPY is faster than array parameters."""
PIECE_ROWS = 5_000
"""Keys in memory while rows are chosen for deletion."""


class Missing(ValueError):
    """A change lacks columns, and the row that should have them is not there."""


class TableWriter:
    """One dataset, one stream, one transaction.

    Args:
        snapshot: the stream's snapshot state; kept up to date by the caller.
    """

    def __init__(
        self,
        connection: "asyncpg.Connection[Any]",
        table: TargetTable,
        *,
        place: Place,
        origin: str,
    ) -> None:
        self._connection = connection
        self._table = table
        self._place = place
        self._origin = origin
        self._is_staged = False
        self.snapshot = place.snapshot
        self.incomplete = place.incomplete

    async def write(self, plan: Plan) -> None:
        """Write a plan.

        Raises:
            Missing: an update of some columns found no row, and the dataset is complete.
            ValueError, KeyError, TypeError, asyncpg.PostgresError: a value does not fit.
        """
        table = self._table
        if plan.deletes:
            source, values = await self._source(table.target.schema.key, plan.deletes)
            await self._run(table.delete(source), values)
            if self._place.is_shared:
                await self._run(table.disown(source), values)
        if plan.upserts:
            source, values = await self._source(table.target.schema.fields, plan.upserts)
            await self._run(table.upsert(source), values)
            await self._note(source, values)
        for absent, rows in plan.partials.items():
            await self._update(absent, rows)

    async def _update(self, absent: Sequence[str], rows: Sequence[Row]) -> None:
        table = self._table
        names = [name for name in table.target.schema.fields if name not in absent]
        source, values = await self._source(names, rows)
        done = await self._run(table.update(source, absent), values)
        # While a snapshot runs, the row may come with a later chunk, whole.
        if done != len(rows) and not self.incomplete:
            raise Missing("a row to update is missing")
        await self._note(source, values)

    async def _note(self, source: str, values: Sequence[Any]) -> None:
        """Remember whose rows were written, and that the running snapshot has met them."""
        table, place = self._table, self._place
        if not place.is_first:
            mark = f"${len(values) + 1}"
            await self._run(table.own(source, mark), [*values, self._origin])
        elif place.is_shared:
            await self._run(table.disown(source), values)
        if self.snapshot == TRACKED:
            await self._run(table.see(source, place.id), values)

    async def see(self, row: Row) -> None:
        """The source has this key, though its row could not be written."""
        if self.snapshot == TRACKED:
            source, values = await self._source(self._table.target.schema.key, [row])
            await self._run(self._table.see(source, self._place.id), values)

    async def delete_own(self, condition: str, wanted: Callable[[Row], bool] | None) -> None:
        """Delete this origin's rows.

        Args:
            condition: further condition on `t`, or empty.
            wanted: keys to delete; None when the condition says it all.
        """
        table, place = self._table, self._place
        mine = table.mine(is_first=place.is_first, is_shared=place.is_shared)
        where = f"{mine} AND {condition}" if condition else mine
        if wanted is not None:
            await self._delete_chosen(where, wanted)
        else:
            await self._run(f"DELETE FROM {table.name} AS t WHERE {where}", [self._origin])  # noqa: S608  # quoted
        if not place.is_first:
            await self._run(
                f"DELETE FROM {table.owned} AS o WHERE o.fabric_origin = $1::text AND NOT EXISTS"  # noqa: S608  # quoted
                f" (SELECT FROM {table.name} AS t WHERE {table.match('o')})",
                [self._origin],
            )

    async def _delete_chosen(self, where: str, wanted: Callable[[Row], bool]) -> None:
        """The cursor reads in the snapshot it began with, whatever is deleted meanwhile."""
        table = self._table
        found: list[Row] = []
        query = f"SELECT {table.keys()} FROM {table.name} AS t WHERE {where}"  # noqa: S608  # quoted
        async for record in self._connection.cursor(query, self._origin, prefetch=PIECE_ROWS):
            (row,) = table.key_rows([record])
            if wanted(row):
                found.append(row)
            if len(found) == PIECE_ROWS:
                await self.write(Plan(deletes=found))
                found = []
        await self.write(Plan(deletes=found))

    async def has_own(self) -> bool:
        """Whether the table holds rows of this origin."""
        table, place = self._table, self._place
        mine = table.mine(is_first=place.is_first, is_shared=place.is_shared)
        found = await self._connection.fetchval(
            f"SELECT true FROM {table.name} AS t WHERE {mine} LIMIT 1",  # noqa: S608  # quoted
            self._origin,
        )
        return bool(found)

    async def forget_seen(self) -> None:
        """Forget the keys of the running snapshot."""
        await self._connection.execute(
            f"DELETE FROM {self._table.seen} WHERE fabric_stream = $1",  # noqa: S608  # ours
            self._place.id,
        )

    def unseen(self) -> str:
        """The condition for rows that the running snapshot has not met."""
        return self._table.unseen(self._place.id)

    async def _source(self, names: Sequence[str], rows: Sequence[Row]) -> tuple[str, list[Any]]:
        """Send rows; the source `v` to take them from, and the statement's parameters."""
        table = self._table
        places = table.places(names)
        sent = columns_of_rows(table, names, rows)
        if len(rows) < COPY_ROWS_MIN:
            return table.arrays(places), sent
        await self._stage(places, zip(*sent, strict=True))
        return table.staged(), []

    async def _stage(self, places: Sequence[int], records: Iterable[tuple[Any, ...]]) -> None:
        table = self._table
        if self._is_staged:
            await self._connection.execute(f"TRUNCATE pg_temp.{table.staging}")
        self._is_staged = True
        await self._connection.copy_records_to_table(
            table.staging,
            schema_name="pg_temp",
            columns=[f"c{place}" for place in places],
            records=records,
        )

    async def _run(self, statement: str, values: Sequence[Any]) -> int:
        status = await self._connection.execute(statement, *values)
        return int(status.rpartition(" ")[2])


def columns_of_rows(
    table: TargetTable, names: Sequence[str], rows: Sequence[Row]
) -> list[list[Any]]:
    """The named columns of `rows` as asyncpg takes them, one list a column.

    Raises:
        ValueError, KeyError, TypeError: a value does not fit.
    """
    sent: list[list[Any]] = []
    for name, place in zip(names, table.places(names), strict=True):
        convert = table.columns[place].convert
        values: list[Any] = values_of(rows, name)
        if convert is not None:
            values = [None if value is None else convert(value) for value in values]
        sent.append(values)
    return sent


async def make_staging(connection: "asyncpg.Connection[Any]", table: TargetTable) -> None:
    """Make the connection's temporary table; it empties itself at every commit."""
    parts = ", ".join(f"c{place} {each.wire}" for place, each in enumerate(table.columns))
    await connection.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {table.staging} ({parts}) ON COMMIT DELETE ROWS"
    )
