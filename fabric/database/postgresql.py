"""PostgreSQL as a source and as a target of changes."""

from fabric.database.postgresql_sink import PostgresSink
from fabric.database.postgresql_source import PostgresSource

__all__ = ["PostgresSink", "PostgresSource"]
