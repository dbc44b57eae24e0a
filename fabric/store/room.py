"""How much room the disk of a process's folder has left."""

import os
from pathlib import Path

ROOM_BYTES_MIN = 64 * 1024 * 1024
"""Below that a folder has no room. A state file's or ledger's log, an audit file before it is
turned over and a copy of the policy may each grow by some MiB between two looks of a person;
of a large volume any share would be gigabytes of which nobody is short."""
_SHARE_MIN = 10
"""A volume of less than ten times that needs a tenth of itself: a small one may be meant so."""
_MIB = 1024 * 1024


def free_room(folder: Path) -> int:
    """Bytes that a user may still write below `folder`, or below the first parent that exists.

    Raises:
        OSError: nobody may look there.
    """
    found = _look(folder)
    return found.f_bavail * found.f_frsize


def why_no_room(folder: Path) -> str | None:
    """Why the folder's disk is as good as full, or None; raises as `free_room`."""
    found = _look(folder)
    if found.f_files and not found.f_favail:
        return f"the disk of {folder} takes no more files"
    free = found.f_bavail * found.f_frsize
    needed = min(ROOM_BYTES_MIN, found.f_blocks * found.f_frsize // _SHARE_MIN)
    if free >= needed:
        return None
    return (
        f"{free / _MIB:.1f} MiB are free on the disk of {folder},"
        f" {needed / _MIB:.1f} MiB are needed"
    )


def _look(folder: Path) -> os.statvfs_result:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return os.statvfs(there)
