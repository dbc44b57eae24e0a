"""The audit log on disk: whole lines, one chain over restarts and files, failures that count."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.attest.audit_chain import Line, Walk, read_line
from fabric.model.errors import ConfigInvalid, UnavailableError, UsageError
from fabric.model.limits import AUDIT_RESERVE_BYTES
from fabric.ports import AuditLog
from fabric.store import audit as module
from fabric.store.audit import Bounds, FileAudit, rotated
from fabric.store.clock import SystemClock
from tests.fakes.clock import START, ManualClock


class Failures:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def opened(path: Path, failures: Failures | None = None, **bounds: int) -> FileAudit:
    return FileAudit(
        path,
        ManualClock(),
        failed=failures or Failures(),
        bounds=Bounds(**bounds) if bounds else None,
    )


def lines_of(path: Path) -> list[Line]:
    """Every line of the log, also in its full files; checks the chain."""
    walk, found = Walk(), []
    for file in (*rotated(path), path):
        for line in file.read_bytes().splitlines():
            found.append(walk.take(line))
    walk.end()
    return found


def events(path: Path) -> list[str]:
    return [line.event for line in lines_of(path)]


def test_event_is_one_line_with_time_number_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit: AuditLog = opened(path)
    audit.write("refused", {"reason": "replayed", "partition": 3})
    first, record = (json.loads(line) for line in path.read_text().splitlines())
    assert record == {
        "log": first["log"],
        "number": 2,
        "previous": first["hash"],
        "time": "2026-09-01T08:00:00.000+00:00",
        "event": "refused",
        "fields": {"reason": "replayed", "partition": 3},
        "hash": record["hash"],
    }
    assert (first["event"], first["previous"]) == ("log_began", "0" * 64)
    assert path.stat().st_mode & 0o777 == 0o600


def test_chain_goes_on_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for start in range(3):
        audit = opened(path)
        for n in range(3):
            audit.write("event", {"n": n, "start": start})
        audit.close()
    assert [line.number for line in lines_of(path)] == list(range(1, 11))


@pytest.mark.parametrize("torn", [b"{", b'{"log":"2026', b"x" * 300_000])
def test_torn_last_line_is_cut_and_said_and_the_chain_goes_on(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    audit = opened(path)
    audit.write("event", {"n": 1})
    audit.close()
    whole = path.read_bytes()
    if len(torn) > 262_144:  # more than a line can be is not what a kill leaves behind
        torn = torn[:262_000]
    path.write_bytes(whole + torn)
    opened(path).write("event", {"n": 2})
    assert path.read_bytes().startswith(whole)
    assert events(path) == ["log_began", "event", "line_torn", "event"]
    assert lines_of(path)[2].fields == {"bytes": len(torn)}


def test_killed_process_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fabric.store.audit import FileAudit\n"
        "from fabric.store.clock import SystemClock\n"
        "audit = FileAudit(Path(sys.argv[1]), SystemClock(), failed=lambda: None)\n"
        "for n in range(50): audit.write('event', {'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=False, timeout=60)
    assert done.returncode == -9
    opened(path).write("event", {"n": 50})
    assert [line.number for line in lines_of(path)] == list(range(1, 53))


def test_file_whose_end_is_no_line_is_set_aside_and_said(tmp_path: Path) -> None:
    path, failures = tmp_path / "audit.jsonl", Failures()
    audit = opened(path)
    audit.write("event", {})
    audit.close()
    path.write_bytes(path.read_bytes() + b"\0" * 512 + b"\n")
    opened(path, failures).write("event", {})
    assert failures.count == 1
    assert events(path) == ["log_began", "event"]
    aside = lines_of(path)[0].fields["after"]
    assert (tmp_path / str(aside)).read_bytes().endswith(b"\0\n")
    assert rotated(path) == []


def test_files_rotate_by_size_and_the_chain_runs_through_them(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = opened(path, file_bytes_max=2_000, files_max=100)
    for n in range(50):
        audit.write("event", {"n": n})
    audit.close()
    audit = opened(path, file_bytes_max=2_000, files_max=100)
    audit.write("event", {"n": 50})
    assert len(rotated(path)) > 5
    assert all(file.stat().st_size <= 2_000 for file in (*rotated(path), path))
    assert [line.number for line in lines_of(path)] == list(range(1, 53))
    first = read_line(rotated(path)[1].read_bytes().splitlines()[0])
    assert rotated(path)[1].name == f"audit-{first.number:012d}.jsonl"


def test_oldest_file_is_deleted_and_the_log_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = opened(path, file_bytes_max=2_000, files_max=3)
    for n in range(60):
        audit.write("event", {"n": n})
    assert len(rotated(path)) == 2
    kept = lines_of(path)
    assert kept[0].number > 1
    assert "file_dropped" in [line.event for line in kept]


def test_process_killed_between_two_files_goes_on_from_the_full_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = opened(path)
    audit.write("event", {})
    audit.close()
    path.rename(tmp_path / "audit-000000000001.jsonl")
    opened(path).write("event", {})
    assert [line.number for line in lines_of(path)] == [1, 2, 3]


def test_full_disk_is_counted_and_the_next_line_says_how_many_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, failures = tmp_path / "audit.jsonl", Failures()
    audit = opened(path, failures)
    audit.write("event", {"n": 1})
    real, left = os.write, [30]

    def full(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space left")
        done, left[0] = real(handle, data[: left[0]]), 0
        return done

    monkeypatch.setattr(module.os, "write", full)
    for n in range(3):
        audit.write("event", {"n": n})
    assert failures.count == 3
    monkeypatch.setattr(module.os, "write", real)
    audit.write("event", {"n": 4})
    assert events(path) == ["log_began", "event", "events_lost", "event"]
    assert lines_of(path)[2].fields == {"events": 3}


def with_room(blocks: int, *, total: int = 1_000_000) -> Callable[[int], os.statvfs_result]:
    """What a file system of 4 KiB blocks says of itself, with so many free for this process."""

    def say(handle: int) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, total, blocks + 50_000, blocks, 0, 0, 0, 0, 255))

    return say


def test_the_last_room_on_a_disk_is_left_to_others_and_what_is_lost_is_said_once_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, failures = tmp_path / "audit.jsonl", Failures()
    audit = opened(path, failures)
    least = AUDIT_RESERVE_BYTES // 4096
    monkeypatch.setattr(module.os, "fstatvfs", with_room(least))
    audit.write("event", {"n": 1})
    monkeypatch.setattr(module.os, "fstatvfs", with_room(least - 1))
    for n in range(3):
        audit.write("lost", {"n": n})
    assert failures.count == 3
    assert events(path) == ["log_began", "event"]
    monkeypatch.setattr(module.os, "fstatvfs", with_room(least))
    audit.write("event", {"n": 2})
    assert events(path) == ["log_began", "event", "events_lost", "event"]
    assert lines_of(path)[2].fields == {"events": 3}


@pytest.mark.parametrize(("room", "total"), [(0, 0), (63, 1_000)])
def test_a_disk_that_is_small_or_tells_no_size_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, total: int
) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setattr(module.os, "fstatvfs", with_room(room, total=total))
    opened(path).write("event", {})
    assert events(path) == ["log_began", "event"]


def test_a_process_that_starts_on_a_full_disk_begins_its_log_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fstatvfs", with_room(10))
        audit = opened(path)
        audit.write("lost", {})
    audit.write("event", {})
    assert events(path) == ["events_lost", "event"]
    audit.close()
    opened(path).write("event", {})
    assert events(path) == ["events_lost", "event", "event"]


def test_file_that_cannot_be_renamed_grows_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, failures = tmp_path / "audit.jsonl", Failures()
    audit = opened(path, failures, file_bytes_max=2_000, files_max=3)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    for n in range(20):
        audit.write("event", {"n": n})
    assert (failures.count, len(lines_of(path)), rotated(path)) == (0, 21, [])


def test_head_is_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = opened(path)
    audit.write("event", {})
    assert audit.head() == lines_of(path)[-1].link


def test_one_log_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = opened(path)
    with pytest.raises(ConfigInvalid, match="another process writes"):
        opened(path)
    first.close()
    opened(path).close()


def test_text_breaks_no_line_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    opened(path).write("event", {"text": 'a\n{"event":"forged"}\u2028' + "x" * 10_000})
    assert len(lines_of(path)) == 2
    assert len(str(lines_of(path)[1].fields["text"])) == 500


@pytest.mark.parametrize("fields", [{"Bad Name": 1}, {f"f{n}": n for n in range(33)}])
def test_event_that_is_none_is_our_bug(tmp_path: Path, fields: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        opened(tmp_path / "audit.jsonl").write("event", fields)


def test_failure_to_write_is_counted_and_raises_nothing(tmp_path: Path) -> None:
    failures = Failures()
    audit = opened(tmp_path / "audit.jsonl", failures)
    audit.close()
    audit.write("event", {})
    audit.close()
    assert failures.count == 1


def test_file_that_cannot_be_opened_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nowhere"):
        opened(tmp_path / "nowhere" / "audit.jsonl")


def test_event_is_written_even_when_the_clock_went_back(tmp_path: Path) -> None:
    clock = SystemClock(START, wall=lambda: START - timedelta(days=1))
    path = tmp_path / "audit.jsonl"
    FileAudit(path, clock, failed=Failures()).write("stopped", {})
    assert lines_of(path)[1].time == "unknown"


def test_every_line_that_is_written_is_told_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Failures()
    audit = FileAudit(tmp_path / "audit.jsonl", ManualClock(), failed=Failures(), written=written)
    audit.write("first", {})

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "write", full)
        audit.write("lost", {})
    assert written.count == len(lines_of(tmp_path / "audit.jsonl")) == 2


def test_a_full_disk_at_the_start_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileAudit, "_open", full)
    with pytest.raises(UnavailableError, match=f"no room on the disk of {tmp_path}"):
        opened(tmp_path / "audit.jsonl")
