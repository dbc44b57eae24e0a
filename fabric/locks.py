"""Who holds a file's lock, asked without touching the file.

Taking the lock to see whether it is free would keep its owner out for a moment; the
kernel's list (proc_locks(5)) does not. It shows processes of our own container alone.
"""

from pathlib import Path

_LOCKS = Path("/proc/locks")


def holder(path: Path, *, listed: Path = _LOCKS) -> int | None:
    """Process that holds an flock on the file; None when nobody does, or nobody can tell."""
    try:
        inode = path.stat().st_ino
        lines = listed.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        # `1: FLOCK  ADVISORY  WRITE 4711 08:01:2883602 0 EOF`; a line with `->` only waits
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None
