"""The audit log's chain: one line of JSON an event, each bound to the line before it. Pure.

    {"log":..,"number":..,"previous":..,"time":..,"event":..,"fields":{..},"hash":..}

`hash` covers the bytes of everything before it, `previous` among them, so a line that
is changed, taken out or put in shows where it happened. What a chain cannot show by
itself is its own end, or that all of it was written anew: signed heads show that.
A line has one encoding; another one of the same values is refused.
Spec: docs/format.md section 12.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fabric.model.errors import Malformed, PeerError, Reason, UsageError
from fabric.model.limits import AUDIT_FIELDS_MAX, AUDIT_LINE_BYTES_MAX, AUDIT_TEXT_CHARS_MAX

LOG_BYTES = 16
START = bytes(32)
BEGAN = "log_began"
"""Event of a log's first line."""
DROPPED = "file_dropped"
"""Event that says which lines, the oldest, were deleted to make room: field `last`."""

Fields = Mapping[str, str | int]

_DOMAIN = b"fabric-audit-line-v1"
_MEMBERS = ("log", "number", "previous", "time", "event", "fields", "hash")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LOG = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"unknown|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A place in a chain: the log's id, the line's number from 1, the line's hash."""

    log: bytes
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event of an audit log.

    Attributes:
        log: 16 bytes drawn when the log began; another log is another chain.
        previous: hash of the line before; 32 zero bytes in line 1.
        time: RFC 3339 in UTC with milliseconds, or `unknown` when the clock went back.
        fields: names, numbers and reasons, never row data.
    """

    log: bytes
    number: int
    previous: bytes
    time: str
    event: str
    fields: Fields
    hash: bytes

    @property
    def link(self) -> Link:
        """Its place in the chain."""
        return Link(log=self.log, number=self.number, hash=self.hash)


class ChainBroken(PeerError):
    """A line is not what the chain or a signed head says.

    Attributes:
        line: from 1, counted over all files that were read.
        why: what is wrong with it, for people.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(Reason.MALFORMED, f"line {line} {why}")
        self.line = line
        self.why = why


def write_line(
    before: Link | None, log: bytes, *, time: str, event: str, fields: Fields
) -> tuple[bytes, Link]:
    """The line after `before`, without its line feed, and its place.

    Text values are cut at limits.AUDIT_TEXT_CHARS_MAX.

    Raises:
        UsageError: INTERNAL, event or fields are not what a line may hold.
    """
    short = {
        name: value if isinstance(value, int) else str(value)[:AUDIT_TEXT_CHARS_MAX]
        for name, value in fields.items()
    }
    number = before.number + 1 if before else 1
    previous = before.hash if before else START
    body = _body(log, number, previous, time=time, event=event, fields=short)
    digest = _digest(body)
    line = body[:-1] + f',"hash":"{digest.hex()}"}}'.encode()
    try:
        found = read_line(line)
    except Malformed as exc:
        raise UsageError(Reason.INTERNAL, f"audit event {event[:64]!r}: {exc.args[0]}") from exc
    return line, found.link


def read_line(data: bytes) -> Line:
    """Read one line without its line feed; raises Malformed.

    Its own hash is checked, its place in the chain is not.
    """
    if len(data) > AUDIT_LINE_BYTES_MAX:
        raise Malformed("is too long")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Malformed("is not JSON") from exc
    if not isinstance(found, dict) or tuple(found) != _MEMBERS:
        raise Malformed("does not hold exactly the members of an audit line")
    line = _line(found)
    body = _body(
        line.log, line.number, line.previous, time=line.time, event=line.event, fields=line.fields
    )
    if _digest(body) != line.hash:
        raise Malformed("was changed: its hash does not fit")
    if data != body[:-1] + f',"hash":"{line.hash.hex()}"}}'.encode():
        raise Malformed("is not in the one encoding of an audit line")
    return line


