"""Metric families of event loops, audit logs and receipts; fabric/metrics.py is who uses them."""

from fabric.families import Families, start
from fabric.model.names import Topic

RECEIPTS = ("sent", "lost")
"""What became of receipts."""
_LATE_S = (0.005, 0.025, 0.1, 0.5, 2.5)


class AuditFamilies(Families):
    """What every process shows of its event loop and its audit log."""

    def __init__(self) -> None:
        super().__init__("fabric")
        self._late = self._histogram(
            "event_loop_lag_seconds", "How late the loop comes to what is due.", (), _LATE_S
        )
        self._audit_events = self._counter("audit_events_total", "Audit events written.")
        self._audit_failures = self._counter(
            "audit_write_failures_total", "Audit events that were not written."
        )
        self._audit_lines = self._gauge(
            "audit_unsigned_lines", "Lines of the audit log after the last signed head."
        )

    def loop_late(self, seconds: float) -> None:
        """The event loop came so late to what was due."""
        self._late.observe(max(0.0, seconds))

    def audit_written(self) -> None:
        """An audit event was written."""
        self._audit_events.inc()

    def audit_failed(self) -> None:
        """An audit event could not be written."""
        self._audit_failures.inc()

    def audit_unsigned(self, lines: int) -> None:
        """So many lines of the audit log are not covered by a published head."""
        self._audit_lines.set(lines)


class ReceiptFamilies(AuditFamilies):
    """What an agent shows of the receipts it issues."""

    def __init__(self) -> None:
        super().__init__()
        self._receipts = self._counter(
            "receipts_total", "Receipts issued, by outcome.", ("topic", "level", "outcome")
        )

    def receipts_for(self, topic: Topic) -> None:
        """Receipts are issued for a topic: its counters begin at zero."""
        start(self._receipts, ((str(topic), topic.level, outcome) for outcome in RECEIPTS))

    def receipt(self, topic: Topic, outcome: str) -> None:
        """A receipt was acknowledged or given up; `outcome` is one of RECEIPTS."""
        self._receipts.labels(str(topic), topic.level, outcome).inc()
