"""Refusals in the authority's audit log: the first at once, the others counted, all bounded."""

import asyncio

import pytest

from fabric.authority import refused as module
from fabric.authority.refused import RefusedCount
from fabric.model.errors import Reason
from fabric.model.names import HostId
from tests.fakes.audit import MemoryAudit

ATTEST, WHY = "attestation_refused", Reason.BINDING_MISMATCH
HOST = HostId.parse("G01/registry/host-a")
OTHER = HostId.parse("G01/registry/host-b")


def test_the_first_of_a_kind_is_written_at_once_and_the_others_are_counted() -> None:
    audit = MemoryAudit()
    count = RefusedCount(audit)
    for number in range(1_000):
        count.refused(ATTEST, f"10.0.0.{number}", HOST, WHY)
    first = {"caller": "10.0.0.0", "host": str(HOST), "reason": WHY.value}
    assert audit.events == [(ATTEST, first)]
    count.flush()
    more = {"kind": ATTEST, "host": str(HOST), "reason": WHY.value, "requests": 999}
    assert audit.events[1:] == [("requests_refused", more)]
    count.flush()
    assert len(audit.events) == 2


def test_another_host_reason_or_event_is_another_kind() -> None:
    audit = MemoryAudit()
    count = RefusedCount(audit)
    count.refused(ATTEST, "a", HOST, WHY)
    count.refused(ATTEST, "a", OTHER, WHY)
    count.refused(ATTEST, "a", HOST, Reason.FORK)
    count.refused("enrolment_conflict", "a", HOST, WHY)
    assert len(audit.events) == 4


def test_kinds_are_bounded_and_none_is_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AUDIT_REFUSALS_REMEMBERED", 3)
    audit = MemoryAudit()
    count = RefusedCount(audit)
    for number in range(100):
        count.refused(ATTEST, "a", HostId("G01", "registry", f"host-{number}"), WHY)
    count.flush()
    assert len(audit.events) == 4
    assert audit.events[-1][1] == {
        "kind": ATTEST,
        "host": "",
        "reason": WHY.value,
        "requests": 97,
    }


def test_a_kind_that_comes_no_more_is_forgotten_and_later_written_at_once() -> None:
    audit = MemoryAudit()
    count = RefusedCount(audit)
    for _ in range(2):
        count.refused(ATTEST, "a", HOST, WHY)
        for _ in range(8):
            count.flush()
    assert [name for name, _ in audit.events] == [ATTEST, ATTEST]


async def test_what_is_counted_is_written_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.001)
    audit = MemoryAudit()
    count = RefusedCount(audit)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(count.run())
        for written in (2, 3):
            for _ in range(2):
                count.refused(ATTEST, "a", HOST, WHY)
            while len(audit.events) < written:
                await asyncio.sleep(0.001)
        running.cancel()
    assert [fields.get("requests") for _, fields in audit.events] == [None, 1, 2]
