"""What an agent's pages hold: samples of /metrics by name and labels, and parts of /readyz.

Pure: texts come in. The names of metrics are those of fabric.metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from fabric.model.errors import Malformed


class Samples:
    """Samples of one scrape, by name and labels."""

    def __init__(self, found: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]) -> None:
        self._found = found

    @classmethod
    def parse(cls, text: str) -> "Samples":
        """Read the Prometheus text format; raises Malformed."""
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append((sample.labels, sample.value))
        except (ValueError, KeyError, IndexError) as exc:
            raise Malformed("the page is not Prometheus text") from exc
        return cls(found)

    def __contains__(self, name: str) -> bool:
        return f"fabric_{name}" in self._found

    def values(self, name: str, **labels: str) -> list[float]:
        """Values of the samples of `fabric_<name>` that carry these labels."""
        wanted = labels.items()
        return [
            value for has, value in self._found.get(f"fabric_{name}", ()) if wanted <= has.items()
        ]

    def value(self, name: str, **labels: str) -> float | None:
        """The greatest of those values; None when there is none."""
        return max(self.values(name, **labels), default=None)

    def total(self, name: str, **labels: str) -> float | None:
        """Their sum; None when there is none."""
        values = self.values(name, **labels)
        return sum(values) if values else None

    def time(self, name: str, **labels: str) -> datetime | None:
        """The latest of timestamps; None when there is none but zero, which means never."""
        value = self.value(name, **labels)
        return datetime.fromtimestamp(value, UTC) if value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What an agent says at one moment: its samples, and each part with what is wrong."""

    at: datetime
    samples: Samples
    parts: Mapping[str, str | None]
