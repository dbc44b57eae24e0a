"""The repository's folder as it was published: metadata by role and files by hash.

Plain files, never changed once written but for `timestamp.json`, so that any web server
or a copy on a disk serves them.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from fabric.model.disk import disk_error
from fabric.model.errors import ConfigInvalid
from fabric.model.limits import POLICY_METADATA_BYTES_MAX
from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.policy.signed import SignedPolicy, verify
from fabric.repository.fetch import FILES, METADATA
from fabric.repository.held import replace

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)
_TIMESTAMP = "timestamp.json"
_ROOTS_MAX = 10_000
_OPEN = 0o644
"""Mode of published files: they are public, and signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What stands in a repository; empty before the first publication.

    Attributes:
        roots: every root, the first is the trust anchor.
        metadata: bytes by role, without root.
    """

    roots: Sequence[bytes] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def root(self) -> Root | None:
        """The newest root."""
        return parse(self.roots[-1], Root).signed if self.roots else None

    def signed(self, name: str, kind: type[_S]) -> _S | None:
        """One role, or None when it was never published."""
        data = self.metadata.get(name)
        return None if data is None else parse(data, kind).signed

    def verified(self) -> SignedPolicy:
        """Verify everything; raises PeerError."""
        return verify(self.roots, self.metadata)


def parse(data: bytes, _kind: type[_S]) -> Metadata[_S]:
    """Read one metadata file; raises PeerError MALFORMED."""
    with translated():
        found: Metadata[_S] = Metadata.from_bytes(data)
    return found


def metadata_path(folder: Path, role: str, version: int) -> Path:
    """Where a version of a role lies."""
    return folder / METADATA / f"{version}.{quote(role, '')}.json"


def file_path(folder: Path, target: TargetFile) -> Path:
    """Where a signed file lies."""
    parent, _, name = target.path.rpartition("/")
    return folder / FILES / parent / f"{target.hashes['sha256']}.{name}"


def read_published(folder: Path) -> Published:
    """Everything current in a repository's folder; raises PeerError or ConfigInvalid."""
    number, roots = 1, []
    while (path := metadata_path(folder, roles.ROOT, number)).exists() and number <= _ROOTS_MAX:
        roots.append(_read(path))
        number += 1
    if not (folder / METADATA / _TIMESTAMP).exists():
        return Published(roots=roots)
    metadata = {roles.TIMESTAMP: _read(folder / METADATA / _TIMESTAMP)}
    timestamp = parse(metadata[roles.TIMESTAMP], Timestamp).signed
    version = timestamp.snapshot_meta.version
    metadata[roles.SNAPSHOT] = _read(metadata_path(folder, roles.SNAPSHOT, version))
    snapshot = parse(metadata[roles.SNAPSHOT], Snapshot).signed
    for name, meta in snapshot.meta.items():
        role = name.removesuffix(".json")
        metadata[role] = _read(metadata_path(folder, role, meta.version))
    return Published(roots=roots, metadata=metadata)


def read_published_file(folder: Path, target: TargetFile) -> dict[str, bytes]:
    """Content of one signed file, by its path."""
    return {target.path: _read(file_path(folder, target))}


def write_file(folder: Path, target: TargetFile, data: bytes) -> None:
    """Write a signed file, once."""
    path = file_path(folder, target)
    if not path.exists():
        _write(path, data)


def write_metadata(folder: Path, role: str, version: int, data: bytes) -> None:
    """Write a version of a role, once."""
    _write(metadata_path(folder, role, version), data)


def write_timestamp(folder: Path, data: bytes) -> None:
    """Replace the timestamp: from now on clients see what it names."""
    _write(folder / METADATA / _TIMESTAMP, data)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of a repository; raises ConfigInvalid when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigInvalid(f"{folder}: cannot be written ({exc.strerror})") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data, mode=_OPEN)
    except OSError as exc:
        raise (
            disk_error(exc, path.parent)
            or ConfigInvalid(f"{path}: cannot be written ({exc.strerror})")
        ) from exc


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(POLICY_METADATA_BYTES_MAX)
    except OSError as exc:
        raise ConfigInvalid(f"{path}: cannot be read ({exc.strerror}); restore the file") from exc
