"""Rows of the ledger: its tables, and how statements are written to and read from them."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fabric.attest.appraise import Counters, Enrolment
from fabric.attest.fields import HASH_BYTES
from fabric.attest.members import HostState, MemberState, Notice, NoticeKind
from fabric.model.errors import Reason
from fabric.model.label import Label
from fabric.model.limits import NOTICES_ANSWER_BYTES_MAX, NOTICES_PER_ANSWER_MAX
from fabric.model.names import HostId
from fabric.policy.decide import Standing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TABLES = """
CREATE TABLE IF NOT EXISTS enrolments (host TEXT PRIMARY KEY, ek_sha256 BLOB NOT NULL,
  ek_name BLOB NOT NULL, ak_public BLOB NOT NULL, ak_name BLOB NOT NULL, at INTEGER NOT NULL,
  ek_certificate BLOB) STRICT;
CREATE TABLE IF NOT EXISTS counters (ak_name BLOB PRIMARY KEY, clock INTEGER NOT NULL,
  resets INTEGER NOT NULL, restarts INTEGER NOT NULL, safe INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tallies (ak_name BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS hosts (host TEXT PRIMARY KEY, state TEXT NOT NULL,
  result_id BLOB NOT NULL, approval INTEGER NOT NULL, number INTEGER NOT NULL,
  since INTEGER NOT NULL, expires INTEGER NOT NULL, level INTEGER NOT NULL,
  clearance TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS notices (number INTEGER PRIMARY KEY, host TEXT NOT NULL,
  kind TEXT NOT NULL, approval INTEGER NOT NULL, why TEXT NOT NULL, at INTEGER NOT NULL,
  is_published INTEGER NOT NULL, heads BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS published (host TEXT PRIMARY KEY, state TEXT NOT NULL,
  result_id BLOB NOT NULL, approval INTEGER NOT NULL, number INTEGER NOT NULL,
  since INTEGER NOT NULL, expires INTEGER NOT NULL, level INTEGER NOT NULL,
  clearance TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS heads (host TEXT PRIMARY KEY, heads BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS signed (number INTEGER PRIMARY KEY, keys BLOB NOT NULL,
  key BLOB NOT NULL, value BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS notices_host ON notices (host);
"""
KeyValue = tuple[bytes, bytes]
"""Key and value of a record of the members topic."""
STEPS = {2: "ALTER TABLE enrolments ADD COLUMN ek_certificate BLOB;"}
"""What brings the tables of an older version to the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """A host's newest state, and what its last result said of it (None: it had none)."""

    state: HostState
    standing: Standing | None

    def shown(self, now: datetime, published: "HostEntry | None") -> "tuple[str, HostEntry]":
        """The state in a word and the entry that it is of.

        Nobody trusts a host for a result that is not in the log: until it is, gateways and
        readers go by the one before it, and the word is `unpublished` once that has ended.
        A suspension or revocation is shown as soon as it is kept, whoever has heard of it.

        Args:
            published: the newest attested entry of this host that is in the log, and that
                no notice stands against; later than this one where this file was restored.
        """
        if published is None and self.state.state is not MemberState.ATTESTED:
            return self.state.state.value, self
        if published is not None and published.state.expires > now:
            return "attested", published
        return ("expired" if self.state.expires <= now else "unpublished"), self


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentEntry:
    """One enrolment and when it was made."""

    enrolment: Enrolment
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Records of notices by number, and which keys have signed them."""

    keys: bytes
    records: Mapping[int, KeyValue]


def put_enrolment(db: sqlite3.Connection, enrolment: Enrolment, now: datetime) -> None:
    """Insert an enrolment."""
    db.execute(
        "INSERT INTO enrolments VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            str(enrolment.host),
            enrolment.ek_sha256,
            enrolment.ek_name,
            enrolment.ak_public,
            enrolment.ak_name,
            milliseconds(now),
            enrolment.ek_certificate or None,
        ),
    )


def put_certificate(db: sqlite3.Connection, enrolment: Enrolment) -> None:
    """Add the certificate to an enrolment that was made before it was kept."""
    db.execute(
        "UPDATE enrolments SET ek_certificate = ? WHERE host = ? AND ek_certificate IS NULL",
        (enrolment.ek_certificate or None, str(enrolment.host)),
    )


def put_counters(db: sqlite3.Connection, ak_name: bytes, new: Counters) -> None:
    """Set the high-water mark of an attestation key."""
    db.execute(
        "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)",
        (ak_name, new.clock, new.resets, new.restarts, int(new.safe)),
    )


def put_tally(db: sqlite3.Connection, ak_name: bytes, value: bytes) -> None:
    """Set the tally that the next renewal of an attestation key continues."""
    db.execute("INSERT OR REPLACE INTO tallies VALUES (?, ?)", (ak_name, value))


def find_tally(db: sqlite3.Connection, ak_name: bytes) -> bytes | None:
    """The tally of an attestation key; None before its first renewal."""
    row = db.execute("SELECT value FROM tallies WHERE ak_name = ?", (ak_name,)).fetchone()
    return None if row is None else bytes(row[0])


def drop_tally(db: sqlite3.Connection, host: HostId) -> None:
    """Forget the tally of a host's enrolled key: its next enrolment begins another."""
    db.execute(
        "DELETE FROM tallies WHERE ak_name IN (SELECT ak_name FROM enrolments WHERE host = ?)",
        (str(host),),
    )


def put_host(db: sqlite3.Connection, state: HostState, standing: Standing | None) -> None:
    """Insert or replace a host's newest state."""
    db.execute(
        "INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _host_row(state, standing),
    )


def _host_row(state: HostState, standing: Standing | None) -> tuple[str | int | bytes, ...]:
    return (
        str(state.host),
        state.state.value,
        state.result_id,
        state.approval,
        state.number,
        milliseconds(state.since),
        milliseconds(state.expires),
        standing.level if standing else 0,
        str(standing.clearance) if standing else "",
        standing.evidence if standing else "",
    )


def put_published(db: sqlite3.Connection, state: HostState) -> None:
    """This attested state of a host is in the log, whether it is the newest here or not.

    The log of states does not say what a result gives: where this file, restored perhaps,
    lacks that result, its standing is the newest one kept.
    """
    marked = "SELECT 1 FROM published WHERE host = ? AND result_id = ?"
    if db.execute(marked, (str(state.host), state.result_id)).fetchone() is not None:
        return
    entry = find_host(db, state.host)
    db.execute(
        "INSERT OR REPLACE INTO published VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _host_row(state, entry.standing if entry else None),
    )


def find_published(db: sqlite3.Connection) -> Sequence[HostEntry]:
    """Of each host the newest attested entry that is in the log, and no notice stands against."""
    return [read_host(row) for row in db.execute("SELECT * FROM published")]


def drop_published(db: sqlite3.Connection, host: HostId, approval: int) -> None:
    """Nothing that was published of a host counts any more, up to this approval."""
    db.execute("DELETE FROM published WHERE host = ? AND approval <= ?", (str(host), approval))


def put_notice(db: sqlite3.Connection, notice: Notice, *, is_published: bool) -> None:
    """Insert a notice; its number must be free."""
    db.execute(
        "INSERT INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            notice.number,
            str(notice.host),
            str(notice.kind),
            notice.approval,
            notice.why.value,
            milliseconds(notice.at),
            int(is_published),
            b"".join(notice.heads),
        ),
    )


def put_signed(db: sqlite3.Connection, signed: Signed) -> None:
    """Keep records of notices, in the place of those that other keys have signed."""
    db.executemany(
        "INSERT OR REPLACE INTO signed VALUES (?, ?, ?, ?)",
        [(number, signed.keys, *record) for number, record in signed.records.items()],
    )


def find_signed(db: sqlite3.Connection, after: int, keys: bytes) -> Sequence[KeyValue | Notice]:
    """As many records above number `after` as one answer holds, in the order of the notices.

    Where these keys have signed none, the notice itself stands.
    """
    query = (
        "SELECT notices.*, signed.key, signed.value FROM notices LEFT JOIN signed"
        " ON signed.number = notices.number AND signed.keys = ?"
        " WHERE notices.number > ? ORDER BY notices.number LIMIT ?"
    )
    found: list[KeyValue | Notice] = []
    size = 0
    for row in db.execute(query, (keys, after, NOTICES_PER_ANSWER_MAX)):
        record: KeyValue | None = row[8:] if row[9] is not None else None
        size += sum(map(len, record or row[7:8]))
        if found and size > NOTICES_ANSWER_BYTES_MAX:
            break
        found.append(record or read_notice(row))
    return found


def last_number(db: sqlite3.Connection) -> int:
    """Number of the last notice, 0 for none."""
    return int(db.execute("SELECT coalesce(max(number), 0) FROM notices").fetchone()[0])


def find_enrolment(db: sqlite3.Connection, host: HostId) -> Enrolment | None:
    """A host's enrolment."""
    entry = find_enrolment_entry(db, host)
    return entry.enrolment if entry else None


def find_enrolment_entry(db: sqlite3.Connection, host: HostId) -> EnrolmentEntry | None:
    """A host's enrolment with its time."""
    row = db.execute("SELECT * FROM enrolments WHERE host = ?", (str(host),)).fetchone()
    return read_enrolment_entry(row) if row else None


def read_enrolment(row: tuple[Any, ...]) -> Enrolment:
    """An enrolment from its row."""
    return Enrolment(
        host=HostId.parse(row[0]),
        ek_sha256=row[1],
        ek_name=row[2],
        ak_public=row[3],
        ak_name=row[4],
        ek_certificate=row[6] or b"",
    )


def read_enrolment_entry(row: tuple[Any, ...]) -> EnrolmentEntry:
    """An enrolment with its time."""
    return EnrolmentEntry(enrolment=read_enrolment(row), at=instant(row[5]))


def find_counters(db: sqlite3.Connection, ak_name: bytes) -> Counters | None:
    """The high-water mark of an attestation key."""
    row = db.execute("SELECT * FROM counters WHERE ak_name = ?", (ak_name,)).fetchone()
    if row is None:
        return None
    return Counters(clock=row[1], resets=row[2], restarts=row[3], safe=bool(row[4]))


def put_heads(db: sqlite3.Connection, host: HostId, heads: Sequence[bytes]) -> None:
    """Keep what a host said of its last envelopes with its last good quote."""
    db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?)", (str(host), b"".join(heads)))


def find_heads(db: sqlite3.Connection, host: HostId) -> tuple[bytes, ...]:
    """What it said last; none for a host that was never attested."""
    row = db.execute("SELECT heads FROM heads WHERE host = ?", (str(host),)).fetchone()
    return _split_heads(row[0]) if row else ()


def _split_heads(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def find_host(db: sqlite3.Connection, host: HostId) -> HostEntry | None:
    """A host's entry."""
    row = db.execute("SELECT * FROM hosts WHERE host = ?", (str(host),)).fetchone()
    return read_host(row) if row else None


def read_host(row: tuple[Any, ...]) -> HostEntry:
    """A host's entry from its row."""
    host = HostId.parse(row[0])
    state = HostState(
        host=host,
        state=MemberState(row[1]),
        result_id=row[2],
        approval=row[3],
        number=row[4],
        since=instant(row[5]),
        expires=instant(row[6]),
    )
    if not row[7]:
        return HostEntry(state=state, standing=None)
    standing = Standing(host=host, level=row[7], clearance=Label.parse(row[8]), evidence=row[9])
    return HostEntry(state=state, standing=standing)


def read_notice(row: tuple[Any, ...]) -> Notice:
    """A notice from its row."""
    return Notice(
        number=row[0],
        host=HostId.parse(row[1]),
        kind=NoticeKind(row[2]),
        approval=row[3],
        why=Reason(row[4]),
        at=instant(row[5]),
        heads=_split_heads(row[7]),
    )


def instant(milliseconds_since: int) -> datetime:
    """Undo `milliseconds`."""
    return _EPOCH + timedelta(milliseconds=milliseconds_since)


def milliseconds(when: datetime) -> int:
    """Milliseconds since 1970; parts of one are cut off."""
    return (when - _EPOCH) // timedelta(milliseconds=1)
