"""The authority keeps the policy alive, and can do nothing else with its key."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.model.errors import ConfigInvalid, PeerError
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.repository.publishing import OnlineKeys, publish
from fabric.repository.roster import FILE
from fabric.repository.staging import Workspace, sign
from fabric.repository.timestamp import Renewal
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import ONLINE, SIGNERS, make_workspace, publish_all

NOW = datetime.now(UTC).replace(microsecond=0)
DAY_S = 24 * 3600


@pytest.fixture(name="workspace")
def _workspace(tmp_path: Path) -> Workspace:
    return publish_all(make_workspace(tmp_path), NOW)


def known(workspace: Workspace) -> bytes:
    return (workspace.repository / "metadata" / "timestamp.json").read_bytes()


def test_old_timestamp_that_somebody_put_back_is_not_made_fresh(workspace: Workspace) -> None:
    """Else whoever writes the folder could bring an older policy back to life."""
    path = workspace.repository / "metadata" / "timestamp.json"
    old = path.read_bytes()
    (workspace.source / "agencies/G01.yaml").write_text("name: Other\n")
    publish_all(workspace, NOW)
    ours = path.read_bytes()
    path.write_bytes(old)
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY_S)
    assert not renewal.renew(NOW + timedelta(days=2), ours)
    assert path.read_bytes() == old


def test_timestamp_that_nobody_signed_is_not_made_fresh(workspace: Workspace) -> None:
    path = workspace.repository / "metadata" / "timestamp.json"
    document = json.loads(path.read_bytes())
    document["signed"]["version"] = 9
    path.write_text(json.dumps(document))
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY_S)
    with pytest.raises(PeerError):
        renewal.renew(NOW + timedelta(days=2), path.read_bytes())


def test_timestamp_is_signed_anew_when_half_its_time_is_over(workspace: Workspace) -> None:
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY_S)
    anchor = workspace.repository / "metadata" / "1.root.json"
    part = PolicyRepository(anchor, FolderFetcher(workspace.repository), workspace.folder / "s")
    before = part.load()
    assert not renewal.renew(NOW + timedelta(hours=11), part.timestamp)
    assert part.refresh() is None
    assert renewal.renew(NOW + timedelta(hours=13), part.timestamp)
    after = part.refresh()
    assert after is not None
    assert (after.version, after.expires) == (before.version, NOW + timedelta(hours=37))


def test_policy_published_from_a_workspace_that_lacks_the_renewals_is_taken(
    workspace: Workspace,
) -> None:
    """The served folder is a copy of the workspace's, and its timestamp is renewed there alone."""
    served = workspace.folder / "served"
    shutil.copytree(workspace.repository, served)
    renewal = Renewal(served, key("timestamp"), valid_s=DAY_S)
    anchor = workspace.repository / "metadata" / "1.root.json"
    part = PolicyRepository(anchor, FolderFetcher(served), workspace.folder / "s")
    part.load()
    for hours in (13, 26, 39):
        assert renewal.renew(NOW + timedelta(hours=hours), part.timestamp)
        part.refresh()
    (workspace.source / "agencies/G01.yaml").write_text("name: Other\n")
    publish_all(workspace, NOW + timedelta(hours=40))
    shutil.copytree(workspace.repository, served, dirs_exist_ok=True)
    after = part.refresh()
    assert after is not None
    assert (after.version, after.agencies["G01"]) == (2, "Other")
    assert renewal.renew(NOW + timedelta(hours=53), part.timestamp)


def test_after_a_renewal_by_a_clock_far_ahead_another_timestamp_key_is_taken(
    workspace: Workspace,
) -> None:
    served = workspace.folder / "served"
    shutil.copytree(workspace.repository, served)
    anchor = workspace.repository / "metadata" / "1.root.json"
    part = PolicyRepository(anchor, FolderFetcher(served), workspace.folder / "s")
    part.load()
    ahead = Renewal(served, key("timestamp"), valid_s=DAY_S)
    assert ahead.renew(NOW + timedelta(days=30), part.timestamp)
    part.refresh()
    path = workspace.folder / FILE
    roster = yaml.safe_load(path.read_bytes())
    public = key("later").public_key
    roster["keys"]["timestamp"] = {"keyid": public.keyid, **public.to_dict()}
    path.write_text(yaml.safe_dump(roster))
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    keys = OnlineKeys(snapshot=key("snapshot"), timestamp=key("later"))
    publish(workspace, keys, NOW)
    shutil.copytree(workspace.repository, served, dirs_exist_ok=True)
    after = part.refresh()
    assert after is not None
    assert after.expires == NOW + timedelta(days=1)


def test_version_rises_also_within_a_second_and_when_the_clock_goes_back(
    workspace: Workspace,
) -> None:
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY_S)

    def version() -> int:
        found: int = json.loads(known(workspace))["signed"]["version"]
        return found

    first = version()
    publish_all(workspace, NOW)
    assert version() == first + 1
    publish(workspace, ONLINE, NOW - timedelta(days=2), clock_is_right=True)
    assert renewal.renew(NOW - timedelta(days=1), known(workspace))
    assert version() == first + 3


def test_ended_timestamp_is_signed_anew(workspace: Workspace) -> None:
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY_S)
    assert renewal.renew(NOW + timedelta(days=30), known(workspace))


def test_key_of_another_role_is_refused_and_nothing_is_written(workspace: Workspace) -> None:
    path = workspace.repository / "metadata" / "timestamp.json"
    before = path.read_bytes()
    with pytest.raises(ConfigInvalid, match="timestamp's key"):
        Renewal(workspace.repository, key("an"), valid_s=DAY_S).renew(
            NOW + timedelta(days=1), before
        )
    assert path.read_bytes() == before


def test_repository_without_a_policy_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="fabric policy publish"):
        Renewal(tmp_path, key("timestamp"), valid_s=DAY_S).renew(NOW, b"")


def test_key_never_shows(workspace: Workspace) -> None:
    assert "Signer" not in repr(Renewal(workspace.repository, key("timestamp"), valid_s=1))
