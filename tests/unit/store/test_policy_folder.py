"""The folder is read when its version moves; what is broken or older changes nothing."""

from pathlib import Path

import pytest
import yaml

from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.limits import POLICY_FILE_BYTES_MAX
from fabric.store.policy_folder import PolicyFolder, read_files
from tests.fakes.policy_files import documents, files


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def publish(folder: Path, version: int, **level: object) -> None:
    """Change a level's citation, then the version, as a writer does."""
    changed = documents()
    changed["levels.yaml"][0].update(level)
    changed["policy.yaml"]["version"] = version
    content = files(changed)
    head = content.pop("policy.yaml")
    write(folder, content)
    write(folder, {"policy.yaml": head})


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policy", files())


def test_folder_loads_and_then_nothing_changes(folder: Path) -> None:
    source = PolicyFolder(folder)
    with pytest.raises(UnavailableError):
        _ = source.policy
    assert source.load().version == 7
    assert source.refresh() is None
    assert source.policy.version == 7


def test_change_takes_effect_with_its_version(folder: Path) -> None:
    source = PolicyFolder(folder)
    source.load()
    changed = documents()
    changed["levels.yaml"][0]["citation"] = "another law"
    write(folder, {"levels.yaml": files(changed)["levels.yaml"]})
    assert source.refresh() is None
    publish(folder, 8, citation="another law")
    fresh = source.refresh()
    assert fresh is not None
    assert (fresh.version, fresh.rules["public"].citation) == (8, "another law")
    assert source.policy is fresh


def test_version_that_goes_back_is_refused_and_the_newer_stays(folder: Path) -> None:
    source = PolicyFolder(folder)
    source.load()
    publish(folder, 6)
    with pytest.raises(UsageError, match="version: is 6, below 7"):
        source.refresh()
    assert source.policy.version == 7
    publish(folder, 8)
    assert source.refresh() is not None


def test_head_that_changes_under_one_version_is_read_again(folder: Path) -> None:
    source = PolicyFolder(folder)
    source.load()
    changed = documents()
    changed["policy.yaml"]["expires"] = "2028-01-01T00:00:00Z"
    write(folder, {"policy.yaml": files(changed)["policy.yaml"]})
    fresh = source.refresh()
    assert fresh is not None
    assert fresh.expires.year == 2028


def test_broken_folder_is_told_each_time_and_the_last_good_policy_stays(folder: Path) -> None:
    source = PolicyFolder(folder)
    source.load()
    publish(folder, 8, coding="zstd")
    for _ in range(2):
        with pytest.raises(UsageError, match="public: is open") as caught:
            source.refresh()
        assert caught.value.reason is Reason.POLICY_INVALID
    assert source.policy.version == 7


def test_folder_that_went_away_leaves_the_policy(folder: Path, tmp_path: Path) -> None:
    source = PolicyFolder(folder)
    source.load()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="policy.yaml: file: cannot be read"):
        source.refresh()
    assert source.policy.version == 7


def test_start_without_folder_goes_by_the_copy(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "policy.copy"
    PolicyFolder(folder, copy=copy).load()
    assert copy.stat().st_mode & 0o777 == 0o600
    folder.rename(tmp_path / "elsewhere")
    again = PolicyFolder(folder, copy=copy)
    assert again.load().version == 7
    (tmp_path / "elsewhere").rename(folder)
    publish(folder, 8)
    assert again.refresh() is not None


def test_start_does_not_go_back_behind_the_copy(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "policy.copy"
    publish(folder, 9)
    PolicyFolder(folder, copy=copy).load()
    publish(folder, 8)
    assert PolicyFolder(folder, copy=copy).load().version == 9


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[]", b'{"policy.yaml": "%"}', b'{"a": 1}', b"{}"])
def test_spoilt_copy_is_as_none(folder: Path, tmp_path: Path, spoilt: bytes) -> None:
    copy = tmp_path / "policy.copy"
    copy.write_bytes(spoilt)
    assert PolicyFolder(folder, copy=copy).load().version == 7


def test_start_without_folder_and_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="policy.yaml"):
        PolicyFolder(tmp_path / "none", copy=tmp_path / "copy").load()


def test_copy_that_cannot_be_written_does_not_hold_a_policy_back(
    folder: Path, tmp_path: Path
) -> None:
    source = PolicyFolder(folder, copy=tmp_path / "nowhere" / "copy")
    assert source.load().version == 7


def test_hidden_files_and_foreign_suffixes_are_left_out(folder: Path) -> None:
    write(
        folder, {".git/config.yaml": b"x", ".hidden.yaml": b"x", "levels.part": b"x", "a.md": b""}
    )
    assert set(read_files(folder)) == set(files())


def test_file_too_large_is_refused_before_it_is_read_whole(folder: Path) -> None:
    write(folder, {"trust/ca.pem": b"x" * (POLICY_FILE_BYTES_MAX + 5)})
    with pytest.raises(UsageError, match="trust/ca.pem: size"):
        read_files(folder)


def test_policy_that_changes_under_the_reader_is_read_as_one(folder: Path) -> None:
    """A publication between two reads must not mix two versions."""
    source = PolicyFolder(folder)
    source.load()
    publish(folder, 8)
    text = yaml.safe_load((folder / "policy.yaml").read_bytes())
    assert text["version"] == 8
    assert source.refresh() is not None
    assert source.refresh() is None
