"""The ledger: what is kept survives, numbers are contiguous, and races end right."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.attest.appraise import Counters, Enrolment
from fabric.attest.members import MemberState, NoticeKind
from fabric.authority.attest_machine import Verdict, noticed_state
from fabric.authority.ledger import Ledger, LedgerThread, look
from fabric.authority.ledger_rows import HostEntry
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from tests.fakes.verifier import HOST, NOW, OTHER, a_notice, a_result, a_state

ENROLMENT = Enrolment(host=HOST, ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a")
COUNTERS = Counters(clock=7, resets=2, restarts=1, safe=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close()


def suspend(ledger: Ledger, approval: int = 1, host: object = HOST) -> object:
    return ledger.notice(
        host, NoticeKind.SUSPENSION, approval=approval, why=Reason.STATE_REFUSED, now=NOW
    )


def a_verdict(**changes: object) -> Verdict:
    return Verdict(
        enrolment=ENROLMENT, result=a_result(**changes), counters=COUNTERS, tally=bytes(32)
    )


def attest(ledger: Ledger, **changes: object) -> object:
    ledger.enrol(ENROLMENT, NOW)
    return ledger.attest(a_verdict(**changes), NOW)


def test_nobody_but_the_owner_may_read_the_file(ledger: Ledger, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_everything_survives_a_restart(path: Path) -> None:
    first = Ledger(path)
    attest(first)
    suspend(first, approval=2)
    before = (first.known(HOST), first.hosts(), first.enrolments(), first.unpublished_and_last())
    first.close()
    second = Ledger(path)
    after = (second.known(HOST), second.hosts(), second.enrolments(), second.unpublished_and_last())
    assert after == before
    assert after[0].counters == COUNTERS
    second.close()


def test_a_second_process_is_refused(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.ledger._BUSY_S_MAX", 0.1)
    with pytest.raises(UnavailableError) as error:
        Ledger(path)
    assert error.value.reason is Reason.DATABASE_UNAVAILABLE


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UsageError, match="another version"):
        Ledger(path)


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        Ledger(tmp_path / "file" / "ledger.db")


def test_an_enrolment_never_changes(ledger: Ledger) -> None:
    ledger.enrol(ENROLMENT, NOW)
    ledger.enrol(ENROLMENT, NOW + timedelta(days=1))
    with pytest.raises(DeniedError) as error:
        ledger.enrol(replace(ENROLMENT, ak_name=b"other"), NOW)
    assert error.value.reason is Reason.ENROLMENT_CONFLICT
    (entry,) = ledger.enrolments()
    assert (entry.enrolment, entry.at) == (ENROLMENT, NOW)


def test_a_forgotten_enrolment_is_gone(ledger: Ledger) -> None:
    ledger.enrol(ENROLMENT, NOW)
    assert ledger.forget(HOST)
    assert not ledger.forget(HOST)
    assert ledger.known(HOST).enrolment is None


def test_numbers_are_contiguous_over_all_hosts(ledger: Ledger) -> None:
    given = [suspend(ledger), suspend(ledger, host=OTHER), suspend(ledger, approval=2)]
    assert [notice.number for notice in given] == [1, 2, 3]
    assert ledger.last_number() == 3


def test_a_notice_that_stands_is_not_given_again(ledger: Ledger) -> None:
    assert suspend(ledger) is not None
    assert suspend(ledger) is None
    assert ledger.last_number() == 1


def test_a_notice_that_came_in_between_stops_an_attestation(ledger: Ledger) -> None:
    suspend(ledger)
    with pytest.raises(DeniedError) as error:
        attest(ledger)
    assert error.value.reason is Reason.HOST_SUSPENDED
    assert ledger.known(HOST).counters is None


def test_an_enrolment_that_was_forgotten_in_between_stops_an_attestation(ledger: Ledger) -> None:
    with pytest.raises(UnavailableError):
        ledger.attest(a_verdict(), NOW)


def test_another_enrolment_that_came_in_between_stops_an_attestation(ledger: Ledger) -> None:
    ledger.enrol(replace(ENROLMENT, ak_public=b"other", ak_name=b"other"), NOW)
    with pytest.raises(UnavailableError, match="another enrolment"):
        ledger.attest(a_verdict(), NOW)
    assert ledger.host(HOST) is None
    assert ledger.known(HOST).counters is None


def test_a_later_state_never_shares_a_moment_with_the_earlier(ledger: Ledger) -> None:
    states = [attest(ledger), attest(ledger), attest(ledger)]
    assert len({state.since for state in states}) == 3
    assert states == sorted(states, key=lambda state: state.since)


def test_a_suspension_keeps_what_the_result_said(ledger: Ledger) -> None:
    attest(ledger)
    suspend(ledger)
    entry = ledger.host(HOST)
    assert entry.state.state is MemberState.SUSPENDED
    assert entry.standing.level == 4


def test_the_highest_approval_seen_counts_notices_too(ledger: Ledger) -> None:
    assert ledger.known(HOST).approval_seen == 0
    suspend(ledger, approval=5)
    assert ledger.known(HOST).approval_seen == 5


def test_published_notices_are_not_sent_again_until_the_log_lacks_them(ledger: Ledger) -> None:
    suspend(ledger)
    suspend(ledger, host=OTHER)
    ledger.published([1])
    waiting, last = ledger.unpublished_and_last()
    assert ([notice.number for notice in waiting], last) == ([2], 2)
    ledger.unpublish(but=[2])
    assert [notice.number for notice in ledger.unpublished_and_last()[0]] == [1]


def test_a_notice_that_only_the_log_has_is_taken_in(ledger: Ledger) -> None:
    attest(ledger)
    ledger.adopt(a_notice(1))
    assert ledger.last_number() == 1
    assert ledger.unpublished_and_last()[0] == []
    assert ledger.host(HOST).state.state is MemberState.SUSPENDED
    ledger.adopt(a_notice(1))
    assert suspend(ledger, approval=2).number == 2


def test_an_adopted_notice_leaves_a_later_approval_alone(ledger: Ledger) -> None:
    attest(ledger, approval=2)
    ledger.adopt(a_notice(1))
    assert ledger.host(HOST).state.state is MemberState.ATTESTED


def test_two_notices_of_one_number_stop_the_authority(ledger: Ledger) -> None:
    suspend(ledger)
    with pytest.raises(UsageError) as error:
        ledger.adopt(a_notice(1, host=OTHER))
    assert error.value.reason is Reason.FORK


def test_the_newest_time_is_known(ledger: Ledger) -> None:
    assert ledger.newest() is None
    ledger.enrol(ENROLMENT, NOW)
    assert ledger.newest() == NOW
    ledger.adopt(a_notice(3))
    assert ledger.newest() == NOW + timedelta(seconds=3)


async def test_calls_run_in_one_thread_in_order(ledger: Ledger) -> None:
    thread = LedgerThread(ledger)
    seen: list[int] = []

    def call(number: int) -> int:
        seen.append(number)
        return threading.get_ident()

    idents = await asyncio.gather(
        *(thread.do(lambda _ledger, number=number: call(number)) for number in range(20))
    )
    assert seen == list(range(20))
    assert len(set(idents)) == 1
    assert threading.get_ident() not in idents


async def test_a_call_that_was_begun_is_finished(path: Path) -> None:
    thread = LedgerThread(Ledger(path))
    began, is_gone = threading.Event(), threading.Event()

    def call(ledger: Ledger) -> None:
        began.set()
        assert is_gone.wait(60)
        ledger.enrol(ENROLMENT, NOW)

    task = asyncio.get_running_loop().create_task(thread.do(call))
    assert await asyncio.to_thread(began.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    is_gone.set()
    thread.close()
    again = Ledger(path)
    assert again.known(HOST).enrolment == ENROLMENT
    again.close()


def test_a_ledger_that_is_behind_the_log_begins_a_tally_anew(ledger: Ledger) -> None:
    ledger.enrol(ENROLMENT, NOW)
    state = attest(ledger)
    assert ledger.known(HOST).tally is not None
    earlier = replace(state, since=state.since - timedelta(seconds=1))
    later = replace(state, since=state.since + timedelta(milliseconds=1))
    for same in (state, earlier, replace(later, state=MemberState.SUSPENDED)):
        assert not ledger.is_behind(same)
    assert ledger.known(HOST).tally is not None
    assert ledger.is_behind(later)
    assert ledger.known(HOST).tally is None


def test_a_failure_of_the_file_is_named_and_quotes_nothing_of_it(ledger: Ledger) -> None:
    suspend(ledger)
    ledger._db.execute("UPDATE hosts SET host = CAST(x'736563726574ff' AS TEXT)")
    with pytest.raises(UnavailableError) as caught:
        ledger.hosts()
    assert str(caught.value) == (
        "database_unavailable: authority's ledger cannot be used (OperationalError)"
    )


def test_a_closed_ledger_is_looked_at_and_stays_as_it_was(path: Path) -> None:
    ledger = Ledger(path)
    suspend(ledger)
    ledger.close()
    before = path.read_bytes()
    assert look(path) == (1, 1)
    assert path.read_bytes() == before
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(UsageError, match="another version"):
        look(path)
    with pytest.raises(UnavailableError):
        look(path.with_name("none.db"))
    assert not path.with_name("none.db").exists()


def words(ledger: Ledger) -> list[str]:
    return [word for word, _ in ledger.shown(NOW)]


def test_a_host_is_attested_to_others_once_its_state_is_in_the_log(path: Path) -> None:
    first = Ledger(path)
    state = attest(first)
    assert words(first) == ["unpublished"]
    first.in_log(state)
    first.close()
    again = Ledger(path)
    assert words(again) == ["attested"]
    again.close()


def test_a_notice_ends_what_was_published_before_it(ledger: Ledger) -> None:
    ledger.in_log(attest(ledger))
    suspend(ledger)
    assert words(ledger) == ["suspended"]
    attest(ledger, approval=2)
    assert words(ledger) == ["unpublished"]


def test_what_the_log_has_lost_counts_as_published_no_more(ledger: Ledger) -> None:
    state = attest(ledger)
    ledger.all_in_log([state])
    assert words(ledger) == ["attested"]
    ledger.all_in_log([])
    assert words(ledger) == ["unpublished"]


def test_a_result_that_a_restored_ledger_lacks_is_shown_when_the_log_has_it(ledger: Ledger) -> None:
    """Everybody goes by the log: a ledger behind it is no reason for an alarm."""
    old = attest(ledger)
    ledger.in_log(old)
    new = replace(old, result_id=b"n" * 16, since=NOW + timedelta(seconds=1))
    ledger.all_in_log([new])
    [(word, entry)] = ledger.shown(NOW)
    assert (word, entry.state) == ("attested", new)
    assert entry.standing.level == 4


def test_a_late_state_of_the_log_is_shown_before_a_newer_that_it_lacks(ledger: Ledger) -> None:
    late, lost = attest(ledger), attest(ledger)
    ledger.all_in_log([late])
    [(word, entry)] = ledger.shown(NOW)
    assert (word, entry.state) == ("attested", late)
    assert late.result_id != lost.result_id


def test_a_host_that_only_the_log_knows_is_shown_without_a_level(ledger: Ledger) -> None:
    state = a_state(a_result())
    ledger.all_in_log([state])
    assert ledger.shown(NOW) == [("attested", HostEntry(state=state, standing=None))]


def test_a_later_approval_in_the_log_ends_a_suspension_of_a_restored_ledger(
    ledger: Ledger,
) -> None:
    suspend(ledger)
    state = a_state(a_result(approval=2))
    ledger.all_in_log([state])
    assert words(ledger) == ["attested"]
    assert [word for word, _ in ledger.shown(state.expires)] == ["expired"]


def test_what_the_log_says_counts_nothing_against_a_notice_that_is_kept(ledger: Ledger) -> None:
    old = attest(ledger)
    suspend(ledger)
    ledger.all_in_log([old])
    assert words(ledger) == ["suspended"]
    attest(ledger, approval=2)
    ledger.in_log(old)
    assert words(ledger) == ["unpublished"]


def test_an_adopted_notice_ends_an_older_result_beneath_a_later_approval(ledger: Ledger) -> None:
    ledger.in_log(attest(ledger))
    attest(ledger, approval=2)
    ledger.adopt(a_notice(1))
    assert words(ledger) == ["unpublished"]


def test_a_suspended_state_of_the_log_is_no_result(ledger: Ledger) -> None:
    ledger.all_in_log([noticed_state(a_notice(1, approval=0))])
    assert ledger.shown(NOW) == []


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger as version 2 wrote it, which kept no endorsement certificates."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((Path(__file__).parent / "ledger_version_2.sql").read_text())
    return path


def test_a_ledger_of_version_2_is_taken_over_with_every_host(old: Path) -> None:
    assert look(old) == (2, 1)
    for _ in range(2):
        ledger = Ledger(old)
        known = ledger.known(HOST)
        assert (known.enrolment, known.enrolled) == (ENROLMENT, NOW)
        assert (known.counters, known.tally) == (COUNTERS, bytes(32))
        states = {entry.state.host: entry.state.state for entry in ledger.hosts()}
        assert states == {HOST: MemberState.ATTESTED, OTHER: MemberState.SUSPENDED}
        assert ledger.unpublished_and_last()[1] == 1
        ledger.close()
    assert look(old) == (2, 1)


def test_an_enrolment_of_version_2_gets_its_certificate_when_the_same_tpm_enrols_again(
    old: Path,
) -> None:
    ledger = Ledger(old)
    before = ledger.known(HOST)
    assert before.enrolment is not None
    assert before.enrolment.ek_certificate == b""
    ledger.enrol(replace(ENROLMENT, ek_certificate=b"DER"), NOW + timedelta(days=1))
    after = ledger.known(HOST)
    assert after == before
    assert after.enrolment is not None
    assert after.enrolment.ek_certificate == b"DER"
    ledger.close()


def test_a_certificate_that_is_kept_is_never_replaced(ledger: Ledger) -> None:
    for der in (b"DER", b"another", b""):
        ledger.enrol(replace(ENROLMENT, ek_certificate=der), NOW)
    enrolment = ledger.known(HOST).enrolment
    assert enrolment is not None
    assert enrolment.ek_certificate == b"DER"


def enrol_much(ledger: Ledger) -> None:
    ledger.enrol(replace(ENROLMENT, ek_certificate=bytes(100_000)), NOW)


def fill(ledger: Ledger) -> None:
    """As on a full disk, from here on."""
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")


def make_room(ledger: Ledger) -> None:
    ledger._db.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_is_remembered_until_a_write_succeeds(ledger: Ledger, path: Path) -> None:
    assert ledger.why_not_ready is None
    fill(ledger)
    said = f"overloaded: no room on the disk of {path.parent}; make room"
    with pytest.raises(UnavailableError) as caught:
        enrol_much(ledger)
    assert str(caught.value) == said
    assert ledger.known(HOST).enrolment is None  # it can be read
    assert ledger.why_not_ready == said
    make_room(ledger)
    enrol_much(ledger)
    assert ledger.why_not_ready is None


def test_what_the_ledger_refuses_is_no_fault_of_its_file(ledger: Ledger) -> None:
    ledger.enrol(ENROLMENT, NOW)
    with pytest.raises(DeniedError):
        ledger.enrol(replace(ENROLMENT, ak_public=b"another"), NOW)
    with pytest.raises(UnavailableError):
        ledger.attest(replace(a_verdict(), enrolment=replace(ENROLMENT, ek_name=b"x")), NOW)
    assert ledger.why_not_ready is None


def test_a_ledger_that_could_not_be_written_tries_by_itself(ledger: Ledger) -> None:
    before = ledger.newest()
    ledger._db.execute("PRAGMA query_only = ON")
    ledger.try_again()
    assert ledger.why_not_ready is None  # nothing is tried while nothing was wrong
    with pytest.raises(UnavailableError):
        suspend(ledger)
    with pytest.raises(UnavailableError):
        ledger.try_again()
    assert "SQLITE_READONLY" in (ledger.why_not_ready or "")
    ledger._db.execute("PRAGMA query_only = OFF")
    ledger.try_again()
    assert ledger.why_not_ready is None
    assert ledger.newest() == before


def test_a_small_write_on_a_disk_that_is_nearly_full_clears_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page that it takes may be there where a host's result has no room."""
    fill(ledger)
    with pytest.raises(UnavailableError):
        enrol_much(ledger)
    monkeypatch.setattr("fabric.authority.ledger.why_no_room", lambda _folder: "3 MiB are free")
    ledger.try_again()
    assert "no room" in (ledger.why_not_ready or "")
    monkeypatch.undo()
    ledger.try_again()
    assert ledger.why_not_ready is None


