"""How far the reader of one partition is behind its log, and whether its stream has gone silent.

The reader says what comes, what it stands at and what it gives to its target; this looks at
the log's end beside it.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from fabric.agent.host import BlockTarget, Host
from fabric.agent.reached import Behind
from fabric.agent.subscription import Subscription
from fabric.model.block import Block
from fabric.model.errors import Reason
from fabric.model.names import Topic
from fabric.ports import Record

_LAG_S = 10.0
_SOON_S = 1.0
_ANSWER_S = 10.0


class LagMeter:
    """What one reader is measured by, for one run.

    Args:
        sink: a database is shown when it does not answer; a subscriber may take its time.
        part: the reader's name on the status board.
        has_signs: whether an idle stream still speaks; an open one does not.
    """

    def __init__(
        self,
        host: Host,
        place: tuple[Topic, int],
        *,
        sink: BlockTarget,
        part: str,
        has_signs: bool,
    ) -> None:
        self._host = host
        self._topic, self._partition = place
        self._is_database = not isinstance(sink, Subscription)
        self._part = part
        self._has_signs = has_signs
        self._position = 0
        self._came_to = 0
        self._end: int | None = None
        self._heard_at = host.clock.monotonic()
        self._appended: float | None = None
        self._committed: float | None = None
        self._given_at: float | None = None
        self._is_shown = False

    @property
    def position(self) -> int:
        """The first record that is not dealt with."""
        return self._position

    # What the reader says

    def stands_at(self, position: int) -> None:
        """Everything before `position` is dealt with; what follows may not have come yet."""
        self._position = position
        self._appended = self._committed = None
        self._goes_on()

    def came(self, records: Sequence[Record]) -> None:
        """The log gave records, which wait for their turn here."""
        if records:
            self._came_to = max(self._came_to, records[-1].offset + 1)
            self._heard_at = self._host.clock.monotonic()

    def takes(self, record: Record) -> None:
        """The first record that is not dealt with is this one."""
        self._appended = record.timestamp.timestamp()

    @contextlib.contextmanager
    def giving(self, block: Block) -> Iterator[None]:
        """Somebody waits for the target to take a block, all of whose changes are new."""
        if block.runs:
            self._committed = block.runs[0].commit_us / 1e6
        self._given_at = self._host.clock.monotonic()
        try:
            yield
        finally:
            self._given_at = None
        self._goes_on()  # where it failed, whoever deals with that shows it

    def _goes_on(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._host.telemetry.paused(self._part, None)

    # What is measured

    async def run(self) -> None:
        """Measure for ever; raises as ports.Log.bounds."""
        while True:
            is_known = await self.measure()
            await asyncio.sleep(_LAG_S if is_known else _SOON_S)

    async def measure(self) -> bool:
        """Measure once; whether the lag is known."""
        _, end = await self._host.log.bounds(str(self._topic), self._partition)
        now = self._host.clock.monotonic()
        self._listen(end, now)
        self._show_waiting(now)
        return self._host.telemetry.lag(
            self._topic,
            self._partition,
            records=max(0, end - self._position),
            heard_s=now - self._heard_at if self._has_signs else 0.0,
            behind=Behind(appended=self._appended, committed=self._committed),
        )

    def _listen(self, end: int, now: float) -> None:
        """While we do not deal with what came, nothing more is fetched: the log's end tells.

        Only then: the end alone is a broker's word, which may hide that it gives no records.
        """
        if self._position < self._came_to and self._end is not None and end > self._end:
            self._heard_at = now
        self._end = end

    def _show_waiting(self, now: float) -> None:
        """Name the database that keeps us waiting, before somebody else looks guilty."""
        if not self._is_database or self._given_at is None or now - self._given_at < _ANSWER_S:
            return
        self._is_shown = True
        self._host.telemetry.paused(self._part, Reason.DATABASE_UNAVAILABLE)
