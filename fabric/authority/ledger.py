"""The authority's memory: one SQLite file with enrolments, counters, host states, notices.

What it holds is on disk before anyone else hears of it. Every method is one
transaction; calls block for milliseconds, so `LedgerThread` runs them in a thread of
their own, one after the other. Raises UnavailableError when the file cannot be read or
written: OVERLOADED for a full or failing disk, else DATABASE_UNAVAILABLE.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from fabric.attest.appraise import Enrolment
from fabric.attest.members import HostState, MemberState, Notice, NoticeKind
from fabric.authority import ledger_rows as rows
from fabric.authority.attest_machine import Known, Verdict, attested_state, noticed_state
from fabric.authority.ledger_file import check_file, mapped
from fabric.authority.machine import check_same, forbid, needs_notice, stands
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.names import HostId
from fabric.policy.decide import Standing
from fabric.store.room import why_no_room

_T = TypeVar("_T")
_VERSION = 3
_BUSY_S_MAX = 5.0


class Ledger:
    """The open file. Not for two processes at once: the second one is refused.

    Args:
        path: made with mode 0600 when missing; see check_file for one that was there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.why_not_ready: str | None = None
        """What the file's last failure was, until a write succeeds: it gives nobody a result."""
        with mapped(path):
            check_file(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S_MAX, isolation_level=None, check_same_thread=False
            )
            # The exclusive lock keeps a second authority from giving out the same numbers.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            before = _check_version(self._db, path)
            steps = "".join(rows.STEPS[number] for number in range(before, _VERSION) if before)
            self._db.executescript(
                f"BEGIN IMMEDIATE; {rows.TABLES} {steps} PRAGMA user_version = {_VERSION};"
            )
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def try_again(self) -> None:
        """After a failure try a write that changes nothing, so that it clears by itself.

        It takes one page, which a disk may have that has no room for a host's result.
        """
        if self.why_not_ready is None:
            return
        with mapped(self._path, self._failed):
            if why_no_room(self._path.parent) is not None:
                return
        with self._transaction() as db:
            db.execute(f"PRAGMA user_version = {_VERSION}")
        self.why_not_ready = None

    def known(self, host: HostId) -> Known:
        """Everything that an attestation of `host` is judged by."""
        with self._transaction() as db:
            return self._known(db, host)

    def enrol(self, enrolment: Enrolment, now: datetime) -> None:
        """Keep an activated enrolment; the same again adds a certificate that was not kept.

        Raises:
            DeniedError: ENROLMENT_CONFLICT; the old record stands.
        """
        with self._transaction() as db:
            known = rows.find_enrolment(db, enrolment.host)
            check_same(known, enrolment)
            if known is None:
                rows.put_enrolment(db, enrolment, now)
            else:
                rows.put_certificate(db, enrolment)

    def forget(self, host: HostId) -> bool:
        """Delete a host's enrolment, so that another TPM may enrol; whether there was one.

        Its tally goes too; its counters stay, so that an old state never comes back.
        """
        with self._transaction() as db:
            rows.drop_tally(db, host)
            return db.execute("DELETE FROM enrolments WHERE host = ?", (str(host),)).rowcount > 0

    def attest(self, verdict: Verdict, now: datetime) -> HostState:
        """Keep what good evidence changes: counters, tally and the host's state.

        Raises:
            DeniedError: a notice came in between; nothing is kept.
            UnavailableError: NOT_READY, the enrolment that was judged by is gone, also where
                another has come in its place.
        """
        result = verdict.result
        with self._transaction() as db:
            known = self._known(db, result.host)
            # Of two states readers take the later: a renewal never shares a millisecond.
            entry = rows.find_host(db, result.host)
            since = max(now, entry.state.since + timedelta(milliseconds=1)) if entry else now
            state = attested_state(result, since)
            forbid(stands(known.notices, result.approval), result.host)
            if known.enrolment is None:
                raise UnavailableError(Reason.NOT_READY, "enrolment was forgotten in between")
            if known.enrolment != verdict.enrolment:
                raise UnavailableError(Reason.NOT_READY, "another enrolment came in between")
            rows.put_counters(db, verdict.enrolment.ak_name, verdict.counters)
            rows.put_tally(db, verdict.enrolment.ak_name, verdict.tally)
            standing = Standing(
                host=result.host,
                level=result.level,
                clearance=result.clearance,
                evidence=result.evidence,
            )
            rows.put_host(db, state, standing)
            rows.put_heads(db, result.host, result.heads)
        return state

    def notice(
        self,
        host: HostId,
        kind: NoticeKind,
        *,
        approval: int,
        why: Reason,
        now: datetime,
        heads: Sequence[bytes] | None = None,
    ) -> Notice | None:
        """Give out the next number and change the host's state; None when it stands already.

        Args:
            heads: what the host said of its last envelopes; None takes what it said last.
        """
        with self._transaction() as db:
            known = self._known(db, host)
            if not needs_notice(known.notices, kind, approval):
                return None
            notice = Notice(
                number=known.last_number + 1,
                host=host,
                kind=kind,
                approval=approval,
                why=why,
                at=now.replace(microsecond=now.microsecond // 1000 * 1000),
                heads=rows.find_heads(db, host) if heads is None else tuple(heads),
            )
            rows.put_notice(db, notice, is_published=False)
            _against(db, notice)
            return notice

    def adopt(self, notice: Notice) -> None:
        """Take in a notice of ours that the log has and this file, restored perhaps, lacks.

        Raises:
            UsageError: the file holds another notice of that number.
        """
        with self._transaction() as db:
            row = db.execute("SELECT * FROM notices WHERE number = ?", (notice.number,)).fetchone()
            if row is None:
                rows.put_notice(db, notice, is_published=True)
                _against(db, notice)
                return
            if rows.read_notice(row) != notice:
                raise UsageError(
                    Reason.FORK,
                    f"notice {notice.number} of the ledger is not the published one; restore the"
                    " authority's folder from before it was copied",
                )
            db.execute("UPDATE notices SET is_published = 1 WHERE number = ?", (notice.number,))

    def is_behind(self, state: HostState) -> bool:
        """Whether the log has a later result of ours than this file, restored perhaps.

        Then the host's tally here is one that it has left: it is dropped, so that the next
        renewal begins another instead of looking like a fork.
        """
        with self._transaction() as db:
            entry = rows.find_host(db, state.host)
            if state.state is not MemberState.ATTESTED:
                return False
            if entry is not None and entry.state.since >= state.since:
                return False
            rows.drop_tally(db, state.host)
            return True

    def in_log(self, state: HostState) -> None:
        """This state of a host, and the result that it names, are in the log."""
        with self._transaction() as db:
            self._put_published(db, state)

    def all_in_log(self, states: Sequence[HostState]) -> None:
        """These are the host states of the log; what else is marked as published is lost."""
        there = {(state.host, state.result_id) for state in states}
        with self._transaction() as db:
            for entry in rows.find_published(db):
                if (entry.state.host, entry.state.result_id) not in there:
                    rows.drop_published(db, entry.state.host, entry.state.approval)
            for state in states:
                self._put_published(db, state)

    def unpublish(self, but: Sequence[int]) -> None:
        """Mark every notice that is not among these numbers for publication again."""
        with self._transaction() as db:
            db.execute("UPDATE notices SET is_published = 0")
            self._mark(db, but)

    def published(self, numbers: Sequence[int], signed: rows.Signed | None = None) -> None:
        """These notices are in the log; what has been `signed` is kept, also of no number."""
        with self._transaction() as db:
            self._mark(db, numbers)
            if signed is not None:
                rows.put_signed(db, signed)

    def signed_after(self, number: int, keys: bytes) -> Sequence[rows.KeyValue | Notice]:
        """The next records, as many as one answer holds; a notice where `keys` signed none."""
        with self._transaction() as db:
            return rows.find_signed(db, number, keys)

    def unpublished_and_last(self) -> tuple[Sequence[Notice], int]:
        """Notices that are not known to be in the log, by number; number of the last of all."""
        with self._transaction() as db:
            found = db.execute("SELECT * FROM notices WHERE is_published = 0 ORDER BY number")
            return [rows.read_notice(row) for row in found], rows.last_number(db)

    def notices_after(self, number: int, count: int) -> Sequence[Notice]:
        """At most `count` notices above `number`, in their order."""
        with self._transaction() as db:
            query = "SELECT * FROM notices WHERE number > ? ORDER BY number LIMIT ?"
            return [rows.read_notice(row) for row in db.execute(query, (number, count))]

    def last_number(self) -> int:
        """Number of the last notice, 0 for none."""
        with self._transaction() as db:
            return rows.last_number(db)

    def newest(self) -> datetime | None:
        """The newest time that was ever written here, which no clock may fall below."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT max(at) FROM (SELECT max(since) AS at FROM hosts"
                " UNION ALL SELECT max(at) FROM notices UNION ALL SELECT max(at) FROM enrolments)"
            ).fetchone()[0]
            return None if found is None else rows.instant(found)

    def enrolments(self) -> Sequence[rows.EnrolmentEntry]:
        """Every enrolment, by host."""
        with self._transaction() as db:
            found = db.execute("SELECT * FROM enrolments ORDER BY host").fetchall()
        return [rows.read_enrolment_entry(row) for row in found]

    def hosts(self) -> Sequence[rows.HostEntry]:
        """Every host that was ever attested or noticed, by name."""
        with self._transaction() as db:
            found = db.execute("SELECT * FROM hosts ORDER BY host").fetchall()
        return [rows.read_host(row) for row in found]

    def shown(self, now: datetime) -> Sequence[tuple[str, rows.HostEntry]]:
        """Of every host, by name, the state in a word and its entry, as HostEntry.shown says."""
        with self._transaction() as db:
            newest = [
                rows.read_host(row) for row in db.execute("SELECT * FROM hosts ORDER BY host")
            ]
            published = {entry.state.host: entry for entry in rows.find_published(db)}
        known = published | {entry.state.host: entry for entry in newest}
        return [known[host].shown(now, published.get(host)) for host in sorted(known)]

    def host(self, host: HostId) -> rows.HostEntry | None:
        """One host's entry."""
        with self._transaction() as db:
            return rows.find_host(db, host)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        before = self._db.total_changes
        with mapped(self._path, self._failed):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have taken it back by itself
                    self._db.execute("ROLLBACK")
                raise
        if self._db.total_changes > before:
            self.why_not_ready = None

    def _failed(self, error: UnavailableError) -> None:
        self.why_not_ready = str(error)

    def _known(self, db: sqlite3.Connection, host: HostId) -> Known:
        enrolled, entry = rows.find_enrolment_entry(db, host), rows.find_host(db, host)
        enrolment = enrolled.enrolment if enrolled else None
        found = db.execute("SELECT * FROM notices WHERE host = ? ORDER BY number", (str(host),))
        notices = [rows.read_notice(row) for row in found]
        seen = [notice.approval for notice in notices] + ([entry.state.approval] if entry else [])
        return Known(
            enrolment=enrolment,
            enrolled=enrolled.at if enrolled else None,
            counters=rows.find_counters(db, enrolment.ak_name) if enrolment else None,
            tally=rows.find_tally(db, enrolment.ak_name) if enrolment else None,
            approval_seen=max(seen, default=0),
            notices=notices,
            last_number=rows.last_number(db),
        )

    def _put_published(self, db: sqlite3.Connection, state: HostState) -> None:
        """Mark a state of the log, unless it is no good quote or a notice stands against it."""
        if state.state is not MemberState.ATTESTED:
            return
        if stands(self._known(db, state.host).notices, state.approval) is None:
            rows.put_published(db, state)

    def _mark(self, db: sqlite3.Connection, numbers: Sequence[int]) -> None:
        db.executemany(
            "UPDATE notices SET is_published = 1 WHERE number = ?", [(n,) for n in numbers]
        )


def look(path: Path) -> tuple[int, int]:
    """Hosts and last notice's number of a ledger that no process has open; changes nothing.

    Raises:
        UsageError: CONFIG_INVALID, written by another version.
        UnavailableError: DATABASE_UNAVAILABLE.
    """
    with (
        mapped(path),
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S_MAX)
        ) as db,
    ):
        _check_version(db, path)
        (hosts,) = db.execute("SELECT count(*) FROM hosts").fetchone()
        return int(hosts), rows.last_number(db)


def _check_version(db: sqlite3.Connection, path: Path) -> int:
    """The file's version, 0 for a new one; raises UsageError for one that cannot be used."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _VERSION, *rows.STEPS):
        raise UsageError(
            Reason.CONFIG_INVALID, f"{path}: written by another version of the authority"
        )
    return version


class LedgerThread:
    """Runs calls on a ledger in order, in one thread, for asyncio."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._executor = ThreadPoolExecutor(1, "ledger")

    async def do(self, call: Callable[[Ledger], _T]) -> _T:
        """The call's result; a call that was begun is finished even if the caller is gone."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, call, self._ledger)

    @property
    def why_not_ready(self) -> str | None:
        """As Ledger.why_not_ready."""
        return self._ledger.why_not_ready

    def close(self) -> None:
        """Wait for what was begun, then close the file."""
        self._executor.shutdown(wait=True)
        self._ledger.close()


def _against(db: sqlite3.Connection, notice: Notice) -> None:
    """Change the host's state as a notice says, unless a later approval stands above it."""
    entry = rows.find_host(db, notice.host)
    if entry is None or entry.state.approval <= notice.approval:
        rows.put_host(db, noticed_state(notice), entry.standing if entry else None)
    rows.drop_published(db, notice.host, notice.approval)
