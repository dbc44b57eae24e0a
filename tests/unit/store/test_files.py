"""Small files are replaced whole."""

import stat
from pathlib import Path

import pytest

from fabric.model.errors import ConfigInvalid
from fabric.store.files import own_folder, replace


def test_file_is_replaced_with_its_mode_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    replace(path, b"first", mode=0o600)
    path.with_name("file.part").write_bytes(b"what a crash left")
    replace(path, b"second", mode=0o640)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    own_folder(tmp_path / "a" / "b", "agent.folder")
    own_folder(tmp_path / "a" / "b", "agent.folder")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named_with_its_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid, match=r"agent\.folder: .*cannot be made .*; make the folder"):
        own_folder(tmp_path / name, "agent.folder")


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigInvalid, match="cannot be written"):
        own_folder(tmp_path, "agent.folder")
