"""Read the committed dashboards as a Prometheus would be asked."""

from collections.abc import Iterator
from typing import Any

VARIABLES = {"agency": ".*", "level": ".*", "topic": ".*"}
RATE = "30s"


def plain(expr: str) -> str:
    """PromQL without Grafana's variables, everything selected."""
    text = expr.replace("$__rate_interval", RATE)
    for name, value in VARIABLES.items():
        text = text.replace(f"${name}", value)
    return text


def targets(board: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Panel title, query reference and PromQL of every query of a dashboard."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["refId"], target["expr"]
