"""The report as one picture: who moves how much, and how long a row is on its way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

_FABRIC, _PEER = "#1f6f8b", "#c9a227"
_KINDS = ("produce", "gateway", "consume", "subscribe")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of the medians, with their spread as whiskers."""
    figure, axes = plt.subplots(2, 2, figsize=(14, 9), constrained_layout=True)
    _bars(axes[0][0], report, ("produce",), "produce, direct to the broker: records/s")
    _bars(axes[0][1], report, ("consume", "subscribe"), "consume: records/s")
    _bars(axes[1][0], report, ("gateway",), "produce through the gateway: records/s")
    _latency(axes[1][1], report)
    machine, beneath = report["machine"], report["versions"]["beneath cryptography"]
    figure.suptitle(
        f"{machine['cores']} cores, {report['repeats']} interleaved rounds of"
        f" {report['seconds']:g} s, mTLS, acks=all, one broker; medians, whiskers min to max;"
        f" {beneath}"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Any, report: Mapping[str, Any], kinds: tuple[str, ...], title: str) -> None:
    found = [
        (name, told["records_per_s"])
        for name, told in report["figures"].items()
        if name.rpartition("_")[2] in kinds and "records_per_s" in told
    ]
    names = [name.removesuffix("_produce").removesuffix("_gateway") for name, _ in found]
    middle = [rate["median"] for _, rate in found]
    low = [rate["median"] - rate["min"] for _, rate in found]
    high = [rate["max"] - rate["median"] for _, rate in found]
    colours = [_FABRIC if name.startswith(("sealed", "open")) else _PEER for name in names]
    axis.barh(names, middle, xerr=[low, high], color=colours, capsize=3)
    axis.invert_yaxis()
    axis.set_title(title)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f} k")


def _latency(axis: Any, report: Mapping[str, Any]) -> None:
    axis.set_title("commit in A's table to commit in B's, 1,000 rows/s: ms")
    known = ("plain_latency", "fabric_latency", "classic_latency")
    names = [name for name in known if name in report["figures"]]
    for at, key in enumerate(("p50_ms", "p99_ms")):
        values = [report["figures"][name][key]["median"] for name in names]
        places = [place + at * 0.38 - 0.19 for place in range(len(names))]
        bars = axis.bar(places, values, width=0.36, label=key.removesuffix("_ms"))
        axis.bar_label(bars, fmt="%.1f")
    axis.set_xticks(range(len(names)), names)
    axis.legend()
