"""Make metric families and their children; the names come from fabric/metrics.py alone."""

import sys
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fabric.model.errors import Reason, UsageError

Parts = Callable[[], Mapping[str, str | None]]
"""Name of each part of a process to the reason why it waits, or None; must not raise."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a fifth of all series otherwise


class Families:
    """A process's registry and what makes families in it.

    Attributes:
        registry: serve this.
    """

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _info(self, name: str, text: str, **more: str) -> None:
        build = Info(f"{self._prefix}_{name}", text, registry=self.registry)
        build.info({"version": _version(), "python": sys.version.partition(" ")[0], **more})

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        full = f"{self._prefix}_{name}"
        return Histogram(full, text, labels, registry=self.registry, buckets=buckets)


class Waiting(Collector):
    """Counts, at each scrape, the parts of a process that wait.

    Args:
        kinds: closed set of first words of part names; the last one stands for all others.
    """

    def __init__(self, name: str, text: str, kinds: Sequence[str], parts: Parts) -> None:
        self._name = name
        self._text = text
        self._kinds = kinds
        self._parts = parts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, with a child for every kind."""
        family = GaugeMetricFamily(self._name, self._text, labels=["part"])
        words = Tally(name.split()[0] for name, why in self._parts().items() if why is not None)
        *known, rest = self._kinds
        for kind in known:
            family.add_metric([kind], words.pop(kind, 0))
        family.add_metric([rest], words.total())
        yield family


@contextmanager
def collecting(registry: CollectorRegistry, collector: Collector) -> Iterator[None]:
    """Ask `collector` at each scrape, while the block runs."""
    registry.register(collector)
    try:
        yield
    finally:
        registry.unregister(collector)


def start(family: Counter | Gauge | Histogram, children: Iterable[Sequence[str]]) -> None:
    """Make children, so that a zero is a zero and not an absence."""
    for labels in children:
        family.labels(*labels)


def one_of(text: str, choices: Sequence[str]) -> str:
    """`text`, which must be in the closed set; raises UsageError INTERNAL."""
    if text not in choices:
        raise UsageError(Reason.INTERNAL, "metric label is outside its closed set")
    return text


def _version() -> str:
    try:
        return version("agency-fabric")
    except PackageNotFoundError:
        return "unknown"
