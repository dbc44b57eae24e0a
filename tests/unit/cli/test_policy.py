"""`fabric policy`: from nothing to a published policy, by two persons."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.repository.keys import open_signer
from fabric.repository.publishing import OnlineKeys, publish
from fabric.repository.staging import Workspace
from tests.fakes.policy_workspace import live_files, make_workspace, publish_all


def begun(fabric, folder: Path) -> Path:
    """Keys of everybody and a workspace with documents."""
    for name in ("an", "binh", "snapshot", "timestamp", "g01"):
        assert fabric("policy", "key", folder / f"{name}.pem").code == 0
    workspace = folder / "workspace"
    done = fabric(
        "policy", "init", workspace,
        "--person", f"an={folder}/an.pem.pub", "--person", f"binh={folder}/binh.pem.pub",
        "--snapshot", folder / "snapshot.pem.pub",
        "--timestamp", folder / "timestamp.pem.pub", "--agency", f"G01={folder}/g01.pem.pub",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "fabric policy check" in done.out
    for name, data in live_files().items():
        path = workspace / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return workspace


def published(fabric, folder: Path, workspace: Path, *options: str):
    return fabric(
        "policy", "publish", workspace, "--snapshot-key", folder / "snapshot.pem",
        "--timestamp-key", folder / "timestamp.pem", "-o", "json", *options,
    )  # fmt: skip


def test_two_persons_and_an_agency_bring_a_policy_into_force(fabric, tmp_path: Path) -> None:
    workspace = begun(fabric, tmp_path)
    done = fabric("policy", "check", workspace, "-o", "json")
    assert (done.code, done.json["right"], len(done.json["datasets"])) == (0, True, 2)
    done = fabric("policy", "sign", workspace, "--key", tmp_path / "an.pem", "-o", "json")
    assert {item["role"]: item["missing"] for item in done.json} == {
        "approvals": ["binh"],
        "releases": ["binh"],
        "root": ["binh"],
        "targets": ["binh"],
    }
    refused = published(fabric, tmp_path, workspace)
    assert refused.code == 2
    assert "missing: agency-G01" in refused.err
    for name in ("g01", "binh"):
        assert fabric("policy", "sign", workspace, "--key", tmp_path / f"{name}.pem").code == 0
    assert published(fabric, tmp_path, workspace).json["version"] == 1
    shown = {row["role"]: row for row in fabric("policy", "show", workspace, "-o", "json").json}
    assert shown["agency-G01"]["version"] == 1
    assert fabric("policy", "diff", workspace, "-o", "json").json == []


def test_a_publisher_of_a_wrong_clock_is_told_so_and_may_give_his_word(
    fabric, tmp_path: Path
) -> None:
    workspace = begun(fabric, tmp_path)
    for name in ("an", "binh", "g01"):
        assert fabric("policy", "sign", workspace, "--key", tmp_path / f"{name}.pem").code == 0
    keys = OnlineKeys(
        snapshot=open_signer(str(tmp_path / "snapshot.pem")),
        timestamp=open_signer(str(tmp_path / "timestamp.pem")),
    )
    publish(Workspace(workspace), keys, datetime.now(UTC) + timedelta(hours=1))
    refused = published(fabric, tmp_path, workspace)
    assert (refused.code, refused.out) == (2, "")
    assert "clock_went_back: system clock is 3" in refused.err
    assert "publish with --clock-is-right" in refused.err
    done = published(fabric, tmp_path, workspace, "--clock-is-right")
    assert (done.code, done.json["version"]) == (0, 1)


def test_diff_shows_what_a_signature_will_cover(fabric, tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    (workspace.source / "agencies/G01.yaml").write_text("name: Other\n")
    done = fabric("policy", "diff", workspace.folder)
    assert "changed agencies/G01.yaml (signed by targets)" in done.out
    assert "+name: Other" in done.out


def test_wrong_source_is_refused_before_anybody_signs(fabric, tmp_path: Path) -> None:
    workspace = begun(fabric, tmp_path)
    (workspace / "source/agencies/G01.yaml").write_text("colour: red\n")
    for done in (
        fabric("policy", "check", workspace),
        fabric("policy", "sign", workspace, "--key", tmp_path / "an.pem"),
    ):
        assert done.code == 2
        assert "agencies/G01.yaml: " in done.err
    assert not (workspace / "staged").exists()


def test_one_person_is_not_enough_to_begin(fabric, tmp_path: Path) -> None:
    for name in ("an", "snapshot", "timestamp"):
        fabric("policy", "key", tmp_path / f"{name}.pem")
    done = fabric(
        "policy", "init", tmp_path / "w", "--person", f"an={tmp_path}/an.pem.pub",
        "--snapshot", tmp_path / "snapshot.pem.pub",
        "--timestamp", tmp_path / "timestamp.pem.pub",
    )  # fmt: skip
    assert done.code == 2
    assert "two persons" in done.err


def test_workspace_is_not_begun_twice(fabric, tmp_path: Path) -> None:
    workspace = begun(fabric, tmp_path)
    done = fabric(
        "policy", "init", workspace,
        "--person", f"an={tmp_path}/an.pem.pub", "--person", f"binh={tmp_path}/binh.pem.pub",
        "--snapshot", tmp_path / "snapshot.pem.pub",
        "--timestamp", tmp_path / "timestamp.pem.pub",
    )  # fmt: skip
    assert done.code == 2
    assert "is there already" in done.err


def test_key_of_an_unknown_kind_is_refused(fabric, tmp_path: Path) -> None:
    done = fabric("policy", "key", tmp_path / "x.pem", "--kind", "rot13")
    assert (done.code, "ed25519, ml-dsa-65" in done.err) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("diff",),
        ("check",),
        ("sign", "--key", "an.pem"),
        ("publish", "--snapshot-key", "s.pem", "--timestamp-key", "t.pem"),
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_folder_that_is_no_workspace_is_refused(fabric, tmp_path: Path, command, form) -> None:
    word, *options = command
    done = fabric("policy", word, tmp_path / "none", *options, "-o", form)
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path / 'none'}: is no workspace" in done.err
    assert "fabric policy init" in done.err


def test_a_workspace_without_signatures_is_shown_empty(fabric, tmp_path: Path) -> None:
    done = fabric("policy", "show", make_workspace(tmp_path).folder)
    assert (done.code, done.out) == (0, "")
    assert "nothing is signed yet" in done.err


def test_what_becomes_unreadable_is_said_before_anybody_signs(fabric, tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    path = workspace.source / "levels.yaml"
    levels = yaml.safe_load(path.read_bytes())
    next(item for item in levels if item["name"] == "secret")["host_level_min"] = 5
    path.write_text(yaml.safe_dump(levels))
    rule = "levels.yaml: secret.host_level_min: rises from 4 to 5"
    done = fabric("policy", "check", workspace.folder, "-o", "json")
    assert done.json["unreadable"] == [
        {"dataset": "secret.G01.residents", "rule": rule, "hosts": ["G01/registry/host-a"]}
    ]
    assert f"secret.G01.residents: {rule}" in done.err
    assert "do: first bring the senders" in done.err
    assert rule in fabric("policy", "diff", workspace.folder, "-o", "json").err


def test_nothing_is_said_of_a_step_that_leaves_the_log_readable(fabric, tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    done = fabric("policy", "check", workspace.folder, "-o", "json")
    assert (done.json["unreadable"], done.err) == ([], "")


def test_new_accepted_states_are_said_to_count_with_the_next_result(fabric, tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    path = workspace.source / "approvals/G01/registry/host-a.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_bytes()) | {"digests": ["03" * 32]}))
    done = fabric("policy", "check", workspace.folder, "-o", "json")
    (sentence,) = done.json["later"]
    assert sentence in done.err
    assert "count with the host's next result" in sentence
