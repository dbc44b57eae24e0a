"""What goes to an agent's metrics and nowhere else: not audited, not on the status board."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from fabric.metrics import AgentMetrics
from fabric.model.errors import Reason
from fabric.model.names import Topic
from fabric.ports import StreamState

_SPOKE = frozenset({Reason.SOURCE_UNFIT, Reason.TARGET_UNFIT})
"""Refusals of ours that a database had to answer for; it may be unfit, and is there."""


class Waiting(NamedTuple):
    """Changes of one dataset in quarantine: how many, and the oldest one's commit (Unix seconds).

    The commit is 0 where nothing waits.
    """

    records: int
    oldest: float


class Measures:
    """Figures of one agent; Telemetry adds what people are told beside them."""

    def __init__(self, metrics: AgentMetrics) -> None:
        self._metrics = metrics

    def publishes(self, topic: Topic, suite: str, source: str) -> None:
        """A lane for a dataset of a source was made; `suite` is empty for the open form."""
        self._metrics.publishes(topic, suite, source)

    def sealing_took(self, topic: Topic, suite: str, seconds: float) -> None:
        """One block was sealed."""
        self._metrics.seal_took(topic.level, suite, seconds)

    def figures(self, source: str, status: Mapping[str, float], now: datetime) -> None:
        """A source told how far it is, asked at `now`."""
        self._metrics.capture_figures(source, status, now)

    def captures(self, source: str) -> None:
        """A source is to be read; until it tells something it has given no sign of life."""
        self._metrics.captures(source)

    def reads(self, topic: Topic, suite: str) -> None:
        """A reader of a dataset was made; `suite` is empty for the open form."""
        self._metrics.reads(topic, suite)

    def database(self, kind: str, name: str, reason: Reason | None) -> None:
        """A database answered what it was asked; else `reason` says why it did not."""
        self._metrics.database(kind, name, reason is None or reason in _SPOKE)

    def produce_took(self, topic: Topic, seconds: float) -> None:
        """A block was sent and acknowledged, and that took so long."""
        self._metrics.produce_took(topic, seconds)

    def apply_took(self, topic: Topic, seconds: float) -> None:
        """The target took a block, and that took so long."""
        self._metrics.apply_took(topic, seconds)

    def outbox(self, source: str, changes: int) -> None:
        """So many changes of a source are read and not acknowledged."""
        self._metrics.outbox(source, changes)

    def may_grant(self, topic: Topic) -> None:
        """This host may give out keys of a dataset."""
        self._metrics.may_grant(topic)

    def granted(self, topic: Topic, wraps: int) -> None:
        """So many hosts were given the secret of an epoch."""
        self._metrics.granted(topic, wraps)

    def stands(self, topic: Topic, states: Iterable[StreamState]) -> None:
        """A reader begins, and its target holds this of the dataset's streams."""
        self._metrics.stood_incomplete(topic, any(state.incomplete for state in states))

    def quarantine(self, topic: Topic, waiting: Waiting) -> None:
        """What waits for a person."""
        self._metrics.quarantine(topic, waiting.records, waiting.oldest)
