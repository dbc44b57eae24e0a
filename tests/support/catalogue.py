"""Every metric of the fabric as the code makes it: what pages and rules may name."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from fabric.metrics import AgentMetrics, AuthorityMetrics, GatewayMetrics, watching
from tests.fakes.policy_files import policy

_SERIES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


@dataclass(slots=True)
class Family:
    """A metric: its type, its labels in order, the roles that have it."""

    type: str
    labels: tuple[str, ...]
    roles: set[str] = field(default_factory=set)


def _registries() -> Iterator[tuple[str, CollectorRegistry]]:
    rules = tuple(policy().rules.values())
    agent, gateway, authority = AgentMetrics(rules), GatewayMetrics(rules), AuthorityMetrics()
    for platform in (gateway, authority):
        platform.certificate(datetime.now(UTC))
    for role, metrics in (("agent", agent), ("gateway", gateway), ("authority", authority)):
        with watching(metrics.registry, dict):
            yield role, metrics.registry


def families() -> dict[str, Family]:
    """By full name: counters with `_total`, infos with `_info`."""
    found: dict[str, Family] = {}
    for role, registry in _registries():
        for collector in list(registry._collector_to_names):
            for family in collector.collect():
                if not family.name.startswith("fabric_"):
                    continue
                labels = getattr(collector, "_labelnames", ("part",))
                suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
                made = Family(family.type, tuple(labels))
                found.setdefault(family.name + suffix, made).roles.add(role)
    return found


def series() -> set[str]:
    """Every series name that a scrape can have."""
    found: set[str] = set()
    for name, family in families().items():
        base = name.removesuffix("_total").removesuffix("_info")
        found.update(f"{base}{suffix}" for suffix in _SERIES.get(family.type, ("",)))
    return found
