"""What was measured, as a report: medians with their spread, ratios, targets, machine, versions.

A load test never judges by its exit code: whether a target is met stands in the
report and on the screen.
"""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend
from rich.console import Console
from rich.table import Table

from loadtest.meter import summary

_PACKAGES = ("aiokafka", "confluent-kafka", "fastavro", "cryptography", "zstandard", "tink", "kio")
Rounds = Sequence[Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One promise of issue 4: a ratio of two figures, or a figure, against a bound.

    Attributes:
        name: as in the report.
        above: whether the value must be at least the bound; else at most.
        figures: numerator and denominator (or minuend and subtrahend); one for a bare figure.
    """

    name: str
    bound: float
    above: bool
    figures: tuple[str, ...]
    of: str = "records_per_s"
    difference: bool = False

    def value(self, figures: Mapping[str, Mapping[str, float]]) -> float | None:
        """From one round's figures; None when one of them is missing."""
        if any(self.of not in figures.get(name, {}) for name in self.figures):
            return None
        found = [figures[name][self.of] for name in self.figures]
        if len(found) == 1:
            return found[0]
        if self.difference:
            return found[0] - found[1]
        return found[0] / found[1] if found[1] else None

    def is_met(self, value: float) -> bool:
        """Whether a value keeps the promise."""
        return value >= self.bound if self.above else value <= self.bound


def _ratio(top: str, bottom: str, bound: float) -> Target:
    return Target(name=f"{top} / {bottom}", bound=bound, above=True, figures=(top, bottom))


def _latency(name: str) -> tuple[Target, Target]:
    """The two targets of one way between two tables, against the plain peer's."""
    figures = (name, "plain_latency")
    return (
        Target(
            name=f"{name} p50 - plain_latency p50 (ms)", bound=5, above=False,
            figures=figures, of="p50_ms", difference=True,
        ),
        Target(
            name=f"{name} p99 / plain_latency p99", bound=2, above=False,
            figures=figures, of="p99_ms",
        ),
    )  # fmt: skip


TARGETS = (
    _ratio("sealed_hybrid_produce", "confluent_plain_produce", 1.5),
    _ratio("sealed_classic_produce", "confluent_plain_produce", 1.9),
    _ratio("sealed_hybrid_produce", "csfle_produce", 20),
    _ratio("sealed_hybrid_consume", "confluent_plain_consume", 3.3),
    _ratio("sealed_hybrid_consume", "aiokafka_plain_consume", 1.3),
    _ratio("sealed_hybrid_gateway", "sealed_hybrid_produce", 0.9),
    _ratio("sealed_classic_gateway", "sealed_classic_produce", 0.9),
    _ratio("aiokafka_open_gateway", "aiokafka_open_produce", 0.85),
    *_latency("fabric_latency"),
    *_latency("classic_latency"),
    Target(name="agent A peak memory (MB)", bound=150, above=False, figures=("agent_a",),
           of="peak_mb"),
    Target(name="agent B peak memory (MB)", bound=150, above=False, figures=("agent_b",),
           of="peak_mb"),
)  # fmt: skip

MORE_RATIOS = (
    ("sealed_hybrid_subscribe", "aiokafka_plain_consume"),
    ("sealed_hybrid_subscribe", "confluent_plain_consume"),
    ("open_produce", "aiokafka_plain_produce"),
    ("open_gateway", "open_produce"),
    ("open_consume", "aiokafka_plain_consume"),
    ("sealed_hybrid_consume", "csfle_consume"),
    ("sealed_hybrid_produce", "sealed_classic_produce"),
)
"""Ratios without a target: for the reader of the report."""


def make(rounds: Rounds, *, seconds: float, began: str) -> dict[str, Any]:
    """The whole report.

    Ratios are formed in each round, between neighbours in time, and then the median is
    taken: a machine that slows down during the run moves both sides of a ratio.
    """
    names = dict.fromkeys(name for one in rounds for name in one)
    figures = {name: _figure([one[name] for one in rounds if name in one]) for name in names}
    ratios: dict[str, Any] = {}
    for target in TARGETS:
        told = _over_rounds(target, rounds)
        if told is not None:
            met = target.is_met(told["median"])
            ratios[target.name] = {**told, "target": _target_text(target), "met": met}
        for kind in ("records_per_cpu_s",):
            twin = _over_rounds(_of(target, kind), rounds)
            if told is not None and twin is not None and target.of == "records_per_s":
                ratios[target.name]["per_cpu_second"] = twin["median"]
    for top, bottom in MORE_RATIOS:
        told = _over_rounds(_ratio(top, bottom, 0), rounds)
        if told is not None:
            ratios[f"{top} / {bottom}"] = told
    return {
        "began": began,
        "seconds": seconds,
        "repeats": len(rounds),
        "machine": machine(),
        "versions": {name: version(name) for name in _PACKAGES}
        | {"beneath cryptography": beneath()},
        "figures": figures,
        "ratios": ratios,
    }


def beneath() -> str:
    """The library that `cryptography` computes with, and its version."""
    return str(backend.openssl_version_text())


def _of(target: Target, what: str) -> Target:
    return Target(
        name=target.name, bound=target.bound, above=target.above, figures=target.figures, of=what
    )


def _over_rounds(target: Target, rounds: Rounds) -> dict[str, Any] | None:
    values = [value for one in rounds if (value := target.value(one)) is not None]
    return dict(summary(values)) if values else None


def _figure(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {key: summary([run[key] for run in runs if key in run]) for key in runs[0]}


def _target_text(target: Target) -> str:
    return f"{'>=' if target.above else '<='} {target.bound:g}"


def machine() -> dict[str, Any]:
    """Where it ran, and how busy the machine is besides."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "java": java.stderr.partition("\n")[0],
        "load_at_end": os.getloadavg(),
    }


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print figures and ratios."""
    table = Table("figure", "records/s", "spread", "records/CPU s", "bytes", title="medians")
    for name, figure in report["figures"].items():
        if "records_per_s" not in figure:
            continue
        rate = figure["records_per_s"]
        size = figure.get("bytes_per_record")
        table.add_row(
            name,
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} - {rate['max']:,.0f}",
            f"{figure['records_per_cpu_s']['median']:,.0f}",
            f"{size['median']:.0f}" if size else "",
        )
    console.print(table)
    _show_rest(report, console)


def _show_rest(report: Mapping[str, Any], console: Console) -> None:
    for name in ("plain_latency", "fabric_latency", "classic_latency"):
        if name in report["figures"]:
            p50, p99 = (report["figures"][name][key]["median"] for key in ("p50_ms", "p99_ms"))
            console.print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    table = Table("ratio", "median", "spread", "per CPU s", "target", "met", title="ratios")
    for name, told in report["ratios"].items():
        met = {True: "[green]yes[/]", False: "[red]no[/]"}.get(told.get("met"), "")
        cpu = told.get("per_cpu_second")
        table.add_row(
            name,
            f"{told['median']:.2f}",
            f"{told['min']:.2f} - {told['max']:.2f}",
            "" if cpu is None else f"{cpu:.2f}",
            told.get("target", ""),
            met,
        )
    console.print(table)
