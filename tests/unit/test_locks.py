"""fabric.locks"""

import fcntl
import os
from pathlib import Path

from fabric.locks import holder


def test_the_holder_is_named_as_long_as_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with path.open("w") as file:
        assert holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(path) == os.getpid()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert holder(path) is None


def test_other_locks_and_who_waits_are_not_taken_for_it(tmp_path: Path) -> None:
    path, listed = tmp_path / "lock", tmp_path / "locks"
    path.touch()
    inode = path.stat().st_ino
    listed.write_text(
        f"1: POSIX  ADVISORY  WRITE 7 08:01:{inode} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 8 08:01:{inode}1 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 9 08:01:{inode} 0 EOF\n"
    )
    assert holder(path, listed=listed) is None
    assert holder(path, listed=tmp_path / "absent") is None
