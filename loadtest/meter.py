"""Clocks and figures: one measured span of work, its rates, and medians over repeats."""

import math
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Measured: TypeAlias = dict[str, float]


def process_cpu_s() -> float:
    """CPU seconds of this process, all its threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass(slots=True)
class Meter:
    """Wall and CPU time from `start` to the last `mark`, and the records between them."""

    began: float = 0.0
    began_cpu: float = 0.0
    ended: float = 0.0
    ended_cpu: float = 0.0
    records: int = 0
    started: bool = False

    def start(self) -> None:
        """Begin; what happened before does not count."""
        self.began, self.began_cpu = time.perf_counter(), process_cpu_s()
        self.ended, self.ended_cpu = self.began, self.began_cpu
        self.records, self.started = 0, True

    def mark(self, records: int) -> None:
        """So many more records are done now."""
        self.records += records
        self.ended, self.ended_cpu = time.perf_counter(), process_cpu_s()

    def first_then_mark(self, records: int) -> None:
        """As mark, but the first call starts the clocks and its records do not count."""
        if self.started:
            self.mark(records)
        else:
            self.start()

    def result(self) -> Measured:
        """Records, seconds and rates; rates are zero when nothing was measured."""
        wall, cpu = self.ended - self.began, self.ended_cpu - self.began_cpu
        return {
            "records": self.records,
            "wall_s": wall,
            "cpu_s": cpu,
            "records_per_s": self.records / wall if wall > 0 else 0.0,
            "records_per_cpu_s": self.records / cpu if cpu > 0 else 0.0,
        }


def topic_bytes(log_folder: Path, topic: str) -> int:
    """Bytes of a topic's segments on the broker's disk, batch headers included."""
    return sum(path.stat().st_size for path in log_folder.glob(f"{topic}-[0-9]*/*.log"))


def child_cpu_s(pid: int) -> float:
    """CPU seconds another process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def peak_bytes(pid: int) -> int:
    """VmHWM of another process: the most memory it ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} says nothing of its memory")


def summary(values: Sequence[float]) -> Mapping[str, object]:
    """Median and spread of one figure over the repeats."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": [round(value, 3) for value in values],
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of `values` do not exceed, by nearest rank."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
