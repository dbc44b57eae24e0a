"""The folder that people write is read within bounds, and nothing else that lies there."""

from pathlib import Path

import pytest

from fabric.model.errors import UsageError
from fabric.model.limits import POLICY_FILE_BYTES_MAX
from fabric.repository.source import read_files
from tests.fakes.policy_files import files


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policy", files())


def test_every_document_is_read_under_its_path(folder: Path) -> None:
    assert read_files(folder) == files()


def test_hidden_files_and_foreign_suffixes_are_left_out(folder: Path) -> None:
    write(
        folder, {".git/config.yaml": b"x", ".hidden.yaml": b"x", "levels.part": b"x", "a.md": b""}
    )
    assert set(read_files(folder)) == set(files())


def test_file_too_large_is_refused_before_it_is_read_whole(folder: Path) -> None:
    write(folder, {"trust/ca.pem": b"x" * (POLICY_FILE_BYTES_MAX + 5)})
    with pytest.raises(UsageError, match="trust/ca.pem: size"):
        read_files(folder)
