"""The repository's folder: read whole or refused with the file that is wrong."""

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Snapshot

from fabric.model.errors import ConfigInvalid, PeerError, UnavailableError
from fabric.repository.published import locked, read_published, write_timestamp
from tests.fakes.policy_workspace import make_workspace, publish_all


def test_empty_folder_is_an_empty_repository(tmp_path: Path) -> None:
    found = read_published(tmp_path)
    assert (found.root, found.signed("snapshot", Snapshot), found.metadata) == (None, None, {})


def test_published_repository_is_read_and_verified(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    found = read_published(workspace.repository)
    assert found.verified().version == 1
    assert len(found.roots) == 1


def test_files_are_readable_by_all_because_they_are_public(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    modes = {
        path.stat().st_mode & 0o777
        for path in workspace.repository.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert modes == {0o644}


def test_file_that_is_gone_is_named(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    (workspace.repository / "metadata" / "1.approvals.json").unlink()
    with pytest.raises(ConfigInvalid, match=r"1\.approvals\.json: cannot be read"):
        read_published(workspace.repository)


def test_file_that_is_garbage_is_malformed(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    (workspace.repository / "metadata" / "timestamp.json").write_bytes(b"{")
    with pytest.raises(PeerError):
        read_published(workspace.repository)


def test_there_is_one_writer(tmp_path: Path) -> None:
    import fcntl

    with (
        locked(tmp_path),
        (tmp_path / ".lock").open("w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_full_disk_is_told_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, mode: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fabric.repository.published.replace", full)
    with pytest.raises(UnavailableError, match=f"no room on the disk of {tmp_path}/metadata"):
        write_timestamp(tmp_path, b"{}")
