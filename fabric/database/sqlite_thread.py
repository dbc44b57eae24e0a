"""One SQLite connection on one thread of its own, so that the event loop never waits for a disk.

A driver that hops threads for every statement is 40 times slower at small batches,
so callers hand over whole functions.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from fabric.model.errors import Reason, UnavailableError, UsageError, sqlite_name

T = TypeVar("T")
_BUSY_S_MAX = 5.0
"""How long a statement waits for another process's write lock."""
_WORDS = {
    "BUSY": "the file is locked by another process",
    "CORRUPT": "the file is damaged",
    "FULL": "the disk is full",
    "IOERR": "the disk fails",
    "READONLY": "the file may not be written",
}
"""What an operator meets, by a part of SQLite's name for it."""
UNREADABLE = object()
"""Stands for a text that is no UTF-8, and holds nothing of it; no column's type fits it."""


class SqliteThread:
    """Runs functions on a connection, one at a time, in the order they were handed over.

    Args:
        path: the database file.
        create: make the file when it is absent.
        synchronous: FULL survives a power cut commit by commit; NORMAL may lose the last
            commits but never breaks their order.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, create: bool, synchronous: Literal["FULL", "NORMAL"]
    ) -> None:
        self._path = Path(path)
        self._create = create
        self._synchronous = synchronous
        self._pool: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Connect and switch the file to WAL.

        Raises:
            UsageError: CONFIG_INVALID, the file is absent or is not a database.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        await self.close()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fabric-sqlite")
        try:
            await self._run(self._connect)
        except BaseException:
            await self.close()
            raise

    def _connect(self) -> None:
        if not self._create and not self._path.is_file():
            raise UsageError(
                Reason.CONFIG_INVALID,
                f"{self._path}: no such database file; create it or correct the url",
            )
        connection = self._opened()
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
        except sqlite3.DatabaseError as exc:
            connection.close()
            if exc.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            raise UsageError(
                Reason.CONFIG_INVALID, f"{self._path}: not a SQLite database; correct the url"
            ) from exc
        self._connection = connection

    def _opened(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(self._path, timeout=_BUSY_S_MAX, isolation_level=None)
        except sqlite3.OperationalError as exc:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"{self._path} cannot be opened: is its folder there, and may this process's user"
                " write in it?",
            ) from exc

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the thread; errors of the database become UnavailableError."""
        return await self._run(lambda: work(self._live()))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one write transaction; any exception rolls it back."""
        return await self._run(lambda: _transact(self._live(), work))

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "database is closed")
        return self._connection

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pool is None:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "database is not open")
        with unavailable():
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self, then: Callable[[], None] = lambda: None) -> None:
        """Close the connection after what was handed over before; may be called twice.

        Args:
            then: runs right after that on the thread, also when nobody waits for it any more.
        """
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        closed = asyncio.get_running_loop().run_in_executor(pool, self._disconnect, then)
        pool.shutdown(wait=False)
        await asyncio.shield(closed)

    def _disconnect(self, then: Callable[[], None]) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            self._connection = None
            then()


def _transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back by itself; asking again would hide the cause.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


@contextmanager
def unavailable() -> Iterator[None]:
    """Map the library's errors by their names: their texts may quote a row's value."""
    try:
        yield
    except sqlite3.Error as exc:
        name = sqlite_name(exc)
        words = next((f", {_WORDS[part]}" for part in name.split("_") if part in _WORDS), "")
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, f"sqlite: {name}{words}") from None


def read_text(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Run `work`, which only reads, with UNREADABLE where a text is no UTF-8.

    The first run has the library's own strict decoder, which is far quicker than one of ours.
    Only text that it cannot decode makes the second.
    """
    try:
        return work()
    except sqlite3.OperationalError as exc:
        if hasattr(exc, "sqlite_errorcode"):  # all that is SQLite's own has one
            raise
    connection.text_factory = _text
    try:
        return work()
    finally:
        connection.text_factory = str


def _text(raw: bytes) -> object:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return UNREADABLE


def quote(name: str) -> str:
    """An identifier as SQL text."""
    return '"' + name.replace('"', '""') + '"'
