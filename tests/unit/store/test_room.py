"""The room that a process's folder has left."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fabric.store.room import ROOM_BYTES_MIN, free_room, why_no_room

MIB = 1024 * 1024


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A volume of 100 GiB whose figures the test sets."""
    made = SimpleNamespace(
        f_frsize=4096, f_blocks=100 * 1024 * 256, f_bavail=MIB, f_files=1000, f_favail=1000
    )
    monkeypatch.setattr(os, "statvfs", lambda _path: made)
    return made


def test_a_folder_has_room_down_to_the_bound(disk: SimpleNamespace, tmp_path: Path) -> None:
    disk.f_bavail = ROOM_BYTES_MIN // 4096
    assert why_no_room(tmp_path) is None
    disk.f_bavail -= 1
    assert why_no_room(tmp_path) == (
        f"64.0 MiB are free on the disk of {tmp_path}, 64.0 MiB are needed"
    )


def test_a_small_volume_needs_a_tenth_of_itself(disk: SimpleNamespace, tmp_path: Path) -> None:
    disk.f_blocks, disk.f_bavail = 32 * 256, 4 * 256
    assert why_no_room(tmp_path) is None
    disk.f_bavail = 3 * 256
    assert "3.0 MiB are free" in (why_no_room(tmp_path) or "")


def test_a_volume_without_room_for_another_file_is_full(
    disk: SimpleNamespace, tmp_path: Path
) -> None:
    disk.f_favail = 0
    assert "no more files" in (why_no_room(tmp_path) or "")
    disk.f_files = 0  # as on btrfs, which does not count them
    assert why_no_room(tmp_path) is None


def test_a_folder_that_is_not_there_yet_is_looked_at_where_it_will_be(tmp_path: Path) -> None:
    assert why_no_room(tmp_path / "state" / "metadata") is None
    assert free_room(tmp_path / "state") == pytest.approx(free_room(tmp_path), rel=0.5)
