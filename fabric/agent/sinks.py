"""A target database that may go away: opened on demand, thrown away when it failed."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from fabric.agent.measures import Waiting
from fabric.agent.view import WorldView
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.names import Topic
from fabric.policy.types import Dataset
from fabric.ports import ChangeSink, Target

_CLOSE_S_MAX = 5.0


class SinkHolder:
    """The sink of one apply, shared by the readers of its topics.

    Args:
        tables: topic to table.
        make: makes a sink that is not open yet.
        told: gets None when the database answered what it was asked, else why it did not.
    """

    def __init__(
        self,
        tables: Mapping[Topic, str],
        make: Callable[[], ChangeSink],
        view: WorldView,
        *,
        told: Callable[[Reason | None], None] = lambda _reason: None,
    ) -> None:
        self._tables = tables
        self._make = make
        self._view = view
        self._told = told
        self._sink: ChangeSink | None = None
        self._opened: Mapping[Topic, Target] = {}
        self._lock = asyncio.Lock()

    async def use(self, topic: Topic) -> ChangeSink:
        """The open sink, which serves `topic` as the policy has it now.

        Raises:
            DeniedError: TOPIC_UNKNOWN, no dataset of the policy has this topic.
            UsageError, UnavailableError: as ChangeSink.open.
        """
        async with self._lock:
            # Again after opening: the policy may have changed meanwhile, and a sink that
            # writes what a dataset was drops the new columns of its rows in silence.
            while True:
                wanted = self._wanted().get(topic)
                if wanted is None:
                    raise DeniedError(Reason.TOPIC_UNKNOWN, f"{topic} is no dataset of the policy")
                if self._sink is not None and self._opened.get(topic) == wanted:
                    return self._sink
                await self._close()
                await self._open()

    async def _open(self) -> None:
        targets = self._wanted()
        sink = self._make()
        try:
            await sink.open([*targets.values()])
        except FabricError as exc:
            self._told(exc.reason)
            raise
        self._told(None)
        self._sink, self._opened = sink, targets

    def _wanted(self) -> Mapping[Topic, Target]:
        """The targets as the policy has them now."""
        return {
            topic: target_of(dataset, table)
            for topic, table in self._tables.items()
            if (dataset := self._view.dataset(topic)) is not None
        }

    async def count_quarantine(self) -> Mapping[Topic, Waiting]:
        """Parked changes by topic; empty while the sink is not open."""
        sink = self._sink
        if sink is None:
            return {}
        try:
            found = {topic: await _waiting(sink, topic) for topic in [*self._opened]}
        except FabricError as exc:
            if self._sink is sink:  # one that was thrown away meanwhile tells nothing
                self._told(exc.reason)
            raise
        self._told(None)
        return found

    async def broken(self, sink: ChangeSink) -> None:
        """Throw this sink away; the next `use` opens another.

        Nothing happens when another reader has done so: the one that is open now is not broken.
        """
        async with self._lock:
            if self._sink is sink:
                await self._close()

    async def close(self) -> None:
        """Close the sink, if it is open."""
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            with contextlib.suppress(FabricError, TimeoutError, OSError):
                async with asyncio.timeout(_CLOSE_S_MAX):
                    await sink.close()


async def _waiting(sink: ChangeSink, topic: Topic) -> Waiting:
    """What of a topic is parked; only the oldest one's row is fetched, for its time."""
    parked = await sink.quarantined(topic)
    first = await sink.parked(parked[0].id) if parked else None
    change = None if first is None else first.change
    return Waiting(len(parked), 0.0 if change is None else change.commit_us / 1e6)


def target_of(dataset: Dataset, table: str) -> Target:
    """What a sink must know of a dataset that it writes to `table`."""
    return Target(
        topic=dataset.topic,
        table=table,
        schema=dataset.schema,
        quarantine=dataset.on_unappliable == "quarantine",
        partitions=dataset.partitions,
        salt=dataset.salt,
    )
