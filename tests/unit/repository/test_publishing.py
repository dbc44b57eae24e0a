"""Nothing is published that is not signed by enough, or that a reader would refuse."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.model.errors import ConfigInvalid, Reason, UsageError
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.repository.published import read_published
from fabric.repository.publishing import OnlineKeys, check_source, publish
from fabric.repository.roster import FILE
from fabric.repository.staging import Workspace, sign
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import ONLINE, SIGNERS, make_workspace, publish_all

NOW = datetime.now(UTC)


@pytest.fixture(name="workspace")
def _workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path)


def reader(workspace: Workspace) -> PolicyRepository:
    anchor = workspace.repository / "metadata" / "1.root.json"
    state = workspace.folder / "state"
    return PolicyRepository(anchor, FolderFetcher(workspace.repository), state)


def edit(workspace: Workspace, file: str, /, **fields: object) -> None:
    path = workspace.source / file
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_bytes()), **fields}))


def refusal(workspace: Workspace, now: datetime = NOW, keys: OnlineKeys = ONLINE) -> str:
    with pytest.raises(UsageError) as caught:
        publish(workspace, keys, now)
    return str(caught.value.args[0])


def test_what_two_persons_and_the_agency_signed_is_what_readers_load(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    policy = reader(workspace).load()
    assert policy.version == 1
    assert policy.expires == (NOW + timedelta(days=1)).replace(microsecond=0)
    assert len(policy.datasets) == 2
    assert not list(workspace.staged.iterdir())


def test_below_the_threshold_it_is_refused_with_the_name_that_is_missing(
    workspace: Workspace,
) -> None:
    assert "role agency-G01 version 1 needs 1 signatures and has nobody's" in refusal(workspace)
    sign(workspace, key("agency-G01"), NOW)
    sign(workspace, key("an"), NOW)
    text = refusal(workspace)
    assert "role approvals version 1 needs 2 signatures and has an's; missing: binh" in text
    assert not read_published(workspace.repository).roots


def test_version_rises_exactly_when_something_signed_changes(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    again = publish(workspace, ONLINE, NOW + timedelta(hours=1))
    assert (again.version, again.roles) == (1, ())
    assert again.expires == (NOW + timedelta(hours=25)).replace(microsecond=0)
    edit(workspace, "agencies/G01.yaml", name="Civil registry")
    publish_all(workspace, NOW + timedelta(hours=1))
    found = reader(workspace).load()
    assert (found.version, found.agencies["G01"]) == (2, "Civil registry")


def test_one_role_is_published_while_another_waits(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    edit(workspace, "agencies/G01.yaml", name="Civil registry")
    edit(workspace, "datasets/G01/residents.yaml", history="from_join")
    sign(workspace, key("an"), NOW)
    sign(workspace, key("agency-G01"), NOW)
    assert "role targets" in refusal(workspace)
    done = publish(workspace, ONLINE, NOW, only=frozenset({"agency-G01"}))
    assert done.roles == ("agency-G01",)
    found = reader(workspace).load()
    assert found.agencies["G01"] == "Registry"
    assert found.datasets["secret.G01.residents"].history == "from_join"
    assert [path.name for path in workspace.staged.iterdir()] == ["targets.json"]


def test_role_with_nothing_staged_cannot_be_asked_for(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    with pytest.raises(UsageError, match="nothing staged"):
        publish(workspace, ONLINE, NOW, only=frozenset({"targets"}))


def test_source_changed_after_signing_is_refused(workspace: Workspace) -> None:
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    edit(workspace, "agencies/G01.yaml", name="Somebody else")
    assert "role targets version 1 needs 2 signatures and has nobody's" in refusal(workspace)


def test_staged_file_changed_after_signing_is_refused(workspace: Workspace) -> None:
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    path = workspace.staged / "targets.json"
    document = json.loads(path.read_bytes())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    assert "role targets" in refusal(workspace)


def test_signed_policy_that_does_not_load_is_not_published(workspace: Workspace) -> None:
    edit(workspace, "agencies/G01.yaml", colour="red")
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    assert "agencies/G01.yaml: colour" in refusal(workspace)
    assert not (workspace.repository / "metadata" / "timestamp.json").exists()


def test_key_of_another_role_cannot_sign_snapshot_or_timestamp(workspace: Workspace) -> None:
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    wrong = key("mallory")
    assert "snapshot's key" in refusal(
        workspace, keys=OnlineKeys(snapshot=wrong, timestamp=key("timestamp"))
    )
    assert "timestamp's key" in refusal(
        workspace, keys=OnlineKeys(snapshot=key("snapshot"), timestamp=wrong)
    )


def test_role_that_has_ended_must_be_signed_anew(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    later = NOW + timedelta(days=366)
    assert "has ended; sign it anew: fabric policy sign --renew" in refusal(workspace, later)
    for name in SIGNERS:
        sign(workspace, key(name), later, renew=True)
    assert publish(workspace, ONLINE, later).version == 2


def test_new_person_comes_in_by_the_old_keys_and_the_new(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    part = reader(workspace)
    part.load()
    path = workspace.folder / FILE
    roster = yaml.safe_load(path.read_bytes())
    public = key("chi").public_key
    roster["keys"]["chi"] = {"keyid": public.keyid, **public.to_dict()}
    for role in ("root", "targets", "approvals", "releases"):
        roster["roles"][role] = {"keys": ["binh", "chi"], "threshold": 2, "valid_days": 365}
    path.write_text(json.dumps(roster))
    for name in ("binh", "chi"):
        sign(workspace, key(name), NOW)
    assert "role root version 2" in refusal(workspace)
    sign(workspace, key("an"), NOW)
    done = publish(workspace, ONLINE, NOW)
    assert set(done.roles) >= {"root", "targets"}
    found = part.refresh()
    assert found is not None
    assert found.version == 2


def test_agency_that_leaves_keeps_its_place_in_the_snapshot(workspace: Workspace) -> None:
    publish_all(workspace, NOW)
    part = reader(workspace)
    part.load()
    path = workspace.folder / FILE
    roster = yaml.safe_load(path.read_bytes())
    del roster["roles"]["agency-G01"]
    path.write_text(json.dumps(roster))
    for folder in ("datasets", "schemas"):
        for file in (workspace.source / folder / "G01").iterdir():
            file.unlink()
    for name in ("an", "binh"):
        sign(workspace, key(name), NOW)
    publish(workspace, ONLINE, NOW)
    found = part.refresh()
    assert found is not None
    assert not found.datasets


def test_source_is_checked_before_anybody_signs(workspace: Workspace) -> None:
    assert len(check_source(workspace, NOW).datasets) == 2
    edit(workspace, "agencies/G01.yaml", colour="red")
    with pytest.raises(UsageError) as caught:
        check_source(workspace, NOW)
    assert caught.value.reason is Reason.POLICY_INVALID


def test_repository_that_cannot_be_written_is_told(workspace: Workspace) -> None:
    (workspace.folder / "repository").write_bytes(b"")
    with pytest.raises(ConfigInvalid, match="cannot be written"):
        publish(workspace, ONLINE, NOW)
