"""Replace a small file at once: whoever reads sees the old bytes or the new ones, whole."""

import os
from pathlib import Path


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Replace a file's bytes; durable, and never readable to more than `mode` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must outlive a power cut
    finally:
        os.close(folder)
