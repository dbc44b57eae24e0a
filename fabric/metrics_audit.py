"""Metric families of audit logs and receipts; fabric/metrics.py puts them into its roles."""

from fabric.families import Families, start
from fabric.model.names import Topic

RECEIPTS = ("sent", "lost")
"""What became of receipts."""


class AuditFamilies(Families):
    """What every process shows of its audit log."""

    def __init__(self) -> None:
        super().__init__("fabric")
        self._audit_failures = self._counter(
            "audit_write_failures_total", "Audit events that were not written."
        )
        self._audit_lines = self._gauge(
            "audit_unsigned_lines", "Lines of the audit log after the last signed head."
        )

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
