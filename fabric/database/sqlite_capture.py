"""The change table of a captured SQLite database, and the triggers that feed it.

One table, `fabric_changes`, holds in one rising AUTOINCREMENT order which keys were
touched (key columns only, without a type, so values stay exact) and the watermarks
of the source. SQLite has one writer at a time, so ids rise in commit order and a
reader can never see an id whose predecessor is still uncommitted.

A trigger does nothing while `fabric_applying` holds a row: a sink puts one there
inside its own transaction, and so its writes are not captured (two-way tables).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fabric.database.sqlite_thread import quote
from fabric.model.errors import Reason, UsageError
from fabric.ports import SourceTable

KEY_FIELDS_MAX = 8
KEYS = tuple(f"k{number}" for number in range(1, KEY_FIELDS_MAX + 1))

_NOW_US = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"
_CHANGES = (
    "CREATE TABLE fabric_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER,"
    f" commit_us INTEGER NOT NULL, mark BLOB, {', '.join(KEYS)})"
)
_MARKS = "CREATE INDEX fabric_marks ON fabric_changes (id) WHERE source IS NULL"
_META = (
    "CREATE TABLE IF NOT EXISTS fabric_meta (name TEXT PRIMARY KEY, value)",
    "CREATE TABLE IF NOT EXISTS fabric_sources (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
)
APPLYING = "CREATE TABLE IF NOT EXISTS fabric_applying (marker INTEGER)"
"""The flag that switches capture off; sources and sinks both make it."""
COLLATION_REMEDY = "make its columns and their unique indexes COLLATE BINARY"


_Unique: TypeAlias = "tuple[tuple[str, str], ...]"
"""Columns that are unique together, each with its collation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """What the database says of one table.

    Attributes:
        columns: name to declared type.
        required: columns that are NOT NULL.
        defaulted: columns that an INSERT may leave out whatever `required` says.
        generated: columns that cannot be written.
        uniques: column sets, with their collations, by which REPLACE may delete a row.
        keys: those of them that hold for every row.
        opaque: unique indexes on expressions, whose victims no trigger can name.
    """

    columns: Mapping[str, str]
    required: frozenset[str]
    defaulted: frozenset[str]
    generated: frozenset[str]
    uniques: "tuple[_Unique, ...]"
    keys: frozenset[frozenset[str]]
    opaque: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A database ready for capture.

    Attributes:
        database: random id of the change table's life.
        numbers: table name to the number in `fabric_changes.source`.
        fresh: tables that had no triggers before.
    """

    database: bytes
    numbers: Mapping[str, int]
    fresh: frozenset[str]


def install(
    connection: sqlite3.Connection, tables: Sequence[SourceTable], known: frozenset[str]
) -> Installed:
    """Make or check the change table and the triggers, inside the caller's transaction.

    Args:
        known: tables that were captured before; if one of their triggers is not as we
            made it, changes may be lost, and the change table starts a new life.

    Raises:
        UsageError: SOURCE_UNFIT, a table cannot be captured.
    """
    for statement in (*_META, APPLYING):
        connection.execute(statement)
    wanted: dict[str, str] = {}
    numbers: dict[str, int] = {}
    fresh: set[str] = set()
    found = _triggers(connection)
    stale = _table_sql(connection) != _CHANGES
    for table in tables:
        shape = check(connection, table)
        number = _number(connection, table.table)
        numbers[table.table] = number
        own = triggers_of(table, number, shape)
        wanted.update(own)
        if not any(name in found for name in own):
            fresh.add(table.table)
        if any(found.get(name) != sql for name, sql in own.items()):
            stale = stale or table.table in known
    for name in found.keys() - {n for n, sql in wanted.items() if found.get(n) == sql}:
        connection.execute(f"DROP TRIGGER {quote(name)}")
    if stale:
        _recreate(connection)
    for name, sql in wanted.items():
        if found.get(name) != sql:
            connection.execute(sql)
    database = _database_id(connection, renew=stale)
    return Installed(database=database, numbers=numbers, fresh=frozenset(fresh))


def is_intact(
    connection: sqlite3.Connection, tables: Sequence[SourceTable], numbers: Mapping[str, int]
) -> bool:
    """Whether every trigger still is as `install` left it."""
    found = _triggers(connection)
    try:
        return _table_sql(connection) == _CHANGES and all(
            found.get(name) == sql
            for table in tables
            for name, sql in triggers_of(
                table, numbers[table.table], check(connection, table)
            ).items()
        )
    except UsageError:
        return False


def check(connection: sqlite3.Connection, table: SourceTable) -> TableShape:
    """Look at a table and refuse what cannot be captured without loss."""
    shape = shape_of(connection, table.table)
    if shape is None:
        raise _unfit(table, "no such table; create it or correct [capture.tables]")
    for name in table.schema.fields:
        if name not in shape.columns:
            raise _unfit(table, f"column {name} of the dataset is missing; add it to the table")
    if frozenset(table.schema.key) not in shape.keys:
        names = ", ".join(table.schema.key)
        raise _unfit(table, f"nothing makes the key unique; add a unique index on ({names})")
    if is_collated(connection, table.table, shape, table.schema.key):
        raise _unfit(table, f"its key compares with a collation; {COLLATION_REMEDY}")
    if shape.opaque:
        raise _unfit(
            table, f"the unique index {shape.opaque[0]} is on an expression; put it on columns"
        )
    if len(table.schema.key) > KEY_FIELDS_MAX:
        raise _unfit(table, f"the key has more than {KEY_FIELDS_MAX} columns; choose a shorter one")
    return shape


def is_collated(
    connection: sqlite3.Connection, table: str, shape: TableShape, key: Sequence[str]
) -> bool:
    """Whether two keys may be one to the table: 'ann' and 'ANN' under NOCASE.

    An index on the key tells its collations. Those of the columns themselves are in no
    pragma; a comparison with a column that holds no row of the table shows them.
    """
    for unique in shape.uniques:
        if {name for name, _ in unique} == set(key) and any(c != "BINARY" for _, c in unique):
            return True
    places = range(len(key))
    columns = ", ".join(f"{quote(name)} AS c{place}" for place, name in enumerate(key))
    loose = " OR ".join(f"c{place} IN ('A', 'a ')" for place in places)
    probe = ", ".join("'a'" for _ in places)
    try:
        (found,) = connection.execute(
            f"SELECT {loose} FROM"  # noqa: S608  # quoted
            f" (SELECT {columns} FROM {quote(table)} WHERE 0 UNION ALL SELECT {probe})"
        ).fetchone()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR_MISSING_COLLSEQ:
            raise
        return True  # a collation that only the application knows
    return bool(found)


def _unfit(table: SourceTable, message: str) -> UsageError:
    return UsageError(Reason.SOURCE_UNFIT, f"table {table.table}: {message}")


def shape_of(connection: sqlite3.Connection, table: str) -> TableShape | None:
    """Columns and unique sets of a table, or None when it is no ordinary table."""
    kind = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone()
    if kind is None or str(kind[0]).upper().startswith("CREATE VIRTUAL"):
        return None
    info = connection.execute(
        'SELECT name, type, pk, "notnull", dflt_value IS NOT NULL, hidden'
        " FROM pragma_table_xinfo(?)",
        (table,),
    ).fetchall()
    primary = tuple((row[0], "BINARY") for row in sorted(info, key=lambda r: r[2]) if row[2])
    uniques, keys, opaque = _uniques(connection, table, primary)
    # INTEGER PRIMARY KEY has no index of its own; SQLite fills it in when it is left out.
    alias = {name for name, _ in primary} if len(primary) == 1 else set()
    return TableShape(
        columns={row[0]: row[1] for row in info},
        required=frozenset(row[0] for row in info if row[3]),
        defaulted=frozenset(row[0] for row in info if row[4] or row[0] in alias),
        generated=frozenset(row[0] for row in info if row[5]),
        uniques=uniques,
        keys=keys,
        opaque=opaque,
    )


def _uniques(
    connection: sqlite3.Connection, table: str, primary: tuple[tuple[str, str], ...]
) -> tuple[tuple[_Unique, ...], frozenset[frozenset[str]], tuple[str, ...]]:
    """Every unique set of columns, which of them hold for all rows, and what is no column set."""
    opaque: list[str] = []
    uniques: list[_Unique] = []
    keys: set[frozenset[str]] = set()
    listed = connection.execute(
        'SELECT name, origin, partial FROM pragma_index_list(?) WHERE "unique"', (table,)
    ).fetchall()
    if primary and not any(origin == "pk" for _, origin, _ in listed):
        uniques.append(primary)
        keys.add(frozenset(name for name, _ in primary))
    for index, _, partial in listed:
        parts = connection.execute(
            "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno", (index,)
        ).fetchall()
        if any(name is None for name, _ in parts):
            opaque.append(index)
            continue
        uniques.append(tuple((name, coll) for name, coll in parts))
        if not partial:
            keys.add(frozenset(name for name, _ in parts))
    return tuple(uniques), frozenset(keys), tuple(opaque)


def triggers_of(table: SourceTable, number: int, shape: TableShape) -> dict[str, str]:
    """Name to SQL of the triggers that feed the change table from one table."""
    key, on = table.schema.key, quote(table.table)
    columns = ", ".join(("source", "commit_us", *KEYS[: len(key)]))
    into = f"INSERT INTO fabric_changes ({columns}) SELECT {number}, {_NOW_US}, "

    def touch(row: str) -> str:
        return into + ", ".join(f"{row}.{quote(name)}" for name in key)

    moved = _differs(key)
    bodies = {
        "insert": ("AFTER INSERT", touch("NEW") + ";"),
        "delete": ("AFTER DELETE", touch("OLD") + ";"),
        "update": ("AFTER UPDATE", f"{touch('OLD')} WHERE {moved}; {touch('NEW')};"),
    }
    # REPLACE deletes rows that collide with any unique set, and fires no delete trigger.
    others = [u for u in shape.uniques if frozenset(n for n, _ in u) != frozenset(key)]
    for place, unique in enumerate(others):
        names = [name for name, _ in unique]
        collides = " AND ".join(
            f"t.{quote(name)} = NEW.{quote(name)} COLLATE {coll}" for name, coll in unique
        )
        victims = f"{touch('t')} FROM {on} AS t WHERE {collides}"
        bodies[f"insert_{place}"] = ("BEFORE INSERT", victims + ";")
        bodies[f"update_{place}"] = ("BEFORE UPDATE", f"{victims} AND ({_differs(names)});")
    unless = "WHEN NOT EXISTS (SELECT 1 FROM fabric_applying)"
    result: dict[str, str] = {}
    for what, (when, body) in bodies.items():
        name = f"fabric_{number}_{what}"
        result[name] = f"CREATE TRIGGER {name} {when} ON {on} {unless} BEGIN {body} END"
    return result


def _differs(names: Sequence[str]) -> str:
    return " OR ".join(f"OLD.{quote(n)} COLLATE BINARY IS NOT NEW.{quote(n)}" for n in names)


def _triggers(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'fabric_[0-9]*'"
    )
    return dict(rows.fetchall())


def _table_sql(connection: sqlite3.Connection) -> str | None:
    row = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'fabric_changes'"
    ).fetchone()
    return None if row is None else str(row[0])


def _number(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("INSERT OR IGNORE INTO fabric_sources (name) VALUES (?)", (name,))
    row = connection.execute("SELECT id FROM fabric_sources WHERE name = ?", (name,)).fetchone()
    return int(row[0])


def _recreate(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE IF EXISTS fabric_changes")
    connection.execute(_CHANGES)
    connection.execute(_MARKS)


def _database_id(connection: sqlite3.Connection, *, renew: bool) -> bytes:
    if renew:
        connection.execute("DELETE FROM fabric_meta WHERE name = 'database'")
    connection.execute(
        "INSERT OR IGNORE INTO fabric_meta (name, value) VALUES ('database', randomblob(16))"
    )
    row = connection.execute("SELECT value FROM fabric_meta WHERE name = 'database'").fetchone()
    return bytes(row[0])


def next_generation(connection: sqlite3.Connection, floor: int) -> int:
    """Begin a new life: a generation above `floor` and any that this database had."""
    row = connection.execute("SELECT value FROM fabric_meta WHERE name = 'generation'").fetchone()
    generation = max(floor, int(row[0]) + 1 if row else 0)
    connection.execute(
        "INSERT INTO fabric_meta (name, value) VALUES ('generation', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (generation,),
    )
    return generation


def add_watermark(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Write a watermark; its id and its random mark, which a copy of the file cannot guess."""
    # fetchall, because the statement commits only when its last row is fetched
    rows = connection.execute(
        f"INSERT INTO fabric_changes (commit_us, mark) VALUES ({_NOW_US}, randomblob(8))"  # noqa: S608  # constants
        " RETURNING id, mark"
    ).fetchall()
    return int(rows[0][0]), bytes(rows[0][1])


def next_watermark(connection: sqlite3.Connection, position: int) -> tuple[int, bytes] | None:
    """The first watermark after `position` that was written before, or None."""
    row = connection.execute(
        "SELECT id, mark FROM fabric_changes WHERE source IS NULL AND id > ? ORDER BY id LIMIT 1",
        (position,),
    ).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def is_watermark(connection: sqlite3.Connection, position: int, mark: bytes) -> bool:
    """Whether this watermark is still kept: false after a restore of an older file."""
    row = connection.execute(
        "SELECT 1 FROM fabric_changes WHERE id = ? AND source IS NULL AND mark = ?",
        (position, mark),
    ).fetchone()
    return row is not None
