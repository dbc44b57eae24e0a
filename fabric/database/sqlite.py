"""SQLite as source, target and outbox: what the registry and the tests import."""

from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.database.sqlite_sink import SqliteSink
from fabric.database.sqlite_source import SqliteSource

__all__ = ["SqliteOutbox", "SqliteSink", "SqliteSource"]
