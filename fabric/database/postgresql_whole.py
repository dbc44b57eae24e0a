"""Changes of which the log holds a part of the row, made whole with the rest as it is now.

Large values make such rows: they are read in small groups, and each group is given out before
the next is read, so that no run of them is ever in memory at once.
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from fabric.database.postgresql_changes import RUN_BYTES_MAX
from fabric.database.postgresql_columns import bytes_of
from fabric.database.postgresql_session import Session, held_until
from fabric.database.postgresql_token import Gone
from fabric.model.change import Row, Run
from fabric.ports import Captured

_FIRST_ROWS = 4
"""Rows of a run that are read before it is known how large they are."""
_ROWS_MAX = 100


def filled(row: Row, found: Row, absent: Sequence[str]) -> Row:
    """The row of a change, with what the log leaves out as it was found.

    That may be of a later state, which comes again: large values, seldom unique.
    """
    return {**row, **{name: found[name] for name in absent}}


async def whole(
    session: Session, captured: Captured, gone: Gone, xid: int
) -> AsyncIterator[Captured]:
    """A run of parts of rows, with those of `gone` rows made whole, or left out when not there.

    Args:
        xid: the transaction of the run.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, also when the table cannot be read for long.
    """
    run, topic = captured.run, str(captured.topic)
    key = session.fit(topic).table.schema.key
    has = [gone.has(tuple(row[name] for name in key)) for row in run.rows]
    ends, limit = held_until(), _FIRST_ROWS
    for start, stop in _stretches(has):
        if not has[start]:
            yield replace(captured, run=run.part(start, stop))
            continue
        place = start
        while place < stop:
            group = run.part(place, min(stop, place + limit))
            found = await session.fetch(topic, group.rows, xid, ends=ends)
            limit = _next(limit, found)
            place += group.count
            given = time.monotonic()
            for each in _runs(group, found):
                yield replace(captured, run=each)
            ends += time.monotonic() - given  # who takes them may be slow


def _next(limit: int, found: Sequence[Row | None]) -> int:
    """How many rows to read after these: as many as a run holds, and not much more at once."""
    largest = max([1, *(bytes_of(row) for row in found if row is not None)])
    return max(1, min(_ROWS_MAX, limit * 2, RUN_BYTES_MAX // largest))


def _runs(group: Run, found: Sequence[Row | None]) -> Iterator[Run]:
    """The rows of a group that are there; where one is not, a run ends."""
    for start, stop in _stretches([row is not None for row in found]):
        rows = [
            filled(row, now, group.absent)
            for row, now in zip(group.rows[start:stop], found[start:stop], strict=True)
            if now is not None
        ]
        if rows:
            yield replace(group.part(start, stop), rows=rows, absent=())


def _stretches(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Start and stop of each stretch of places with the same flag."""
    stop = 0
    for _, same in groupby(flags):
        start, stop = stop, stop + len(list(same))
        yield start, stop
