"""A process's own folder, and small files in it that are replaced at once.

Whoever reads a file sees the old bytes or the new ones, whole.
"""

import os
from pathlib import Path

from fabric.model.errors import ConfigInvalid


def own_folder(folder: Path, key: str) -> None:
    """Make a process's folder where it is missing.

    Args:
        key: the setting that names it.

    Raises:
        ConfigInvalid: it cannot be made, or this process's user may not write there.
    """
    remedy = "make the folder, and let this process's user write there"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigInvalid(f"{key}: {folder} cannot be made ({exc.strerror}); {remedy}") from exc
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigInvalid(f"{key}: {folder} cannot be written; {remedy}")


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
