"""What a person sees before signing is what the signature will cover."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fabric.repository.changes import changes, show_roles
from fabric.repository.staging import sign
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import make_workspace, publish_all

NOW = datetime.now(UTC)


def test_each_file_that_differs_is_shown_with_its_role_and_lines(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), NOW)
    assert changes(workspace) == []
    (workspace.source / "agencies/G04.yaml").write_text("name: New\n")
    (workspace.source / "agencies/G03.yaml").unlink()
    path = workspace.source / "datasets/G01/residents.yaml"
    path.write_text(path.read_text().replace("retained", "from_join"))
    found = {item.path: item for item in changes(workspace)}
    assert {name: (item.change, item.role) for name, item in found.items()} == {
        "agencies/G03.yaml": ("removed", "targets"),
        "agencies/G04.yaml": ("added", "targets"),
        "datasets/G01/residents.yaml": ("changed", "agency-G01"),
    }
    lines = found["datasets/G01/residents.yaml"].lines
    assert "-history: retained" in lines
    assert "+history: from_join" in lines
    assert found["agencies/G04.yaml"].fields()["lines"] == ["@@ -0,0 +1 @@", "+name: New"]


def test_roles_show_their_end_and_whose_signature_is_missing(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), NOW)
    path = workspace.source / "agencies/G01.yaml"
    path.write_text("name: Other\n")
    sign(workspace, key("an"), NOW)
    found = {row["role"]: row for row in show_roles(workspace, NOW + timedelta(days=5))}
    assert found["targets"]["version"] == 1
    assert found["targets"]["staged"] == 2
    assert (found["targets"]["signed"], found["targets"]["missing"]) == (["an"], ["binh"])
    assert found["approvals"]["days_left"] == 359
    assert found["approvals"]["expires"] == NOW.replace(microsecond=0) + timedelta(days=365)
    assert found["timestamp"]["days_left"] < 0
    assert found["approvals"]["staged"] is None


def test_workspace_with_nothing_shows_nothing(tmp_path: Path) -> None:
    assert show_roles(make_workspace(tmp_path), NOW) == []
