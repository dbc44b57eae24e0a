"""An agent's looks at the policy: what is newer is taken, what is not is said."""

import asyncio
import errno
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from fabric.agent import policing
from fabric.agent.policing import PART, Policing
from fabric.agent.supervisor import Board
from fabric.agent.telemetry import Telemetry
from fabric.agent.view import WorldView
from fabric.metrics import AgentMetrics
from fabric.model.errors import Reason
from fabric.model.names import HostId
from fabric.policy.types import Policy
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from tests.fakes.audit import MemoryAudit
from tests.fakes.clock import ManualClock
from tests.fakes.policy_files import SENDER
from tests.fakes.policy_repository import Repository
from tests.fakes.running import running, until


class Desk:
    """One agent's policy part, and the hand on what is served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = Repository(folder / "served").publish()
        self.policies = PolicyRepository(
            self.served.anchor, FolderFetcher(self.served.folder), folder / "state"
        )
        policy = self.policies.load()
        self.clock, self.board, self.audit = ManualClock(datetime.now(UTC)), Board(), MemoryAudit()
        telemetry = Telemetry(
            self.board,
            AgentMetrics([*policy.rules.values()]),
            self.audit,
            policy=PolicyAudit(self.audit, self.clock),
        )
        me = HostId.parse(SENDER)
        telemetry.approved(policy, me)
        self.view = WorldView(
            me, policy, latest=self.clock.latest, rejected=telemetry.control_rejected
        )
        self.part = Policing(self.policies, self.view, telemetry, self.clock)

    def said(self) -> list[tuple[str, str | int]]:
        """Event, and its reason or version."""
        return [(event, f.get("reason", f["version"])) for event, f in self.audit.events]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_newer_policy_is_taken_and_written_down(desk: Desk) -> None:
    async with running() as parts:
        parts.spawn(desk.part.run(0.01))
        await until(lambda: desk.board.parts.get(PART, "none yet") is None)
        desk.served.publish()
        await until(lambda: desk.view.policy.version == 8)
    assert desk.said() == [("policy_taken", 7), ("policy_taken", 8)]


async def test_a_newer_policy_that_somebody_waits_for_is_looked_for_at_once(desk: Desk) -> None:
    async with running() as parts:
        parts.spawn(desk.part.run(3600))
        await until(lambda: desk.board.parts.get(PART, "none yet") is None)
        desk.served.publish()
        desk.view.waits_for(Reason.GRANT_MISSING)
        await asyncio.sleep(0.05)
        assert desk.view.policy.version == 7
        desk.view.waits_for(Reason.POLICY_NEWER)
        await until(lambda: desk.view.policy.version == 8)


async def test_looks_that_find_nothing_newer_grow_rarer_however_often_somebody_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that claims a policy which nobody has published makes no storm of requests."""
    monkeypatch.setattr(policing, "_HURRY_S", 0.02)
    looks: list[float] = []
    refresh = desk.policies.refresh

    def counted() -> Policy | None:
        looks.append(time.monotonic())
        return refresh()

    monkeypatch.setattr(desk.policies, "refresh", counted)
    async with running() as parts:
        parts.spawn(desk.part.run(3600))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            desk.view.waits_for(Reason.POLICY_NEWER)
            await asyncio.sleep(0.001)
    pauses = [after - before for before, after in zip(looks, looks[1:], strict=False)]
    assert 3 <= len(looks) <= 7
    assert pauses[-1] > 2 * pauses[1]


async def test_a_policy_with_other_trust_anchors_is_for_the_next_view_and_no_refusal(
    desk: Desk,
) -> None:
    before = desk.view.policy
    desk.served.content["policy.yaml"] = desk.served.content["policy.yaml"].replace(
        b"name: verifier", b"name: another"
    )
    desk.served.publish()
    await desk.part.look()
    assert desk.view.outdated.is_set()
    assert desk.view.policy is before
    assert desk.said() == [("policy_taken", 7)]


async def test_a_forged_policy_is_not_taken_and_written_down(desk: Desk) -> None:
    before = desk.view.policy
    desk.served.signers["agency-G01"] = ["mallory"]
    desk.served.publish()
    await desk.part.look()
    await desk.part.look()
    assert desk.view.policy is before
    assert desk.board.problems[PART].startswith("bad_signature")
    assert desk.said() == [("policy_taken", 7), ("policy_refused", "bad_signature")]


async def test_a_server_that_is_away_is_no_refusal_until_the_policy_ends(desk: Desk) -> None:
    desk.served.folder.rename(desk.served.folder.with_name("gone"))
    await desk.part.look()
    assert desk.board.is_ready
    assert desk.said() == [("policy_taken", 7)]
    desk.clock.set_wall(desk.view.policy.expires + timedelta(seconds=1))
    await desk.part.look()
    assert desk.board.problems == {PART: "policy_expired"}
    assert desk.said() == [("policy_taken", 7), ("policy_ended", "policy_expired")]


async def test_a_full_disk_is_shown_until_there_is_room_and_is_no_refusal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_self: Updater) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Updater, "refresh", full)
    for _ in range(3):
        await desk.part.look()
    said = f"overloaded: no room on the disk of {desk.folder / 'state'}; make room"
    assert desk.board.problems == {PART: said}
    assert [said in record.getMessage() for record in caplog.records].count(True) == 1
    assert desk.said() == [("policy_taken", 7)]
    monkeypatch.undo()
    await desk.part.look()
    assert desk.board.is_ready
