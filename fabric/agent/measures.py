"""What goes to an agent's metrics and nowhere else: not audited, not on the status board."""

from fabric.metrics import AgentMetrics
from fabric.model.errors import Reason

_SPOKE = frozenset({Reason.SOURCE_UNFIT, Reason.TARGET_UNFIT})
"""Refusals of ours that a database had to answer for; it may be unfit, and is there."""


class Measures:
    """Figures of one agent; Telemetry adds what people are told beside them."""

    def __init__(self, metrics: AgentMetrics) -> None:
        self._metrics = metrics

    def database(self, kind: str, name: str, reason: Reason | None) -> None:
        """A database answered what it was asked; else `reason` says why it did not."""
        self._metrics.database(kind, name, reason is None or reason in _SPOKE)
