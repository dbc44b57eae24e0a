"""The audit log: lines of JSON in files, each line bound to the one before it.

A line is written whole with one call. A killed process may leave its last line torn:
the next start cuts it, says so, and the chain goes on. A full disk costs events; they
are counted, and the next line that can be written says how many. The last room on a disk
is not the log's: without it a host could not attest again, nor keep its state, so that
it would not come back by itself. Files rotate by size
and the oldest is deleted; the chain runs on through all of them. What a line is and
how a chain is checked: fabric.attest.audit_chain.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fabric.attest.audit_chain import BEGAN, DROPPED, LOG_BYTES, Link, read_line, write_line
from fabric.model.disk import disk_error
from fabric.model.errors import ConfigInvalid, FabricError, Malformed
from fabric.model.limits import (
    AUDIT_FILE_BYTES_DEFAULT,
    AUDIT_FILES_DEFAULT,
    AUDIT_LINE_BYTES_MAX,
    AUDIT_RESERVE_BYTES,
)
from fabric.ports import Clock

_GAP = "events_lost"
_TORN = "line_torn"
_RESERVE_SHARE = 16
"""Of a small disk the reserve is this part only: one in so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How large a log may grow: bytes of a file, and number of files."""

    file_bytes_max: int = AUDIT_FILE_BYTES_DEFAULT
    files_max: int = AUDIT_FILES_DEFAULT


class FileAudit:
    """Implements ports.AuditLog on a file that one process writes.

    Args:
        path: made with mode 0600 when missing; full files lie beside it, named after
            the number of their first line.
        failed: called when an event could not be written; the decision it tells of stands.
        written: called when a line was written.

    Raises:
        ConfigInvalid: the file cannot be opened, or another process writes it.
        UnavailableError: OVERLOADED, the disk is full or fails.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        failed: Callable[[], None],
        written: Callable[[], None] = lambda: None,
        bounds: Bounds | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._failed = failed
        self._written = written
        self._bounds = bounds or Bounds()
        self._lock = threading.Lock()
        self._lost = 0
        self._link: Link | None = None
        self._log = secrets.token_bytes(LOG_BYTES)
        self._file = -1
        try:
            self._open()
        except OSError as exc:
            self.close()
            raise (
                disk_error(exc, path.parent)
                or ConfigInvalid(f"{path}: audit log cannot be opened ({exc.strerror})")
            ) from exc

    def write(self, event: str, fields: Mapping[str, str | int]) -> None:
        """Append one event; text values are cut at 500 characters.

        Raises:
            UsageError: INTERNAL, the event is not what a line may hold.
        """
        with self._lock:
            self._say_lost()
            if not self._append(event, fields):
                self._lose()

    def head(self) -> Link | None:
        """The last line, which is on disk when this returns; blocks. None: nothing is.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            if self._file >= 0 and self._link is not None:
                os.fsync(self._file)
            return self._link

    def close(self) -> None:
        """Close the file; a later `write` counts as failed."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    # Opening

    def _open(self) -> None:
        self._file = _opened(self._path)
        torn = self._cut_torn()
        last = _last_line(self._file, self._size)
        before: Path | None = None
        if not last and (older := rotated(self._path)):
            with older[-1].open("rb") as file:
                last = _last_line(file.fileno(), os.fstat(file.fileno()).st_size)
        try:
            self._link = read_line(last).link if last else None
        except Malformed:
            before = self._set_aside()
        self._first = self._first_number()
        if self._link is not None:
            self._log = self._link.log
        else:
            self.write(BEGAN, {"after": before.name} if before else {})
        if torn:
            self.write(_TORN, {"bytes": torn})

    def _cut_torn(self) -> int:
        """Cut what a killed process left unfinished; its length in bytes."""
        self._size = os.fstat(self._file).st_size
        start = max(0, self._size - AUDIT_LINE_BYTES_MAX)
        tail = os.pread(self._file, AUDIT_LINE_BYTES_MAX, start)
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
            self._size -= torn
            os.ftruncate(self._file, self._size)
        return torn

    def _set_aside(self) -> Path:
        """A file whose end is no audit line stays as evidence; a new log begins."""
        self._failed()
        damaged = self._path.with_name(
            f"{self._path.stem}.damaged-{time.time_ns()}{self._path.suffix}"
        )
        for old in rotated(self._path):
            old.rename(old.with_name(f"{damaged.stem}-{old.name}"))
        self._path.rename(damaged)
        fresh = _opened(self._path)
        os.close(self._file)
        self._file, self._size = fresh, 0
        return damaged

    def _first_number(self) -> int:
        data = os.pread(self._file, AUDIT_LINE_BYTES_MAX, 0)
        with contextlib.suppress(Malformed):
            return read_line(data.partition(b"\n")[0]).number
        return self._link.number + 1 if self._link else 1

    # Writing; the lock is held

    def _say_lost(self) -> None:
        if self._lost and self._append(_GAP, {"events": self._lost}):
            self._lost = 0

    def _lose(self) -> None:
        self._lost += 1
        self._failed()

    def _append(self, event: str, fields: Mapping[str, str | int]) -> bool:
        """Write one line, in a new file where this one is full; whether it is there."""
        data, link = write_line(
            self._link, self._log, time=self._time(), event=event, fields=fields
        )
        if self._size and self._size + len(data) > self._bounds.file_bytes_max:
            self._rotate()
            if self._link is not None and self._link.number != link.number - 1:
                return self._append(event, fields)  # a line was written meanwhile
        try:
            self._put(data + b"\n")
        except OSError:
            return False
        self._link = link
        self._written()
        return True

    def _put(self, data: bytes) -> None:
        """All of `data`, or nothing that stays."""
        if not _has_room(self._file):
            raise OSError(errno.ENOSPC, "the last room is left to others")
        if os.fstat(self._file).st_size != self._size:
            os.ftruncate(self._file, self._size)
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, self._size)
            raise OSError("line was written in part")
        self._size += written

    def _rotate(self) -> None:
        """Go on in a new file. Where that fails, this one grows: better large than silent."""
        try:
            os.fsync(self._file)
            if self._path.exists():
                self._path.rename(_named(self._path, self._first))
            fresh = _opened(self._path)
        except (OSError, ConfigInvalid):
            return
        os.close(self._file)
        self._file, self._size = fresh, 0
        self._first = self._link.number + 1 if self._link else 1
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        old = rotated(self._path)
        surplus = len(old) + 1 - self._bounds.files_max
        for path, following in list(pairwise(old))[: max(0, surplus)]:
            try:
                path.unlink()
            except OSError:
                return
            self._append(DROPPED, {"file": path.name, "last": _number_of(following) - 1})

    def _time(self) -> str:
        try:
            return self._clock.now().isoformat(timespec="milliseconds")
        except FabricError:  # the clock went back: what happens then must be on record too
            return "unknown"


def _has_room(handle: int) -> bool:
    """Whether the file's disk has more room than the log leaves free; a quota is not seen."""
    disk = os.fstatvfs(handle)
    reserve = min(AUDIT_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
    return disk.f_bavail * disk.f_frsize >= reserve


def rotated(path: Path) -> Sequence[Path]:
    """Full files of the log at `path`, oldest first."""
    form = re.compile(re.escape(path.stem) + r"-\d{12,}" + re.escape(path.suffix))
    found = [other for other in path.parent.glob(f"{path.stem}-*") if form.fullmatch(other.name)]
    return sorted(found, key=_number_of)


def _named(path: Path, first: int) -> Path:
    return path.with_name(f"{path.stem}-{first:012d}{path.suffix}")


def _number_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _opened(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise ConfigInvalid(
            f"{path}: another process writes this audit log; give each its own folder"
        ) from exc
    return handle


def _last_line(handle: int, size: int) -> bytes:
    start = max(0, size - AUDIT_LINE_BYTES_MAX - 1)
    tail = os.pread(handle, AUDIT_LINE_BYTES_MAX + 1, start)
    return tail.removesuffix(b"\n").rpartition(b"\n")[2]
