"""Whoever serves the policy changes nothing: each attempt is refused, named and audited.

Sender, reader and gateway run, keep their last good policy, and move new rows under it.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.agent import lag_meter, reading, telemetry
from fabric.model.errors import Reason
from fabric.model.names import HostId, grants_topic
from fabric.seal import envelope as form
from fabric.seal.epoch import KIND as START
from fabric.seal.epoch import parse_start
from fabric.seal.record import kind_of
from tests.fakes.platform import LABEL, SECRET, A, B
from tests.fakes.running import table, until
from tests.hostile.policies import EDITS
from tests.hostile.site import MACHINES, Site, notes


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every few seconds is looked at at once."""
    monkeypatch.setattr(lag_meter, "_LAG_S", 0.02)
    monkeypatch.setattr(reading, "_PAUSE_S", 0.02)
    monkeypatch.setattr(telemetry, "PAUSE_AUDIT_S", 0.0)


def check(site: Site, version: int) -> None:
    """Everything was sealed under the last good policy, for its consumers alone."""
    headers = [form.parse(value).header for value in site.log.values(str(SECRET))]
    assert {header.label for header in headers} == {LABEL}
    assert headers[-1].policy_version == version
    assert site.log.values(grants_topic(SECRET))
    assert not [v for v in site.log.values(grants_topic(SECRET)) if str(site.c.id).encode() in v]


@pytest.mark.parametrize("name", EDITS)
async def test_a_policy_that_is_not_the_signed_one_is_refused_named_and_audited(
    name: str, site: Site
) -> None:
    row = EDITS[name]
    async with site.running():
        await row.do(site)
        site.serve()
        await site.until_said("policy_refused", row.reason)
        before = site.in_force()
        assert {policy.version for policy in before.values()} == {row.version}
        site.database.upsert(table(), notes(100, 5))
        site.database.delete(table(), [{"id": 3}])
        await site.until_applied()
        assert site.in_force() == before
    check(site, row.version)
    for machine in MACHINES:
        taken = [said for event, said in site.said(machine) if event == "policy_taken"]
        assert taken in ([], ["7"], ["8"], ["7", "8"])
        assert taken[-1:] in ([], [str(row.version)])


async def test_an_honest_policy_is_taken_by_everybody_and_written_down(site: Site) -> None:
    """Without this the table would show nothing: machines that take no policy pass it."""
    async with site.running():
        site.change("datasets/G01/notes.yaml", consumers=["G02/health", "G03/statistics"])
        site.written.publish()
        site.serve()
        await site.until_taken(8)
        topic = grants_topic(SECRET)
        await until(lambda: any(str(site.c.id).encode() in v for v in site.log.values(topic)))
        site.database.upsert(table(), notes(100, 5))
        await site.until_applied()
    for machine in MACHINES:
        assert ("policy_taken", "8") in site.said(machine)
        assert "policy_refused" not in [event for event, _ in site.said(machine)]


def recipients(site: Site) -> list[frozenset[HostId]]:
    """Whom every epoch was opened for, in order."""
    values = [v for v in site.log.values(grants_topic(SECRET)) if kind_of(v) == START]
    return [frozenset(r.host for r in parse_start(v).start.recipients) for v in values]


async def test_a_policy_that_withdraws_an_approval_ends_it_at_every_machine(site: Site) -> None:
    """The reader's and then the sender's, while the results of both still run."""
    async with site.running():
        topic = grants_topic(SECRET)
        site.written.content.pop(f"approvals/{B}.yaml")
        site.written.publish()
        site.serve()
        await site.until_taken(8)
        site.database.upsert(table(), notes(100, 5))
        await until(lambda: bool(recipients(site)) and B not in recipients(site)[-1])
        await until(lambda: site.database.released == site.database.position)
        assert [B in hosts for hosts in recipients(site)] == [True, False]
        site.written.content.pop(f"approvals/{A}.yaml")
        site.written.publish()
        site.serve()
        await site.until_taken(9)
        before = len(site.log.values(topic)), len(site.log.values(str(SECRET)))
        site.database.upsert(table(), notes(200, 5))
        part = f"publish {SECRET}"
        await until(lambda: Reason.NOT_APPROVED.value in site.a.board.problems.get(part, ""))
        assert (len(site.log.values(topic)), len(site.log.values(str(SECRET)))) == before


async def test_a_policy_that_is_withheld_holds_until_it_ends_and_then_nothing_moves(
    site: Site,
) -> None:
    site.written.ends["timestamp"] = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    async with site.running():
        site.written.publish()
        site.serve()
        await site.until_taken(8)
        site.withhold()
        site.database.upsert(table(), notes(100, 5))
        await site.until_applied()
        rows = site.rows()
        assert "policy_ended" not in [event for event, _ in site.said("reader")]
        site.platform.clock.ahead = timedelta(minutes=3)
        await site.until_said("policy_ended", "policy_expired")
        site.database.upsert(table(), notes(200, 5))
        await until(lambda: "policy_expired" in str(site.a.board.problems))
        assert site.rows() == rows
