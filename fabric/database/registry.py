"""Which adapter serves which kind of database; an adapter's driver loads on first use."""

import asyncio
from collections.abc import Sequence

from fabric.database.finding import Capture, Finding, Usage
from fabric.model.errors import ConfigInvalid
from fabric.ports import ChangeSink, ChangeSource, SourceTable, Target

_CHUNK_ROWS = 5_000
"""Rows a snapshot reads between two looks at the live changes."""


def open_source(
    kind: str,
    url: str,
    tables: Sequence[SourceTable],
    name: str,
    *,
    slot: str | None = None,
    publication: str | None = None,
) -> ChangeSource:
    """Make the source of one capture; call its `open` next.

    Args:
        kind: `postgresql` or `sqlite`.
        url: connection URL; for SQLite a path or `sqlite:///path`.
        tables: what to read, each with its dataset.
        name: the capture's name, from which PostgreSQL's slot is named.
        slot: PostgreSQL replication slot; `fabric_<name>` when None.
        publication: PostgreSQL publication; `fabric_<name>` when None.

    Raises:
        ConfigInvalid: the kind is unknown.
    """
    if kind == "sqlite":
        from fabric.database.sqlite import SqliteSource

        return SqliteSource(sqlite_path(url), tables, chunk_rows=_CHUNK_ROWS)
    if kind == "postgresql":
        from fabric.database.postgresql import PostgresSource

        given = given_name(name)
        return PostgresSource(
            url,
            tables,
            slot=slot or given,
            publication=publication or given,
            chunk_rows=_CHUNK_ROWS,
        )
    raise _unknown(kind)


def open_sink(kind: str, url: str) -> ChangeSink:
    """Make the sink of one target database; call its `open` next. Raises ConfigInvalid."""
    if kind == "sqlite":
        from fabric.database.sqlite import SqliteSink

        return SqliteSink(sqlite_path(url))
    if kind == "postgresql":
        from fabric.database.postgresql import PostgresSink

        return PostgresSink(url)
    raise _unknown(kind)


async def examine_source(kind: str, url: str, capture: Capture, usage: Usage) -> Sequence[Finding]:
    """Look at what a capture needs of its database; changes nothing. Raises ConfigInvalid."""
    if kind == "sqlite":
        from fabric.database import sqlite_examine

        return await asyncio.to_thread(sqlite_examine.examine_source, sqlite_path(url), capture)
    if kind == "postgresql":
        from fabric.database import postgresql_examine

        return await postgresql_examine.examine_source(url, capture, usage)
    raise _unknown(kind)


async def examine_target(
    kind: str, url: str, targets: Sequence[Target], usage: Usage
) -> Sequence[Finding]:
    """Look at what datasets need of their target; changes nothing. Raises ConfigInvalid."""
    if kind == "sqlite":
        from fabric.database import sqlite_examine

        return await asyncio.to_thread(sqlite_examine.examine_target, sqlite_path(url), targets)
    if kind == "postgresql":
        from fabric.database import postgresql_examine_target

        return await postgresql_examine_target.examine_target(url, targets, usage)
    raise _unknown(kind)


def given_name(source: str) -> str:
    """Slot and publication of a capture that names none."""
    return "fabric_" + source.replace("-", "_")


def sqlite_path(url: str) -> str:
    """The file's path from `sqlite:///relative`, `sqlite:////absolute` or a bare path.

    Raises:
        ConfigInvalid: another URL, which may hold a password, where messages name a path.
    """
    path = url.removeprefix("sqlite:///")
    if "://" in path:
        raise ConfigInvalid("url: is not that of a SQLite file; write sqlite:///path")
    return path


def _unknown(kind: str) -> ConfigInvalid:
    return ConfigInvalid(f"kind: {kind!r} is not a database we know; use postgresql or sqlite")
