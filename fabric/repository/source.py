"""The documents that people write: a folder of YAML, schemas and certificates.

No process reads it: it is what `fabric policy` checks, signs and publishes.
"""

import os
from pathlib import Path

from fabric.model.errors import Reason, UsageError
from fabric.model.limits import POLICY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX

_SUFFIXES = frozenset({".yaml", ".yml", ".avsc", ".pem"})


def read_files(folder: Path) -> dict[str, bytes]:
    """Content of every policy file below `folder`, by POSIX path relative to it.

    Hidden files and folders and foreign suffixes are left out.

    Raises:
        UsageError: POLICY_INVALID; a file cannot be read or a bound is passed.
    """
    files: dict[str, bytes] = {}
    total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or path.suffix not in _SUFFIXES:
                continue
            key = path.relative_to(folder).as_posix()
            files[key] = _read(path, key)
            total += len(files[key])
            if len(files) > POLICY_FILES_MAX or total > POLICY_BYTES_MAX:
                raise UsageError(
                    Reason.POLICY_INVALID,
                    f"{folder}: files: are more than {POLICY_FILES_MAX} or {POLICY_BYTES_MAX}"
                    " bytes; remove old ones",
                )
    return files


def _read(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise UsageError(
            Reason.POLICY_INVALID, f"{key}: file: cannot be read ({exc.strerror}) at {path}"
        ) from exc
    if len(data) > POLICY_FILE_BYTES_MAX:
        raise UsageError(
            Reason.POLICY_INVALID, f"{key}: size: is more than {POLICY_FILE_BYTES_MAX} bytes"
        )
    return data
