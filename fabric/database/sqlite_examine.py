"""Look at a SQLite source or target as its capture or sink will need it, and leave it as it is.

The file is opened read-only. Functions block: call them in a thread.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

from fabric.database import sqlite_state as states
from fabric.database import sqlite_token as tokens
from fabric.database.finding import MADE, Capture, Finding, failed, ill, parked, well, whole
from fabric.database.sqlite_capture import check, is_intact, is_watermark
from fabric.database.sqlite_outbox import ROWS_MAX as OUTBOX_ROWS_MAX
from fabric.database.sqlite_outbox_rows import Room, change_of, large
from fabric.database.sqlite_tables import check_table
from fabric.database.sqlite_thread import unavailable
from fabric.locks import holder
from fabric.model.errors import ConfigInvalid, FabricError, Reason
from fabric.model.names import Topic
from fabric.ports import SourceTable, Target

_BUSY_S_MAX = 5.0
_GUESS = "perhaps ", "see what that process is before you stop it"
"""Where a lock is seen by the file's number alone, which files of other disks may have, too."""
_WHY_FULL = "start the agent; if it runs, see with fabric status why the platform takes nothing"


def examine_source(path: str, capture: Capture) -> list[Finding]:
    """Everything that the capture needs of its database."""
    tables = [replace(t, table=t.table.removeprefix("main.")) for t in capture.tables]
    try:
        with _opened(Path(path)) as connection:
            return [
                _file(Path(path), Reason.SOURCE_UNFIT),
                *[
                    _examined(f"table {table.table}", partial(_table, connection, table))
                    for table in tables
                ],
                _examined("change table", lambda: _changes(connection, tables, capture)),
                _reader(path, capture),
            ]
    except FabricError as exc:
        return [failed("file", exc)]


def examine_target(path: str, targets: Sequence[Target]) -> list[Finding]:
    """Everything that the datasets need of their database, what may lack, and what is parked."""
    if not Path(path).exists():
        return [_absent(Path(path))]
    plain = [replace(t, table=t.table.removeprefix("main.")) for t in targets]
    try:
        with _opened(Path(path)) as connection:
            return [
                _file(Path(path), Reason.TARGET_UNFIT),
                *[
                    _examined(f"table {target.table}", partial(_target, connection, target))
                    for target in plain
                ],
                *[
                    _examined(f"dataset {t.topic}", partial(_dataset, connection, t.topic))
                    for t in plain
                ],
                _examined("quarantine", lambda: _quarantine(connection)),
            ]
    except FabricError as exc:
        return [failed("file", exc)]


def examine_outbox(
    path: Path,
    topics: Collection[str],
    *,
    tables: Sequence[SourceTable] = (),
    room: Room = lambda _: None,
) -> Finding:
    """The outbox of the Python API: that it may be written, and what waits in it.

    Args:
        topics: those that the settings publish.
        tables: those of them that the policy knows.
        room: whether a change can be sent at all.
    """
    folder = path.absolute().parent
    if not path.exists():  # the folder, too, is made at the first start
        return _absent(path) if folder.exists() else well("file", MADE)
    try:
        with _opened(path) as connection, unavailable():
            waiting = dict(_waiting(connection))
            stuck = _stuck(connection, tables, room) if waiting else None
    except FabricError as exc:
        return failed("file", exc)
    lost = sorted(waiting.keys() - set(topics))
    if lost:
        return ill(
            "file",
            Reason.TOPIC_UNKNOWN,
            f"{waiting[lost[0]]} changes for {lost[0]} wait, and [outbox] topics lacks it",
            "put the topic back until they are sent, then take it out",
        )
    if stuck is not None:
        ident, seen = stuck
        statement = f"DELETE FROM fabric_outbox WHERE id = {ident}"  # noqa: S608  # for people
        return ill(
            "file",
            Reason.TOO_LARGE,
            f"{seen}: it is never sent, and what waits behind it neither",
            f"take it out with sqlite3 {quote(str(path))} '{statement}', and have the application"
            " publish it smaller",
        )
    if sum(waiting.values()) >= OUTBOX_ROWS_MAX:
        return ill("file", Reason.OVERLOADED, "it is full: no more is taken", _WHY_FULL)
    found = _file(path, Reason.SOURCE_UNFIT)
    return found if found.reason else well("file", f"{sum(waiting.values())} changes wait")


def _waiting(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    if not connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name = 'fabric_outbox'"
    ).fetchone():
        return []
    return connection.execute("SELECT topic, count(*) FROM fabric_outbox GROUP BY topic").fetchall()


