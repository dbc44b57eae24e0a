"""Who holds a file's lock, asked without touching the file.

Taking the lock to see whether it is free would keep its owner out for a moment; the
kernel's list (proc_locks(5)) does not. It shows processes of our own container alone.
It names a file by device and number. On some file systems (btrfs, overlayfs) its device
is not the one that stat tells, so that the number alone remains, which is a guess: fresh
volumes give the same numbers to the same files.
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a lock; `is_sure` is false where it may hold another file's."""

    pid: int
    is_sure: bool

    def __str__(self) -> str:
        return f"{'' if self.is_sure else 'perhaps '}pid {self.pid}"


def holder(path: Path, *, listed: Path = _LOCKS) -> Holder | None:
    """Process that holds an flock on the file; None when nobody does, or nobody can tell."""
    try:
        found = path.stat()
        lines = listed.read_text().splitlines()
    except OSError:
        return None
    holders = _holders(lines, found.st_ino)
    for device, pid in holders:
        if device == _device(found):
            return Holder(pid=pid, is_sure=True)
    if holders and not _tells_device(path.parent):
        return Holder(pid=holders[0][1], is_sure=False)
    return None


def _holders(lines: Sequence[str], inode: int) -> list[tuple[str, int]]:
    """Device and process of every flock on a file of this number, on whatever device."""
    found = []
    for line in lines:
        # `1: FLOCK  ADVISORY  WRITE 4711 08:01:2883602 0 EOF`; a line with `->` only waits
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            found.append((fields[5].rpartition(":")[0], int(fields[4])))
    return found


def _device(found: os.stat_result) -> str:
    """A file's device as the kernel's list words it, by what stat tells."""
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"


def _tells_device(folder: Path) -> bool:
    """Whether the list names files of this folder by the device that stat tells.

    Seen at a lock of our own, on a file without a name, which is gone once it is closed.
    """
    try:
        handle = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(handle)
        ours = _holders(_LOCKS.read_text().splitlines(), found.st_ino)
        return (_device(found), os.getpid()) in ours
    except OSError:
        return False
    finally:
        os.close(handle)
