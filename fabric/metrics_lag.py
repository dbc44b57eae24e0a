"""Metric families of sources, targets, lag and grants; fabric/metrics.py puts them into its roles.

Gauges of a stream exist while somebody reads it here: what nobody reads any more has no
figures, and the time of measurement says which of the others still hold.
"""

import math
from collections.abc import Mapping
from datetime import datetime

from fabric.families import one_of, start
from fabric.metrics_audit import ReceiptFamilies
from fabric.model.names import Topic

WAYS = ("sends", "applies")
DATABASES = ("source", "target")
"""What a database is to the agent."""
_DATASET = ("topic", "level")


class LagFamilies(ReceiptFamilies):
    """What an agent shows of sources and targets that are ahead or behind."""

    def __init__(self) -> None:
        super().__init__()
        stream = ("topic", "partition", "level")
        self._lag_records = self._gauge(
            "consumer_lag_records", "Records in the log that are not applied yet.", stream
        )
        self._lag_seconds = self._gauge(
            "consumer_lag_seconds",
            "Age, by source commit, of the oldest change not applied; 0 when caught up.",
            stream,
        )
        self._measured = self._gauge(
            "consumer_lag_timestamp_seconds", "When the lag was last measured; 0: never.", stream
        )
        self._silent = self._gauge("stream_silent", "1 when three empty blocks are due.", stream)
        self._oldest = self._gauge(
            "quarantine_oldest_timestamp_seconds", "Commit of the oldest; 0: none.", _DATASET
        )
        self._grants = self._counter("grants_given_total", "Wraps acknowledged.", _DATASET)
        self._quarantine = self._gauge("quarantine_records", "Waiting for a person.", _DATASET)
        self._incomplete = self._gauge("dataset_incomplete", "1 while rows may lack.", _DATASET)
        self._last = self._gauge("last_change_timestamp_seconds", "Commit.", (*_DATASET, "way"))
        self._make_sources(("source",))
        self._database = self._gauge(
            "database_up",
            "1 answers, 0 does not, NaN was not asked yet.",
            ("kind", "database"),
        )

    def _make_sources(self, source: tuple[str, ...]) -> None:
        self._capture_lag = self._gauge(
            "capture_lag_seconds", "Age of the oldest unacknowledged commit; 0 when idle.", source
        )
        self._capture_bytes = self._gauge("capture_lag_bytes", "Log kept for us.", source)
        self._capture_released = self._gauge(
            "capture_released_bytes", "Place in the source's log before which all is done.", source
        )
        self._capture_beat = self._gauge(
            "capture_heartbeat_timestamp_seconds", "Last sign of life; 0: none yet.", source
        )
        self._outbox = self._gauge("outbox_records", "Changes read, not acknowledged.", source)
        self._snapshot_left = self._gauge(
            "snapshot_rows_remaining", "Rows of the snapshot still to be read.", source
        )

    # Databases

    def has_database(self, kind: str, name: str) -> None:
        """The configuration names a database; nobody has asked it anything yet."""
        self._database.labels(one_of(kind, DATABASES), name).set(math.nan)

    def database(self, kind: str, name: str, answers: bool) -> None:
        """Whether a database answered what it was asked last; `kind` is one of DATABASES."""
        self._database.labels(one_of(kind, DATABASES), name).set(int(answers))

    # Sources

    def captures(self, source: str) -> None:
        """This agent is to read a source, which has given no sign of life yet."""
        self._capture_beat.labels(source)

    def capture_figures(self, source: str, status: Mapping[str, float], at: datetime) -> None:
        """What a source said of itself, asked at this time; see ports.ChangeSource.status."""
        self.capture_lag(
            source,
            seconds=status.get("lag_seconds", 0.0),
            log_bytes=status.get("lag_bytes", 0.0),
            rows_left=status.get("snapshot_total", 0.0) - status.get("snapshot_rows", 0.0),
        )
        if (released := status.get("log_released")) is not None:
            self.capture_released(source, released)
        self.capture_alive(source, at)

    def capture_lag(
        self, source: str, *, seconds: float, log_bytes: float, rows_left: float
    ) -> None:
        """How far a source is ahead of what is acknowledged."""
        self._capture_lag.labels(source).set(max(0.0, seconds))
        self._capture_bytes.labels(source).set(max(0.0, log_bytes))
        self._snapshot_left.labels(source).set(max(0.0, rows_left))

    def outbox(self, source: str, changes: int) -> None:
        """So many changes of a source are read and not acknowledged."""
        self._outbox.labels(source).set(changes)

    def capture_released(self, source: str, place: float) -> None:
        """Up to where in a source's log, of those that have one, everything is acknowledged."""
        self._capture_released.labels(source).set(place)

    def capture_alive(self, source: str, at: datetime) -> None:
        """A source gave a sign of life."""
        self._capture_beat.labels(source).set(at.timestamp())

    # Grants

    def may_grant(self, topic: Topic) -> None:
        """This agent may give out keys of a dataset: its counter begins at zero."""
        start(self._grants, [_dataset(topic)])

    def granted(self, topic: Topic, wraps: int) -> None:
        """So many hosts were given the secret of an epoch."""
        self._grants.labels(*_dataset(topic)).inc(wraps)

    # Targets

    def reads_stream(self, topic: Topic, partition: int) -> None:
        """This agent is to read a stream, whose lag may not have been measured yet."""
        self._measured.labels(*_stream(topic, partition))

    def forget_stream(self, topic: Topic, partition: int) -> None:
        """Nobody here reads a stream any more."""
        for family in (self._lag_records, self._lag_seconds, self._measured, self._silent):
            family.remove(*_stream(topic, partition))

    def forget_applied(self, topic: Topic) -> None:
        """Nobody here reads a dataset any more: what is true of its target is not known."""
        for family in (self._quarantine, self._oldest, self._incomplete):
            family.remove(*_dataset(topic))
        self._last.remove(*_dataset(topic), WAYS[1])

    def lag(
        self, topic: Topic, partition: int, *, records: int, seconds: float, measured: float
    ) -> None:
        """How far a stream's target is behind its log, and when that was seen (Unix seconds)."""
        place = _stream(topic, partition)
        self._lag_records.labels(*place).set(max(0, records))
        self._lag_seconds.labels(*place).set(max(0.0, seconds) if records > 0 else 0.0)
        self._measured.labels(*place).set(measured)

    def silent(self, topic: Topic, partition: int, is_silent: bool) -> None:
        """Whether a stream's sender has gone silent."""
        self._silent.labels(*_stream(topic, partition)).set(int(is_silent))

    def quarantine(self, topic: Topic, records: int, oldest: float = 0.0) -> None:
        """How many changes of a dataset wait for a person, and the first one's commit."""
        self._quarantine.labels(*_dataset(topic)).set(records)
        self._oldest.labels(*_dataset(topic)).set(oldest)

    def stood_incomplete(self, topic: Topic, was_incomplete: bool) -> None:
        """What the target held when a reader began; another one may know worse already."""
        child = self._incomplete.labels(*_dataset(topic))
        if was_incomplete:
            child.set(1)

    def incomplete(self, topic: Topic, is_incomplete: bool) -> None:
        """Whether the target may lack rows."""
        self._incomplete.labels(*_dataset(topic)).set(int(is_incomplete))

    def moved(self, topic: Topic, way: str, commit: float) -> None:
        """The last change sent or applied, by one of WAYS, was committed then (Unix seconds)."""
        self._last.labels(*_dataset(topic), one_of(way, WAYS)).set(commit)


def _dataset(topic: Topic) -> tuple[str, str]:
    return str(topic), topic.level


def _stream(topic: Topic, partition: int) -> tuple[str, str, str]:
    return str(topic), str(partition), topic.level
