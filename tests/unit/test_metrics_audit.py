"""Receipts are counted by topic and outcome, audit events in all; a loop is never early."""

from fabric.metrics_audit import RECEIPTS, AuditFamilies, ReceiptFamilies
from fabric.model.names import Topic

TOPIC = Topic.parse("secret.G01.notes")


def test_receipts_begin_at_zero_and_count() -> None:
    metrics = ReceiptFamilies()
    metrics.receipts_for(TOPIC)
    labels = {"topic": str(TOPIC), "level": "secret"}

    def counted(outcome: str) -> float | None:
        found = {**labels, "outcome": outcome}
        return metrics.registry.get_sample_value("fabric_receipts_total", found)

    assert [counted(outcome) for outcome in RECEIPTS] == [0, 0]
    metrics.receipt(TOPIC, RECEIPTS[1])
    assert [counted(outcome) for outcome in RECEIPTS] == [0, 1]


def test_a_loop_that_comes_early_by_the_clock_was_not_late() -> None:
    metrics = AuditFamilies()
    metrics.loop_late(-0.001)
    metrics.loop_late(0.05)
    assert metrics.registry.get_sample_value("fabric_event_loop_lag_seconds_sum") == 0.05
