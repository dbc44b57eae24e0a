"""Which adapter serves which kind of database; an adapter's driver loads on first use."""

from collections.abc import Sequence

from fabric.model.errors import ConfigInvalid
from fabric.ports import ChangeSink, ChangeSource, SourceTable

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

        given = "fabric_" + name.replace("-", "_")
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


def sqlite_path(url: str) -> str:
    """The file's path from `sqlite:///relative`, `sqlite:////absolute` or a bare path."""
    return url.removeprefix("sqlite:///")


def _unknown(kind: str) -> ConfigInvalid:
    return ConfigInvalid(f"kind: {kind!r} is not a database we know; use postgresql or sqlite")
