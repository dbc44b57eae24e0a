"""How far behind something is, and when the agent measured that.

Pure. A gauge keeps its last value for as long as nobody measures, and is zero before the
first time: without the time of its measurement it says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.cli.samples import Page

AGE_MAX = timedelta(seconds=30)
"""Age above which a figure says nothing: three times as long as agents take to measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A lag; without any figure where `is_known` is false.

    Attributes:
        at: when it was measured, of several partitions the one longest ago; None for never.
        records: of the log, not applied yet; None for captures, which have no log.
        log_bytes: the source's change log kept for the capture; None for applies.
        log_released: place in that log before which everything is acknowledged, in bytes; None
            for sources without one.
        rows_left: of snapshots, still to be read; 0 only when none is under way. None for applies.
    """

    at: datetime | None
    is_known: bool
    records: int | None = None
    seconds: float | None = None
    log_bytes: int | None = None
    log_released: int | None = None
    rows_left: int | None = None


def of_capture(page: Page, source: str) -> Measured:
    """How far a source is ahead of what the platform has acknowledged."""
    at = page.samples.time("capture_heartbeat_timestamp_seconds", source=source)
    if not _is_known(page, at):
        return Measured(at=at, is_known=False)

    def whole(name: str) -> int | None:
        found = page.samples.value(name, source=source)
        return None if found is None else int(found)

    return Measured(
        at=at,
        is_known=True,
        seconds=page.samples.value("capture_lag_seconds", source=source),
        log_bytes=whole("capture_lag_bytes"),
        log_released=whole("capture_released_bytes"),
        rows_left=whole("snapshot_rows_remaining"),
    )


def of_partition(page: Page, topic: str, number: int, *, is_whole: bool = True) -> Measured:
    """How far a target is behind one partition of a topic.

    Args:
        is_whole: whether nothing is passed over; a figure would say nothing of what lacks.
    """
    place = {"topic": topic, "partition": str(number)}
    at = page.samples.time("consumer_lag_timestamp_seconds", **place)
    if not is_whole or not _is_known(page, at):
        return Measured(at=at, is_known=False)
    records = page.samples.value("consumer_lag_records", **place)
    return Measured(
        at=at,
        is_known=True,
        records=None if records is None else int(records),
        seconds=page.samples.value("consumer_lag_seconds", **place),
    )


def of_all(parts: Sequence[Measured]) -> Measured:
    """The sum of records and the longest time; not known when one partition's is not."""
    if unknown := [part for part in parts if not part.is_known]:
        return Measured(at=_oldest(unknown), is_known=False)
    return Measured(
        at=_oldest(parts),
        is_known=True,
        records=sum(part.records or 0 for part in parts),
        seconds=max(part.seconds or 0.0 for part in parts),
    )


def _oldest(parts: Sequence[Measured]) -> datetime | None:
    """When the one was measured that was longest ago; None where one never was."""
    times = [part.at for part in parts if part.at is not None]
    return min(times) if len(times) == len(parts) else None


def _is_known(page: Page, at: datetime | None) -> bool:
    """One from the future is as bad as an old one: the clock was set back since."""
    return at is not None and abs(page.at - at) <= AGE_MAX
