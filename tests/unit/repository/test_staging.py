"""Signatures are collected one at a time, and hold only for what the source still says."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.model.errors import ConfigInvalid, UsageError
from fabric.repository.staging import read_staged, sign, stage, standings
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import make_workspace, publish_all

NOW = datetime.now(UTC)


def test_first_signature_stages_every_role_and_names_who_is_missing(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    found = {item.role: item for item in sign(workspace, key("an"), NOW)}
    assert set(found) == {"root", "targets", "approvals", "releases"}
    assert all((item.signed, item.missing) == (["an"], ["binh"]) for item in found.values())
    rest = {item.role: item for item in standings(workspace, read_staged(workspace))}
    assert rest["agency-G01"].missing == ["agency-G01"]


def test_second_signature_is_added_to_the_first(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    sign(workspace, key("an"), NOW)
    found = sign(workspace, key("binh"), datetime.now(UTC))
    assert all((item.signed, item.missing) == (["an", "binh"], []) for item in found)


def test_change_of_the_source_takes_the_signatures_of_its_role_away_and_no_others(
    tmp_path: Path,
) -> None:
    workspace = make_workspace(tmp_path)
    sign(workspace, key("an"), NOW)
    levels = workspace.source / "levels.yaml"
    levels.write_text(levels.read_text().replace("a law", "another law"))
    found = {item.role: item for item in sign(workspace, key("binh"), NOW)}
    assert found["targets"].signed == ["binh"]
    assert found["approvals"].signed == ["an", "binh"]


def test_what_is_published_and_unchanged_is_not_staged_again(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), NOW)
    assert stage(workspace, NOW) == {}
    levels = workspace.source / "levels.yaml"
    levels.write_text(levels.read_text().replace("a law", "another law"))
    staged = stage(workspace, NOW)
    assert {name: item.signed.version for name, item in staged.items()} == {"targets": 2}


def test_change_taken_back_is_not_staged_any_more(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), NOW)
    levels = workspace.source / "levels.yaml"
    before = levels.read_text()
    levels.write_text(before.replace("a law", "another law"))
    sign(workspace, key("an"), NOW)
    levels.write_text(before)
    assert stage(workspace, NOW) == {}
    assert read_staged(workspace) == {}


def test_renewal_stages_the_roles_of_the_key_though_nothing_changed(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), NOW)
    assert sign(workspace, key("agency-G01"), NOW) == []
    (found,) = sign(workspace, key("agency-G01"), NOW, renew=True)
    assert (found.role, found.version, found.missing) == ("agency-G01", 2, [])
    again = sign(workspace, key("agency-G01"), NOW, renew=True)
    assert [item.version for item in again] == [2]


def test_end_that_is_later_than_the_role_allows_is_not_signed(tmp_path: Path) -> None:
    """The staged file comes from another machine: only what roles.yaml says is signed."""
    workspace = make_workspace(tmp_path)
    sign(workspace, key("an"), NOW)
    path = workspace.staged / "targets.json"
    document = json.loads(path.read_bytes())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    sign(workspace, key("binh"), NOW)
    staged = read_staged(workspace)["targets"]
    assert staged.signed.expires < NOW + timedelta(days=366)
    assert list(staged.signatures) == [key("binh").public_key.keyid]


def test_key_of_nobody_signs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no role"):
        sign(make_workspace(tmp_path), key("mallory"), NOW)


def test_signature_of_a_stranger_counts_for_nobody(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    staged = stage(workspace, NOW)
    staged["targets"].sign(key("mallory"), append=True)
    found = {item.role: item for item in standings(workspace, staged)}
    assert (found["targets"].signed, found["targets"].missing) == ([], ["an", "binh"])


def test_file_of_an_agency_without_a_role_is_named(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    (workspace.source / "datasets/G09").mkdir()
    (workspace.source / "datasets/G09/x.yaml").write_bytes(b"a: 1")
    with pytest.raises(UsageError, match=r"agency-G09 is missing; datasets/G09/x\.yaml"):
        stage(workspace, NOW)


def test_workspace_that_was_not_begun_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="fabric policy init"):
        stage(make_workspace(tmp_path).__class__(tmp_path / "none"), NOW)
