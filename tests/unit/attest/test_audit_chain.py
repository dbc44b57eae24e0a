"""A log that somebody edited: whatever they did, the right line is named."""

import json
from collections.abc import Callable

import pytest

from fabric.attest.audit_chain import (
    BEGAN,
    DROPPED,
    START,
    ChainBroken,
    Link,
    Walk,
    read_line,
    write_line,
)
from fabric.model.errors import Malformed, UsageError
from fabric.model.limits import AUDIT_FIELDS_MAX, AUDIT_TEXT_CHARS_MAX

LOG = bytes(range(16))
TIME = "2026-09-01T08:00:00.000+00:00"


def written(count: int, *, log: bytes = LOG, before: Link | None = None) -> list[bytes]:
    lines = []
    for n in range(count):
        event = BEGAN if before is None else "block_refused"
        line, before = write_line(before, log, time=TIME, event=event, fields={"n": n})
        lines.append(line)
    return lines


def walked(lines: list[bytes], heads: dict[int, bytes] | None = None, **how: bool) -> Walk:
    walk = Walk(heads, **how)
    for line in lines:
        walk.take(line)
    walk.end()
    return walk


def broken(lines: list[bytes], heads: dict[int, bytes] | None = None, **how: bool) -> ChainBroken:
    with pytest.raises(ChainBroken) as caught:
        walked(lines, heads, **how)
    return caught.value


def again(line: bytes, **changes: object) -> bytes:
    """The line with other values and the hash that fits them: a careful forger's work."""
    found = {**json.loads(line), **changes}
    before = None
    if found["number"] > 1:
        before = Link(log=LOG, number=found["number"] - 1, hash=bytes.fromhex(found["previous"]))
    made, _ = write_line(
        before,
        bytes.fromhex(found["log"]),
        time=found["time"],
        event=found["event"],
        fields=found["fields"],
    )
    return made


def anew(lines: list[bytes], first: int) -> list[bytes]:
    """Everything from index `first` on, chained again."""
    done = lines[:first]
    before = read_line(done[-1]).link if done else None
    for line in lines[first:]:
        found = json.loads(line)
        made, before = write_line(
            before, LOG, time=TIME, event=found["event"], fields=found["fields"]
        )
        done.append(made)
    return done


def test_an_honest_log_holds_to_its_end() -> None:
    """MUST-12.4."""
    lines = written(10)
    walk = walked(lines)
    assert (walk.first, walk.lines, walk.anchored) == (1, 10, 0)
    assert walk.last == read_line(lines[-1]).link
    assert read_line(lines[0]).previous == START


@pytest.mark.parametrize("at", [0, 4, 9])
def test_edited_line_is_named(at: int) -> None:
    """MUST-12.3."""
    lines = written(10)
    lines[at] = lines[at].replace(f'"n":{at}'.encode(), b'"n":77')
    assert (broken(lines).line, "was changed" in broken(lines).why) == (at + 1, True)


@pytest.mark.parametrize("at", [1, 4, 8])
def test_edited_line_with_a_fitting_hash_is_named(at: int) -> None:
    lines = written(10)
    lines[at] = again(lines[at], fields={"n": 77})
    assert broken(lines).line == at + 1
    assert "was changed" in broken(lines).why


@pytest.mark.parametrize("at", [1, 4, 8])
def test_line_that_was_taken_out_is_named_by_number(at: int) -> None:
    lines = written(10)
    del lines[at]
    assert broken(lines).line == at + 1
    assert f"numbers {at + 1} to {at + 1} were taken out" in broken(lines).why


def test_lines_that_were_taken_out_at_the_beginning_are_missed() -> None:
    """MUST-12.6."""
    lines = written(10)[3:]
    assert "has number 4" in broken(lines).why
    assert walked(lines, whole=False).first == 4


def test_a_line_that_says_the_oldest_were_deleted_explains_a_late_beginning() -> None:
    """MUST-12.6."""
    lines = written(5)
    line, _ = write_line(
        read_line(lines[-1]).link, LOG, time=TIME, event=DROPPED, fields={"last": 3}
    )
    assert walked([*lines[3:], line]).first == 4
    assert "has number 5" in broken([*lines[4:], line]).why


