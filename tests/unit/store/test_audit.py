"""The audit log: whole lines, one chain, and a failure that is counted."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.model.errors import ConfigInvalid, Malformed, UsageError
from fabric.ports import AuditLog
from fabric.store.audit import FileAudit, check_chain
from fabric.store.clock import SystemClock
from tests.fakes.clock import START, ManualClock


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


class Failures:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def test_event_is_one_line_with_time_number_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit: AuditLog = FileAudit(path, ManualClock(), failed=Failures())
    audit.write("refused", {"reason": "replayed", "partition": 3})
    record = json.loads(path.read_text())
    assert record == {
        "at": "2026-09-01T08:00:00.000+00:00",
        "event": "refused",
        "number": 1,
        "previous": "0" * 64,
        "reason": "replayed",
        "partition": 3,
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_chain_goes_on_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for start in range(3):
        audit = FileAudit(path, ManualClock(), failed=Failures())
        for n in range(3):
            audit.write("event", {"n": n, "start": start})
        audit.close()
    assert check_chain(iter(lines_of(path))) == 9
    assert [json.loads(line)["number"] for line in lines_of(path)] == list(range(1, 10))


@pytest.mark.parametrize("at", [0, 3, 8])
def test_line_that_is_changed_shows(tmp_path: Path, at: int) -> None:
    path = tmp_path / "audit.jsonl"
    audit = FileAudit(path, ManualClock(), failed=Failures())
    for n in range(10):
        audit.write("event", {"n": n})
    lines = lines_of(path)
    lines[at] = lines[at].replace(b'"event"', b'"evenT"')
    with pytest.raises(Malformed, match=f"line {at + 2} does not follow"):
        check_chain(iter(lines))


def test_line_that_is_taken_out_shows(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = FileAudit(path, ManualClock(), failed=Failures())
    for n in range(4):
        audit.write("event", {"n": n})
    lines = lines_of(path)
    with pytest.raises(Malformed):
        check_chain(iter([lines[0], lines[2], lines[3]]))


def test_torn_last_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = FileAudit(path, ManualClock(), failed=Failures())
    audit.write("event", {"n": 1})
    audit.close()
    with path.open("ab") as file:
        file.write(b'{"at":"2026')
    FileAudit(path, ManualClock(), failed=Failures()).write("event", {"n": 2})
    assert json.loads(lines_of(path)[-1])["n"] == 2
    with pytest.raises(Malformed, match="line 2 does not parse"):
        check_chain(iter(lines_of(path)))


def test_text_breaks_no_line_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = FileAudit(path, ManualClock(), failed=Failures())
    audit.write("event", {"text": 'a\n{"event":"forged"}\u2028' + "x" * 10_000})
    assert len(lines_of(path)) == 1
    assert len(json.loads(lines_of(path)[0])["text"]) == 500


@pytest.mark.parametrize("fields", [{"at": 1}, {"previous": "x"}, {str(n): n for n in range(33)}])
def test_reserved_and_too_many_fields_are_our_bug(tmp_path: Path, fields: dict[str, int]) -> None:
    audit = FileAudit(tmp_path / "audit.jsonl", ManualClock(), failed=Failures())
    with pytest.raises(UsageError):
        audit.write("event", fields)


def test_failure_to_write_is_counted_and_raises_nothing(tmp_path: Path) -> None:
    failures = Failures()
    audit = FileAudit(tmp_path / "audit.jsonl", ManualClock(), failed=failures)
    audit.close()
    audit.write("event", {})
    audit.close()
    assert failures.count == 1


def test_file_that_cannot_be_opened_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nowhere"):
        FileAudit(tmp_path / "nowhere" / "audit.jsonl", ManualClock(), failed=Failures())


def test_event_is_written_even_when_the_clock_went_back(tmp_path: Path) -> None:
    clock = SystemClock(START, wall=lambda: START - timedelta(days=1))
    path = tmp_path / "audit.jsonl"
    FileAudit(path, clock, failed=Failures()).write("stopped", {})
    assert json.loads(path.read_text())["at"] == "unknown"
