"""The audit log: JSON lines, each with the SHA-256 of the line before it.

A line is written whole with one call, so a killed process loses none and tears
none; a line that is taken out or changed afterwards shows in its successor.
Values are names, numbers and reasons, never row data.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fabric.model.errors import ConfigInvalid, FabricError, Malformed, Reason, UsageError
from fabric.ports import Clock

_FIELDS_MAX = 32
_VALUE_CHARS_MAX = 500
_LINE_BYTES_MAX = 64 * 1024
_RESERVED = frozenset({"at", "event", "number", "previous"})
_START = "0" * 64


class FileAudit:
    """Implements ports.AuditLog on one file, which one process writes.

    Args:
        path: made with mode 0600 when missing.
        failed: called when a line could not be written; the decision it tells of stands.

    Raises:
        ConfigInvalid: the file cannot be opened.
    """

    def __init__(self, path: Path, clock: Clock, *, failed: Callable[[], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._lock = threading.Lock()
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
            last = self._last_line()
        except OSError as exc:
            raise ConfigInvalid(f"{path}: audit log cannot be opened ({exc.strerror})") from exc
        self._previous = hashlib.sha256(last).hexdigest() if last else _START
        self._number = _number_in(last)

    def write(self, event: str, fields: Mapping[str, str | int]) -> None:
        """Append one event; text values are cut at 500 characters.

        Raises:
            UsageError: INTERNAL, a field has a reserved name or there are too many.
        """
        if len(fields) > _FIELDS_MAX or _RESERVED & set(fields):
            raise UsageError(Reason.INTERNAL, "audit event has reserved or too many fields")
        short = {
            k: v if isinstance(v, int) else str(v)[:_VALUE_CHARS_MAX] for k, v in fields.items()
        }
        with self._lock:
            line = self._line(event, short)
            try:
                if os.write(self._file, line + b"\n") != len(line) + 1:
                    raise OSError("line was written in part")
                self._previous = hashlib.sha256(line).hexdigest()
                self._number += 1
            except OSError:
                self._failed()

    def close(self) -> None:
        """Close the file; a later `write` counts as failed."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _line(self, event: str, fields: Mapping[str, str | int]) -> bytes:
        record = {
            "at": self._time(),
            "event": event,
            "number": self._number + 1,
            "previous": self._previous,
            **fields,
        }
        return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()

    def _time(self) -> str:
        try:
            return self._clock.now().isoformat(timespec="milliseconds")
        except FabricError:  # the clock went back: what happens then must be on record too
            return "unknown"

    def _last_line(self) -> bytes:
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, _LINE_BYTES_MAX, max(0, size - _LINE_BYTES_MAX))
        if tail and not tail.endswith(b"\n"):
            os.write(self._file, b"\n")  # a torn line becomes a line of its own
        return tail.removesuffix(b"\n").rpartition(b"\n")[2]


def check_chain(lines: Iterator[bytes]) -> int:
    """Number of lines, each of which names its predecessor's digest; raises Malformed."""
    previous, count = _START, 0
    for line in lines:
        text = line.rstrip(b"\n")
        count += 1
        try:
            record = json.loads(text)
            named = record["previous"]
        except (ValueError, KeyError, TypeError) as exc:
            raise Malformed(f"audit line {count} does not parse") from exc
        if named != previous:
            raise Malformed(f"audit line {count} does not follow the line before it")
        previous = hashlib.sha256(text).hexdigest()
    return count


def _number_in(line: bytes) -> int:
    try:
        number = json.loads(line)["number"]
    except (ValueError, KeyError, TypeError):
        return 0
    return number if isinstance(number, int) else 0
