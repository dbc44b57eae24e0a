"""Snapshots while the stream goes on: keyset chunks, each closed by a watermark in the log.

DBLog (arXiv 2010.12597) with logical messages as watermarks, so no table is written. A
chunk is read and then a high mark is written; when the mark comes by in the stream, the
chunk's rows that no hidden transaction changed are emitted at the mark's position. The
low mark of the paper is replaced by the chunk's own snapshot (see postgresql_window).
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fabric.database.postgresql_blockers import told
from fabric.database.postgresql_changes import RUN_BYTES_MAX, RUN_ROWS_MAX, Mark
from fabric.database.postgresql_columns import bytes_of
from fabric.database.postgresql_session import Held, Session
from fabric.database.postgresql_token import BEGUN, DONE, Progress
from fabric.database.postgresql_unseen import Unseen
from fabric.database.postgresql_window import Window
from fabric.model.change import Op, Row, Run
from fabric.model.limits import QUEUE_BYTES_MAX
from fabric.ports import Captured

_LOG = logging.getLogger(__name__)
_FIRST_ROWS = 500
_HELD_SHOWN_S = 5.0
"""A chunk that waits so long is worth a word to who looks."""
_HELD_SAID_S = 60.0
"""And so long a word in the log."""
_HELD_AGAIN_S = 600.0
_HELD_NAMED_MAX = 8
_HINTS = {
    Held.UNSEEN: "does a commit wait for a synchronous standby (pg_stat_activity), or is a"
    " transaction long or prepared (pg_prepared_xacts)?",
    Held.LOCKED: "who holds it (pg_locks)?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    """A chunk that cannot be read yet.

    Attributes:
        since: monotonic seconds.
        xids: what is not visible yet, as of now.
    """

    topic: str
    why: Held
    since: float
    xids: frozenset[int]


class Snapshots:
    """Reads the tables that are not snapshot yet, one after the other.

    Args:
        session: reads the chunks and writes the marks.
        chunk_rows: most rows of one chunk; wide rows make chunks shorter.
    """

    def __init__(self, session: Session, chunk_rows: int) -> None:
        self._session = session
        self._chunk_rows = chunk_rows
        self._limit = min(_FIRST_ROWS, chunk_rows)
        self._awaited = ""
        self._row_bytes = 1
        self._counted: set[str] = set()
        self._wait: _Wait | None = None
        self._say_held = 0.0
        self.rows = 0
        self.total = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a mark is on its way."""
        return bool(self._awaited)

    @property
    def is_locked_out(self) -> bool:
        """Whether the last chunk was not read because the table is locked."""
        return self._wait is not None and self._wait.why is Held.LOCKED

    async def begin(self, topic: str) -> None:
        """Write the mark that begins a dataset's snapshot."""
        await self._count(topic)
        self._awaited = await self._session.emit("begin")

    async def chunk(self, topic: str, progress: Progress, unseen: Unseen) -> Window | None:
        """Read the next chunk and write its high mark.

        Args:
            unseen: transactions that went by and may not be visible yet.

        Returns:
            The window to watch, or None when one of `unseen` is not visible yet, or the table
            is locked: the caller tries again a little later. That may last; `waits` tells.

        Raises:
            DeniedError: SCHEMA_MISMATCH, a value does not fit its field.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        await self._count(topic)
        fit = self._session.fit(topic)
        found = await self._session.chunk(topic, progress.last_key, self._limit, unseen.settle)
        if isinstance(found, Held):
            self._held(topic, found, unseen.kept)
            return None
        self._wait = None
        rows, visible = found
        window = Window(fit.table.topic, await self._session.emit("high"), visible)
        window.is_last = len(rows) < self._limit
        for row in rows:
            window.add(tuple(row[name] for name in fit.table.schema.key), row)
        self._measure(rows)
        self._awaited = window.ident
        return window

    def _held(self, topic: str, why: Held, unseen: frozenset[int]) -> None:
        """A chunk cannot be read yet; the log says so once it lasts.

        The stream goes on, for all datasets: to open again would make nothing visible.
        """
        now = time.monotonic()
        if self._wait is None:
            self._say_held = now + _HELD_SAID_S
        since = self._wait.since if self._wait else now
        xids = unseen if why is Held.UNSEEN else frozenset()
        self._wait = _Wait(topic=topic, why=why, since=since, xids=xids)
        if now < self._say_held:
            return
        self._say_held = now + _HELD_AGAIN_S
        _LOG.warning(
            "the snapshot of table %s waits for %s; %s", *self._words(self._wait), _HINTS[why]
        )

    async def waits(self) -> str | None:
        """What the chunk that is to be read waits for; None when it does not, or not for long."""
        wait = self._wait
        if wait is None or time.monotonic() - wait.since < _HELD_SHOWN_S:
            return None
        found = await self._session.blockers(wait.topic, wait.xids)
        table, why = self._words(wait)
        return f"the snapshot of table {table} waits for {why}; {told(found) or _HINTS[wait.why]}"

    def _words(self, wait: _Wait) -> tuple[str, str]:
        """The table, and what is waited for."""
        xids = ", ".join(map(str, sorted(wait.xids)[:_HELD_NAMED_MAX]))
        why = f"{wait.why.value}: {xids}" if xids else wait.why.value
        return self._session.fit(wait.topic).table.table, why

    def _measure(self, rows: list[Row]) -> None:
        """Aim the next chunk at the queue's bytes."""
        sample = rows[:: max(1, len(rows) // 64)]
        self._row_bytes = max(64, sum(map(bytes_of, sample)) // max(1, len(sample)))

    def is_mark(self, mark: Mark) -> bool:
        """Whether it is the one we wait for; older ones come by after a restart."""
        return bool(self._awaited) and mark.content.get("id") == self._awaited

    def begun(self, topic: str, mark: Mark, progress: Progress) -> tuple[Captured, Progress]:
        """The begin mark came by."""
        self._awaited = ""
        run = Run(
            op=Op.SNAPSHOT_BEGIN,
            position=mark.position,
            ordinal=1,
            commit_us=mark.commit_us,
            rows=[],
        )
        captured = Captured(topic=self._session.fit(topic).table.topic, run=run)
        return captured, replace(progress, state=BEGUN, last_key=None, rows=0)

    def ended(
        self, window: Window, mark: Mark, progress: Progress
    ) -> tuple[list[Captured], Progress]:
        """The high mark came by: the chunk's rows, and the end mark after the last chunk."""
        self._awaited = ""
        chunk = window.result()
        runs: list[Captured] = []
        ordinal = 1
        for op, rows in self._pieces(chunk.rows, chunk.is_last):
            run = Run(
                op=op,
                position=mark.position,
                ordinal=ordinal,
                commit_us=mark.commit_us,
                rows=rows,
            )
            ordinal = run.last_ordinal + 1
            runs.append(Captured(topic=window.topic, run=run))
        self.rows += len(chunk.rows)
        cap = min(self._chunk_rows, max(1, QUEUE_BYTES_MAX // self._row_bytes))
        self._limit = max(1, self._limit // 2) if chunk.is_cut else min(cap, self._limit * 2)
        moved = replace(
            progress,
            state=DONE if chunk.is_last else BEGUN,
            last_key=None if chunk.is_last else chunk.last or progress.last_key,
            rows=progress.rows + len(chunk.rows),
        )
        return runs, moved

    def _pieces(self, rows: list[Row], is_last: bool) -> Iterator[tuple[Op, list[Row]]]:
        step = max(1, min(RUN_ROWS_MAX, RUN_BYTES_MAX // self._row_bytes))
        for start in range(0, len(rows), step):
            yield Op.UPSERT, rows[start : start + step]
        if is_last:
            yield Op.SNAPSHOT_END, []

    async def _count(self, topic: str) -> None:
        if topic not in self._counted:
            self._counted.add(topic)
            self.total += max(0, await self._session.count(topic))
