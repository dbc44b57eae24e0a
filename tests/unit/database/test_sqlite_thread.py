import asyncio
import sqlite3
from pathlib import Path
from threading import Event

import pytest

from fabric.database import sqlite_thread
from fabric.database.sqlite_thread import UNREADABLE, SqliteThread, quote, read_text
from fabric.model.errors import Reason, UnavailableError, UsageError
from tests.fakes.running import until


async def opened(path: Path) -> SqliteThread:
    thread = SqliteThread(path, create=True, synchronous="NORMAL")
    await thread.open()
    return thread


async def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    thread = await opened(tmp_path / "a.db")
    await thread.call(lambda c: c.execute("CREATE TABLE t (a)") and None)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise ValueError

    with pytest.raises((ValueError, TypeError)):
        await thread.write(work)
    assert await thread.call(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    await thread.close()


async def test_a_locked_database_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_thread, "_BUSY_S_MAX", 0.05)
    thread = await opened(tmp_path / "a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as caught:
        await thread.write(lambda c: None)
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    other.execute("ROLLBACK")
    other.close()
    await thread.write(lambda c: None)
    await thread.close()


async def test_a_missing_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    thread = SqliteThread(tmp_path / "none.db", create=False, synchronous="NORMAL")
    with pytest.raises(UsageError, match="no such database file"):
        await thread.open()
    assert not (tmp_path / "none.db").exists()


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such.db"
    with pytest.raises(UnavailableError, match="folder") as caught:
        await opened(path)
    assert str(path) in str(caught.value)
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE


async def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(UsageError, match="not a SQLite database"):
        await opened(tmp_path / "a.db")


async def test_a_closed_thread_is_unavailable_and_closes_twice(tmp_path: Path) -> None:
    thread = await opened(tmp_path / "a.db")
    await thread.close()
    await thread.close()
    with pytest.raises(UnavailableError):
        await thread.call(lambda c: None)


def test_names_are_quoted() -> None:
    assert quote('a"b') == '"a""b"'


async def test_what_is_to_follow_a_close_follows_also_when_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    thread, began, goes_on = await opened(tmp_path / "a.db"), Event(), Event()
    done = list[bool]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(thread.call(lambda _: began.set() or goes_on.wait(20)))
        await asyncio.to_thread(began.wait, 20)
        closing = tasks.create_task(thread.close(lambda: done.append(thread._connection is None)))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert not done  # not while the thread is at work on the file
        goes_on.set()
    await until(lambda: done == [True])


async def test_an_error_of_the_library_says_its_name_and_no_value(tmp_path: Path) -> None:
    thread = await opened(tmp_path / "a.db")
    with pytest.raises(UnavailableError) as caught:
        await thread.call(lambda c: c.execute("SELECT CAST(x'736563726574ff' AS TEXT)").fetchone())
    assert "secret" not in str(caught.value)
    assert "OperationalError" in str(caught.value)
    with pytest.raises(UnavailableError) as caught:
        await thread.call(lambda c: c.execute("SELECT secret FROM none").fetchone())
    assert str(caught.value) == "database_unavailable: sqlite: SQLITE_ERROR"
    await thread.close()


def test_text_that_is_no_utf_8_is_unreadable_and_the_rest_is_read() -> None:
    connection = sqlite3.connect(":memory:")
    query = "SELECT 'chữ', CAST(x'736563726574ff' AS TEXT), CAST(x'eda080' AS TEXT), x'ff'"
    found = read_text(connection, lambda: connection.execute(query).fetchone())
    assert found == ("chữ", UNREADABLE, UNREADABLE, b"\xff")
    assert connection.text_factory is str
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        read_text(connection, lambda: connection.execute("SELECT 1 FROM none").fetchone())
    connection.close()
