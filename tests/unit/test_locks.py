"""fabric.locks"""

import fcntl
import os
from pathlib import Path

import pytest

from fabric import locks
from fabric.locks import Holder, holder


def test_the_holder_is_named_as_long_as_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with path.open("w") as file:
        assert holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(path) == Holder(pid=os.getpid(), is_sure=locks._tells_device(tmp_path))
        fcntl.flock(file, fcntl.LOCK_UN)
        assert holder(path) is None
    assert [*tmp_path.iterdir()] == [path]  # whoever asks leaves nothing behind


def place(path: Path, minor: int = 0) -> str:
    """A file as the kernel lists it; `minor` is added to its device's."""
    found = path.stat()
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev) + minor:02x}:{found.st_ino}"


def test_other_locks_and_who_waits_are_not_taken_for_it(tmp_path: Path) -> None:
    path, listed = tmp_path / "lock", tmp_path / "locks"
    path.touch()
    here = place(path)
    listed.write_text(
        f"1: POSIX  ADVISORY  WRITE 7 {here} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 8 {here}1 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 9 {here} 0 EOF\n"
    )
    assert holder(path, listed=listed) is None
    assert holder(path, listed=tmp_path / "absent") is None


@pytest.mark.parametrize("tells", [True, False])
def test_a_file_of_the_same_number_on_another_disk_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    """Fresh volumes give the same numbers to the same files."""
    monkeypatch.setattr(locks, "_tells_device", lambda _folder: tells)
    path, listed = tmp_path / "lock", tmp_path / "locks"
    path.touch()
    other = f"1: FLOCK  ADVISORY  WRITE 8 {place(path, 1)} 0 EOF\n"
    listed.write_text(other)
    assert holder(path, listed=listed) == (None if tells else Holder(pid=8, is_sure=False))
    listed.write_text(f"{other}2: FLOCK  ADVISORY  WRITE 9 {place(path)} 0 EOF\n")
    assert holder(path, listed=listed) == Holder(pid=9, is_sure=True)


def test_a_guess_is_called_one() -> None:
    assert str(Holder(pid=8, is_sure=True)) == "pid 8"
    assert str(Holder(pid=8, is_sure=False)) == "perhaps pid 8"


def test_a_folder_that_nobody_may_open_tells_nothing(tmp_path: Path) -> None:
    assert not locks._tells_device(tmp_path / "absent")