def _stuck(
    connection: sqlite3.Connection, tables: Sequence[SourceTable], room: Room
) -> tuple[int, str] | None:
    """The first change that nothing holds, and which it is in words."""
    life = connection.execute("SELECT generation FROM fabric_outbox_life").fetchone()
    for row, table in large(connection, {str(table.topic): table for table in tables}):
        try:
            room(change_of(row, table, life[0]))
        except FabricError as exc:
            if exc.reason is Reason.TOO_LARGE:
                return row.id, f"change {row.id} for {row.topic} {exc.args[0]}"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ConfigInvalid(f"{path}: no such database file; create it or correct the url")
    with unavailable():
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S_MAX
        )
    try:
        with unavailable():
            _demand_database(connection, path)
        yield connection
    finally:
        connection.close()


def _demand_database(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise ConfigInvalid(f"{path}: not a SQLite database; correct the url") from exc


def _examined(part: str, look: Callable[[], Finding]) -> Finding:
    try:
        with unavailable():
            return look()
    except FabricError as exc:
        return failed(part, exc)


def _file(path: Path, reason: Reason) -> Finding:
    for place in (path, path.absolute().parent):
        if not os.access(place, os.W_OK):
            return ill(
                "file",
                reason,
                f"this user may not write {place}",
                "give the agent's user the right to write the file and its folder",
            )
    return well("file", f"SQLite {sqlite3.sqlite_version}, may be written")


def _absent(path: Path) -> Finding:
    folder = path.absolute().parent
    if folder.is_dir() and os.access(folder, os.W_OK):
        return well("file", MADE)
    return ill(
        "file",
        Reason.TARGET_UNFIT,
        f"there is none and this user may not make it in {folder}",
        "make the folder and let the agent's user write it, or correct the url",
    )


def _table(connection: sqlite3.Connection, table: SourceTable) -> Finding:
    check(connection, table)
    fields, key = len(table.schema.fields), ", ".join(table.schema.key)
    return well(f"table {table.table}", f"{fields} columns, identified by ({key})")


def _changes(
    connection: sqlite3.Connection, tables: Sequence[SourceTable], capture: Capture
) -> Finding:
    """The change table with its triggers, and whether it still is the one that we left."""
    part, token = "change table", tokens.decode(capture.resume or "")
    if token is None:
        return well(part, "in place" if _has_triggers(connection, tables) else MADE)
    if not _has_triggers(connection, tables):
        return ill(
            part,
            Reason.SOURCE_UNFIT,
            "it or a trigger of a captured table is not as it was made: changes may be lost",
            "start the agent again: it makes them anew and reads the tables again",
        )
    if capture.agent is None and not is_watermark(connection, token.position, token.mark):
        return ill(
            part,
            Reason.SOURCE_UNFIT,
            "the file is not the one that was read last: an older copy was put back",
            "find out who did it, then start the agent: it reads everything anew",
        )
    return well(part, "in place")


def _has_triggers(connection: sqlite3.Connection, tables: Sequence[SourceTable]) -> bool:
    try:
        numbers = dict(connection.execute("SELECT name, id FROM fabric_sources").fetchall())
    except sqlite3.OperationalError:
        return False  # there is no such table
    return all(table.table in numbers for table in tables) and is_intact(
        connection, tables, numbers
    )


def _reader(path: str, capture: Capture) -> Finding:
    held = holder(Path(f"{path}-fabric"))
    if held is None or held.pid == capture.agent:
        return well("reader", "nobody" if held is None else "the running agent")
    perhaps, stop = ("", "stop it") if held.is_sure else _GUESS
    return ill(
        "reader",
        Reason.SOURCE_UNFIT,
        f"{perhaps}process {held.pid} captures this database",
        f"{stop}, or put all tables into one capture of one agent",
    )


def _target(connection: sqlite3.Connection, target: Target) -> Finding:
    shape, table = check_table(connection, target)
    if shape is None:
        return well(f"table {target.table}", MADE)
    return well(f"table {target.table}", f"holds the dataset's {len(table.columns)} columns")


def _dataset(connection: sqlite3.Connection, topic: Topic) -> Finding:
    is_filled = states.is_filled(connection, topic)
    return whole(topic, states.load_all(connection, topic).values() if is_filled else ())


def _quarantine(connection: sqlite3.Connection) -> Finding:
    there = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'fabric_quarantine'"
    ).fetchone()
    if there is None:
        return parked(0)
    return parked(connection.execute("SELECT count(*) FROM fabric_quarantine").fetchone()[0])