def _line(found: Mapping[str, object]) -> Line:
    number, fields = found["number"], found["fields"]
    if type(number) is not int or not 1 <= number <= _NUMBER_MAX:
        raise Malformed("has no line number")
    if not isinstance(fields, dict) or len(fields) > AUDIT_FIELDS_MAX:
        raise Malformed("has no fields, or too many")
    for name, value in fields.items():
        _check_field(name, value)
    return Line(
        log=bytes.fromhex(_text(found, "log", _LOG)),
        number=number,
        previous=bytes.fromhex(_text(found, "previous", _HASH)),
        time=_text(found, "time", _TIME),
        event=_text(found, "event", _NAME),
        fields=fields,
        hash=bytes.fromhex(_text(found, "hash", _HASH)),
    )


def _text(found: Mapping[str, object], name: str, form: re.Pattern[str]) -> str:
    value = found[name]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise Malformed(f"member {name} is not of its form")
    return value


def _check_field(name: str, value: object) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed("field name is not of its form")
    if isinstance(value, str) and len(value) <= AUDIT_TEXT_CHARS_MAX:
        return
    if type(value) is int and abs(value) <= _NUMBER_MAX:
        return
    raise Malformed(f"field {name} is neither short text nor a number")


def _body(
    log: bytes, number: int, previous: bytes, *, time: str, event: str, fields: Fields
) -> bytes:
    content = {
        "log": log.hex(),
        "number": number,
        "previous": previous.hex(),
        "time": time,
        "event": event,
        "fields": dict(sorted(fields.items())),
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + body).digest()


class Walk:
    """Goes through a log line by line and names the first wrong one.

    Args:
        heads: hash by line number, from verified signed heads of this log.
        whole: the first line must be line 1, or a later `file_dropped` line must say
            that what came before was deleted. False takes the first line as it is.

    Attributes:
        lines: lines that were taken.
        first: number of the first one.
        last: the last one's place.
        anchored: number of the last line that a head vouches for.
    """

    def __init__(self, heads: Mapping[int, bytes] | None = None, *, whole: bool = True) -> None:
        self._heads = dict(heads or {})
        self._dropped = not whole
        self._before: Link | None = None
        self.lines = 0
        self.first = 0
        self.last: Link | None = None
        self.anchored = 0

    def take(self, data: bytes) -> Line:
        """Take the next line; raises ChainBroken."""
        here = self.lines + 1
        try:
            line = read_line(data)
        except Malformed as exc:
            raise ChainBroken(here, str(exc.args[0])) from exc
        if self.last is None:
            self._begin(line, here)
        else:
            self._follow(line, self.last, here)
        self._anchor(line, here)
        if line.event == DROPPED and line.fields.get("last") == self.first - 1:
            self._dropped = True
        self._before, self.last, self.lines = self.last, line.link, here
        return line

    def end(self) -> None:
        """The files end here; raises ChainBroken when lines are missing."""
        reached = self.last.number if self.last else 0
        missing = [number for number in self._heads if number > reached]
        if missing:
            raise ChainBroken(
                self.lines + 1,
                f"is missing: a signed head says that the log had {max(missing)} lines,"
                f" and it ends at number {reached}",
            )
        if self.first > 1 and not self._dropped:
            raise ChainBroken(1, f"has number {self.first}: the lines before it were taken out")

    def _begin(self, line: Line, here: int) -> None:
        if line.number == 1 and line.previous != START:
            raise ChainBroken(here, "has number 1 and names a line before it")
        self.first = line.number

    def _follow(self, line: Line, last: Link, here: int) -> None:
        if line.log != last.log:
            raise ChainBroken(here, "is of another log")
        if line.number == last.number + 1 and line.previous == last.hash:
            return
        if self._before is not None and line.previous == self._before.hash:
            raise ChainBroken(here - 1, f"was put in before number {line.number}")
        if line.number == last.number + 1:
            raise ChainBroken(here - 1, f"was changed: number {line.number} names another hash")
        if line.number > last.number:
            gone = f"{last.number + 1} to {line.number - 1}"
            raise ChainBroken(here, f"has number {line.number}: numbers {gone} were taken out")
        raise ChainBroken(here, f"was put in: number {line.number} after {last.number}")

    def _anchor(self, line: Line, here: int) -> None:
        wanted = self._heads.get(line.number)
        if wanted is None:
            return
        if wanted != line.hash:
            raise ChainBroken(
                here,
                f"is not what was signed: it, or a line after number {self.anchored},"
                " was changed and all later ones written anew",
            )
        self.anchored = line.number
