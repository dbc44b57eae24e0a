"""The archive of Kafka's classes: a JVM maps them from it instead of parsing and verifying them.

It lies beside the jars as `classes-<of>-<size>.jsa`, made by `fabric.demo.rehearsal`. `of` tells
the Java and the jars it was made of, `size` its bytes: a JVM that is given half an archive dies
of SIGBUS, so that only a whole one may ever get to it. The rest the JVM itself finds
(VerifySharedSpaces), and goes on without.
"""

import hashlib
import os
import shutil
from pathlib import Path

_USE = ("-XX:+VerifySharedSpaces",)


def options(folder: Path) -> tuple[str, ...]:
    """What a JVM is to be told that runs the jars of `folder`; without an archive, nothing."""
    whole = find(folder)
    return (*_USE, f"-XX:SharedArchiveFile={whole}") if whole else ()


def find(folder: Path) -> Path | None:
    """A whole archive of these jars and this Java."""
    of = _of(folder)
    return next((path for path in _all(folder) if _is_whole(path, of)), None)


def keep(fresh: Path, folder: Path) -> Path:
    """Move a finished archive to its place at once; what other jars or another Java had goes.

    Several may do so at the same time: each archive is whole, and none removes another's.
    """
    of = _of(folder)
    with fresh.open("rb") as written:
        os.fsync(written.fileno())  # else a power cut could leave the name without the bytes
    place = folder / f"classes-{of}-{fresh.stat().st_size}.jsa"
    fresh.replace(place)
    for path in _all(folder):
        if not _is_whole(path, of):
            path.unlink(missing_ok=True)
    return place


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("classes-*-*.jsa"))


def _is_whole(path: Path, of: str) -> bool:
    try:
        return path.name == f"classes-{of}-{path.stat().st_size}.jsa"
    except FileNotFoundError:
        return False


def _of(folder: Path) -> str:
    """Digest of what an archive depends on: a JVM refuses it after any change of these."""
    java = Path(shutil.which("java") or "java").resolve()
    parts = [java, java.parents[1] / "lib" / "modules", *sorted(folder.glob("*.jar"))]
    seen = hashlib.sha256()
    for path in parts:
        state = path.stat() if path.exists() else None
        told = (state.st_size, state.st_mtime_ns) if state else ()
        seen.update(f"{path} {told}\n".encode())
    return seen.hexdigest()[:16]