async def test_the_thread_tells_what_the_ledger_remembers(path: Path) -> None:
    ledger = Ledger(path)
    thread = LedgerThread(ledger)
    assert thread.why_not_ready is None
    fill(ledger)
    with pytest.raises(UnavailableError):
        await thread.do(enrol_much)
    assert "no room" in (thread.why_not_ready or "")
    thread.close()


def test_an_emptied_ledger_is_refused_where_the_authority_has_run(path: Path) -> None:
    """Taken, it would give every host a clean record."""
    path.touch()
    Ledger(path).close()  # a first start that was cut short left it so
    path.write_bytes(b"")
    (path.parent / "audit.jsonl").touch()
    with pytest.raises(UnavailableError) as caught:
        Ledger(path)
    assert str(caught.value).startswith(
        "database_unavailable: authority's ledger is damaged (it is empty); stop the authority"
    )
    assert path.read_bytes() == b""


def test_a_ledger_that_is_gone_is_made_anew_and_that_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger(path).close()
    assert not caplog.records
    path.unlink()
    (path.parent / "audit.jsonl").touch()
    Ledger(path).close()
    assert "is gone" in caplog.text


def test_a_damaged_ledger_is_to_be_replaced_by_its_backup(path: Path) -> None:
    path.write_bytes(b"nothing of ours, and longer than a header" * 1000)
    for use in (Ledger, look):
        with pytest.raises(UnavailableError) as caught:
            use(path)
        assert str(caught.value) == (
            "database_unavailable: authority's ledger is damaged (SQLITE_NOTADB); stop the"
            " authority, put the newest backup in its place"
        )
