import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fabric.database import sqlite_quarantine as quarantine
from fabric.database import sqlite_state as states
from fabric.database.datum import decode_change
from fabric.database.sqlite_apply import Applier, why
from fabric.database.sqlite_state import Snapshot
from fabric.database.sqlite_tables import TargetTable, prepare
from fabric.model.change import Op, Row, Run
from fabric.model.errors import DeniedError, Malformed, Reason, UsageError
from tests.contract.sink_suite import stream, target
from tests.contract.worlds import NOTES, NOTES_SCHEMA, note
from tests.fakes.ordinals import counting_ordinals

TARGET = target(NOTES, NOTES_SCHEMA)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    states.create(connection)
    yield connection
    connection.close()


def applier(database: sqlite3.Connection, table: TargetTable, *, stops: bool = False) -> Applier:
    return Applier(database, table, stream=stream(NOTES), offset=1, stops=stops)


def run(op: Op, *rows: Row) -> Run:
    return Run(op=op, position=1, ordinal=1, commit_us=0, rows=list(rows))


@pytest.mark.parametrize("bad", [[0], [99], [0, 99], [3, 4, 50], list(range(100))])
def test_bad_rows_are_found_wherever_they_stand(
    database: sqlite3.Connection, bad: list[int]
) -> None:
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT CHECK (body <> 'bad'),"
        " PRIMARY KEY (region, number))"
    )
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    rows = [note("a", n, "bad" if n in bad else "good") for n in range(100)]
    one.apply(run(Op.UPSERT, *rows), 1)
    assert (one.applied, one.quarantined) == (100 - len(bad), len(bad))
    assert database.execute("SELECT count(*) FROM notes").fetchone() == (100 - len(bad),)
    reasons = {row[0] for row in database.execute("SELECT reason FROM fabric_quarantine")}
    assert len(reasons) == 1
    assert "CHECK constraint failed" in reasons.pop()


def test_few_statements_find_one_bad_row_in_many(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT CHECK (body <> 'bad'),"
        " PRIMARY KEY (region, number))"
    )
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    seen: list[str] = []
    database.set_trace_callback(seen.append)
    rows = [note("a", n, "bad" if n == 700 else "good") for n in range(1000)]
    one.apply(run(Op.UPSERT, *rows), 1)
    savepoints = [sql for sql in seen if sql.startswith("SAVEPOINT")]
    assert len(savepoints) < 25


def test_parked_rows_of_a_run_do_not_count_its_ordinals_each_anew(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT CHECK (body <> 'bad'),"
        " PRIMARY KEY (region, number))"
    )
    counted = counting_ordinals(monkeypatch)
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    rows = [note("a", n, "bad") for n in (1, 2, 1, 3)]
    one.apply(replace(run(Op.UPSERT, *rows), steps=(2, 2, 2)), 1)
    parked = [
        decode_change(data, NOTES_SCHEMA, NOTES).sequence.ordinal
        for (data,) in database.execute("SELECT change FROM fabric_quarantine ORDER BY id")
    ]
    assert sorted(parked) == [1, 3, 5, 7]
    assert len(counted) == 1


def test_a_constraint_that_rolls_everything_back_is_unfit(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER,"
        " body TEXT UNIQUE ON CONFLICT ROLLBACK, PRIMARY KEY (region, number))"
    )
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    with pytest.raises(UsageError, match="whole transactions") as caught:
        applier(database, table).apply(run(Op.UPSERT, note("a", 1), note("a", 2)), 1)
    assert caught.value.reason is Reason.TARGET_UNFIT


def test_rows_that_may_not_be_removed_stop_the_stream(database: sqlite3.Connection) -> None:
    table = prepare(database, TARGET)
    database.execute("INSERT INTO notes VALUES ('a', 1, 'x')")
    database.execute(
        "CREATE TRIGGER keep BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT, 'kept'); END"
    )
    database.execute("BEGIN")
    one = applier(database, table)
    with pytest.raises(DeniedError, match="cannot be removed"):
        one.apply(run(Op.TRUNCATE), 1)
    one.apply(run(Op.DELETE, {"region": "a", "number": 1}), 1)
    assert (one.applied, one.quarantined) == (0, 1)


