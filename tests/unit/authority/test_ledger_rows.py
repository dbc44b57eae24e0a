"""Rows are what was written, and a state is shown in a word."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.attest.appraise import Counters, Enrolment
from fabric.attest.members import MemberState
from fabric.authority import ledger_rows as rows
from fabric.model.label import Label
from fabric.policy.decide import Standing
from tests.fakes.verifier import HOST, NOW, OTHER, a_notice, a_result, a_state

ENROLMENT = Enrolment(host=HOST, ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a")
STANDING = Standing(
    host=HOST, level=4, clearance=Label.parse("secret+personal-data"), evidence="tpm2"
)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(rows.TABLES)
    yield connection
    connection.close()


def test_an_enrolment_comes_back(db: sqlite3.Connection) -> None:
    rows.put_enrolment(db, ENROLMENT, NOW)
    assert rows.find_enrolment(db, HOST) == ENROLMENT
    assert rows.find_enrolment(db, OTHER) is None
    (row,) = db.execute("SELECT * FROM enrolments")
    assert rows.read_enrolment_entry(row).at == NOW


def test_counters_come_back_and_are_replaced(db: sqlite3.Connection) -> None:
    assert rows.find_counters(db, b"a") is None
    for clock in (1, 2):
        counters = Counters(clock=clock, resets=2**32 - 1, restarts=3, safe=False)
        rows.put_counters(db, b"a", counters)
        assert rows.find_counters(db, b"a") == counters


@pytest.mark.parametrize("standing", [STANDING, None])
def test_a_host_comes_back(db: sqlite3.Connection, standing: Standing | None) -> None:
    state = a_state(a_result())
    rows.put_host(db, state, standing)
    assert rows.find_host(db, HOST) == rows.HostEntry(state=state, standing=standing)
    assert rows.find_host(db, OTHER) is None


def test_a_notice_comes_back(db: sqlite3.Connection) -> None:
    notice = a_notice(3)
    rows.put_notice(db, notice, is_published=False)
    (row,) = db.execute("SELECT * FROM notices")
    assert rows.read_notice(row) == notice
    assert rows.last_number(db) == 3


def test_a_number_is_given_once(db: sqlite3.Connection) -> None:
    rows.put_notice(db, a_notice(1), is_published=False)
    with pytest.raises(sqlite3.IntegrityError):
        rows.put_notice(db, a_notice(1), is_published=False)


def test_signed_records_stand_for_their_notices_where_these_keys_have_signed(
    db: sqlite3.Connection,
) -> None:
    notices = [a_notice(number) for number in (1, 2, 3)]
    for notice in notices:
        rows.put_notice(db, notice, is_published=True)
    first, second = (b"k1", b"v1"), (b"k2", b"v2")
    rows.put_signed(db, rows.Signed(keys=b"old", records={1: first, 2: second}))
    assert rows.find_signed(db, 0, b"old") == [first, second, notices[2]]
    assert rows.find_signed(db, 1, b"old") == [second, notices[2]]
    rows.put_signed(db, rows.Signed(keys=b"new", records={2: second}))
    assert rows.find_signed(db, 0, b"new") == [notices[0], second, notices[2]]
    assert rows.find_signed(db, 0, b"old") == [first, *notices[1:]]
    assert rows.find_signed(db, 3, b"old") == []


def test_times_are_whole_milliseconds() -> None:
    when = NOW + timedelta(microseconds=1999)
    assert rows.instant(rows.milliseconds(when)) == NOW + timedelta(milliseconds=1)


def test_a_state_is_shown_in_a_word() -> None:
    state = a_state(a_result())
    entry = rows.HostEntry(state=state, standing=STANDING)
    assert entry.shown(NOW, entry) == ("attested", entry)
    assert entry.shown(state.expires, entry) == ("expired", entry)
    revoked = rows.HostEntry(state=replace(state, state=MemberState.REVOKED), standing=None)
    assert revoked.shown(state.expires, None) == ("revoked", revoked)


def test_a_result_that_is_not_in_the_log_is_not_shown_as_attested() -> None:
    state = a_state(a_result())
    newest = rows.HostEntry(state=state, standing=STANDING)
    assert newest.shown(NOW, None) == ("unpublished", newest)
    assert newest.shown(state.expires, None) == ("expired", newest)
    older_state = replace(state, result_id=b"o" * 16, expires=NOW + timedelta(seconds=1))
    older = rows.HostEntry(state=older_state, standing=STANDING)
    assert newest.shown(NOW, older) == ("attested", older)
    assert newest.shown(older_state.expires, older) == ("unpublished", newest)


def test_a_state_of_the_log_is_marked_with_the_standing_of_the_newest(
    db: sqlite3.Connection,
) -> None:
    state = a_state(a_result())
    rows.put_host(db, state, STANDING)
    logged = replace(state, result_id=b"l" * 16)
    rows.put_published(db, logged)
    assert rows.find_published(db) == [rows.HostEntry(state=logged, standing=STANDING)]


def test_a_mark_keeps_its_own_standing(db: sqlite3.Connection) -> None:
    state = a_state(a_result())
    rows.put_host(db, state, STANDING)
    rows.put_published(db, state)
    rows.put_host(db, replace(state, result_id=b"n" * 16), replace(STANDING, level=1))
    rows.put_published(db, state)
    assert rows.find_published(db) == [rows.HostEntry(state=state, standing=STANDING)]


def test_a_mark_is_dropped_up_to_an_approval(db: sqlite3.Connection) -> None:
    state = a_state(a_result(approval=2))
    rows.put_published(db, state)
    rows.drop_published(db, HOST, approval=1)
    assert [entry.state for entry in rows.find_published(db)] == [state]
    rows.drop_published(db, HOST, approval=2)
    assert rows.find_published(db) == []