@pytest.mark.parametrize("at", [1, 5, 9])
def test_forged_line_that_was_put_in_is_named(at: int) -> None:
    """MUST-12.4."""
    lines = written(10)
    forged, _ = write_line(read_line(lines[at - 1]).link, LOG, time=TIME, event="forged", fields={})
    lines.insert(at, forged)
    assert broken(lines).line == at + 1
    assert "was put in" in broken(lines).why


@pytest.mark.parametrize("copy", [0, 3])
def test_old_line_that_was_put_in_again_is_named(copy: int) -> None:
    lines = written(10)
    lines.insert(7, lines[copy])
    assert (broken(lines).line, "was put in" in broken(lines).why) == (8, True)


def test_two_lines_that_changed_places_are_noticed() -> None:
    lines = written(10)
    lines[4], lines[5] = lines[5], lines[4]
    assert broken(lines).line == 5


def test_log_that_was_cut_short_is_seen_by_a_signed_head() -> None:
    """MUST-12.5."""
    lines = written(10)
    heads = {8: read_line(lines[7]).hash}
    assert walked(lines, heads).anchored == 8
    assert walked(lines[:8], heads).anchored == 8
    fault = broken(lines[:7], heads)
    assert fault.line == 8
    assert "is missing: a signed head says that the log had 8 lines" in fault.why


def test_log_that_was_written_anew_is_seen_at_the_next_signed_head() -> None:
    """MUST-12.5."""
    lines = written(10)
    heads = {n: read_line(lines[n - 1]).hash for n in (3, 8)}
    changed = anew([*lines[:5], lines[5].replace(b'"n":5', b'"n":99'), *lines[6:]], 5)
    assert walked(changed).lines == 10, "without heads nothing shows"
    fault = broken(changed, heads)
    assert fault.line == 8
    assert "a line after number 3, was changed" in fault.why


def test_line_of_another_log_does_not_go_on_here() -> None:
    """MUST-12.4."""
    lines = written(3)
    other, _ = write_line(
        read_line(lines[-1]).link, bytes(16), time=TIME, event="block_refused", fields={}
    )
    assert "another log" in broken([*lines, other]).why


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"n":1', b'"n": 1'),
        lambda line: line + b" ",
        lambda line: line[:-1],
        lambda line: b"[" * 50_000,
        lambda line: b"null",
        lambda line: line.replace(b'"number":2', b'"number":2.0'),
        lambda line: line.replace(b'"number":2', b'"number":true'),
        lambda line: line.replace(b'"fields":{"n":1}', b'"fields":{"n":1,"n":1}'),
        lambda line: line.replace(b'"fields":{"n":1}', b'"fields":{"n":[1]}'),
        lambda line: line.replace(b'"log"', b'"lag"'),
        lambda line: line.replace(b'"hash":"', b'"hash":"A'),
        lambda line: line.replace(b"2026-09", b"2026-9"),
        lambda line: b'{"number":2,' + line[1:],
    ],
)
def test_what_is_no_line_is_refused(change: Callable[[bytes], bytes]) -> None:
    """MUST-12.1, MUST-12.2."""
    line = written(2)[1]
    assert change(line) != line
    with pytest.raises(Malformed):
        read_line(change(line))


def test_another_spelling_of_the_same_values_is_refused() -> None:
    """MUST-12.2: one line has one encoding, so that a hash speaks of one sequence of bytes."""
    line, _ = write_line(None, LOG, time=TIME, event="x", fields={"text": "é\n\x7f"})
    assert rb"\u00e9\n\u007f" in line
    with pytest.raises(Malformed, match="one encoding"):
        read_line(line.replace(rb"\u00e9", "é".encode()))


@pytest.mark.parametrize(
    "fields",
    [{"Name": 1}, {"n": 2**63}, {str(n): n for n in range(9)}, {"a" * 64: 1}]
    + [{f"f{n}": n for n in range(AUDIT_FIELDS_MAX + 1)}],
)
def test_fields_that_no_line_may_hold_are_our_bug(fields: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        write_line(None, LOG, time=TIME, event="x", fields=fields)


def test_the_largest_line_is_written_and_read() -> None:
    text = "\U0001f600" * (AUDIT_TEXT_CHARS_MAX + 1)
    fields = {f"f{n}": text for n in range(AUDIT_FIELDS_MAX)}
    line, _ = write_line(None, LOG, time=TIME, event="x", fields=fields)
    assert read_line(line).fields["f0"] == text[:-1]