def test_seen_keys_are_written_only_when_rows_were_there(database: sqlite3.Connection) -> None:
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    one.apply(run(Op.SNAPSHOT_BEGIN), 1)
    one.apply(run(Op.UPSERT, note("a", 1)), 1)
    count = f"SELECT count(*) FROM {table.seen}"
    assert one.snapshot is Snapshot.UNTRACKED
    assert database.execute(count).fetchone() == (0,)
    one.apply(run(Op.SNAPSHOT_BEGIN), 1)
    one.apply(run(Op.UPSERT, note("a", 1)), 1)
    assert one.snapshot is Snapshot.TRACKED
    assert database.execute(count).fetchone() == (1,)
    one.apply(run(Op.SNAPSHOT_END), 1)
    assert one.snapshot is Snapshot.NONE
    assert database.execute(count).fetchone() == (0,)


def test_the_parked_row_of_a_snapshot_outlives_its_end(database: sqlite3.Connection) -> None:
    table = prepare(database, TARGET)
    database.execute("INSERT INTO notes VALUES ('a', 1, 'kept'), ('a', 2, 'stale')")
    database.execute(
        "CREATE TRIGGER no BEFORE INSERT ON notes WHEN NEW.body = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    database.execute("BEGIN")
    one = applier(database, table)
    one.apply(run(Op.SNAPSHOT_BEGIN), 1)
    one.apply(run(Op.UPSERT, note("a", 1, "bad")), 1)
    one.apply(run(Op.SNAPSHOT_END), 1)
    assert database.execute("SELECT body FROM notes").fetchall() == [("kept",)]


def test_a_truncate_makes_parked_changes_void(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT CHECK (body <> 'bad'),"
        " PRIMARY KEY (region, number))"
    )
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    one.apply(run(Op.UPSERT, note("a", 1, "bad")), 1)
    one.apply(run(Op.TRUNCATE), 1)
    one.apply(run(Op.UPSERT, note("a", 1, "good")), 1)
    assert database.execute("SELECT body FROM notes").fetchall() == [("good",)]
    assert database.execute("SELECT count(*) FROM fabric_quarantine").fetchone() == (0,)


def test_a_row_that_cannot_be_bound_is_poison_too(database: sqlite3.Connection) -> None:
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table, stops=True)
    with pytest.raises(DeniedError, match="cannot be applied"):
        one.apply(run(Op.UPSERT, note("\ud800", 1)), 1)


def test_a_full_quarantine_stops_the_stream(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PARKED_KEYS_MAX", 1)
    database.execute(
        "CREATE TABLE notes (region TEXT, number INTEGER, body TEXT CHECK (body <> 'bad'),"
        " PRIMARY KEY (region, number))"
    )
    table = prepare(database, TARGET)
    database.execute("BEGIN")
    one = applier(database, table)
    with pytest.raises(DeniedError, match="full") as caught:
        one.apply(run(Op.UPSERT, note("a", 1, "bad"), note("a", 2, "bad")), 1)
    assert caught.value.reason is Reason.APPLY_FAILED


def test_why_holds_no_value() -> None:
    assert why(ValueError("secret value")) == "a value does not fit its column"
    assert why(Malformed("key does not fit")) == "malformed: key does not fit"
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a)")
    connection.execute(
        "CREATE TRIGGER no BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'secret value'); END"
    )
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    assert why(caught.value) == "SQLITE_CONSTRAINT_TRIGGER"
    assert why(sqlite3.ProgrammingError("secret value")) == "ProgrammingError"
    foreign = sqlite3.IntegrityError("secret value")
    foreign.sqlite_errorname = "SQLITE_CONSTRAINT_VTAB"
    assert why(foreign) == "SQLITE_CONSTRAINT_VTAB"


def test_why_names_the_constraint_that_a_row_breaks() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a NOT NULL)")
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute("INSERT INTO t VALUES (NULL)")
    connection.close()
    assert why(caught.value) == "SQLITE_CONSTRAINT_NOTNULL: NOT NULL constraint failed: t.a"


def test_a_schema_mark_counts_and_changes_nothing(database: sqlite3.Connection) -> None:
    one = applier(database, prepare(database, TARGET))
    one.apply(run(Op.SCHEMA), 1)
    assert one.applied == 1
