"""Which table a snapshot was of, in the server's own ids: a name may come to mean another table.

A table that was dropped and made again, or that left the publication and came back, has
changed without a word in the log. Its ids tell, and its dataset is read anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from fabric.database.postgresql_columns import split_table
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import SourceTable

_IDENTITIES = """
SELECT t.topic, c.oid AS table, p.oid AS publication, ARRAY(
    SELECT r.oid FROM pg_catalog.pg_publication_rel r
    WHERE r.prpubid = p.oid AND (r.prrelid = c.oid
        OR r.prrelid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))
  UNION ALL
    SELECT s.oid FROM pg_catalog.pg_publication_namespace s
    WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace
  UNION ALL
    SELECT p.oid WHERE p.puballtables
) AS entries
FROM unnest($1::text[], $2::text[], $3::text[]) AS t (topic, schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
JOIN pg_catalog.pg_publication p ON p.pubname = $4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One table in one publication; no id is ever given twice.

    Attributes:
        table: pg_class.oid.
        publication: pg_publication.oid.
        entries: what puts the table into the publication: its own entry, its schema's, or
            the publication itself when it is for all tables.
    """

    table: int
    publication: int
    entries: frozenset[int]

    def goes_on_as(self, now: "Identity") -> bool:
        """Whether every change between then and now is in the log.

        One entry that was there all the time is enough: the table never left.
        """
        same = (self.table, self.publication) == (now.table, now.publication)
        return same and (self.entries == now.entries or bool(self.entries & now.entries))


def to_json(identity: Identity | None) -> Any:
    """As a value for JSON; None stays None."""
    if identity is None:
        return None
    return {
        "table": identity.table,
        "publication": identity.publication,
        "entries": sorted(identity.entries),
    }


def from_json(data: Any) -> Identity | None:
    """What `to_json` gave; raises one of ValueError, KeyError and TypeError for other things."""
    if data is None:
        return None
    return Identity(
        table=int(data["table"]),
        publication=int(data["publication"]),
        entries=frozenset(int(each) for each in data["entries"]),
    )


async def identities(
    connection: "asyncpg.Connection[Any]", tables: Iterable[SourceTable], publication: str
) -> Mapping[str, Identity]:
    """Who the tables are now, by topic.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, a table or the publication is gone.
    """
    tables = list(tables)
    places = [split_table(table.table) for table in tables]
    records = await connection.fetch(
        _IDENTITIES,
        [str(table.topic) for table in tables],
        [schema for schema, _ in places],
        [name for _, name in places],
        publication,
    )
    found = {
        record["topic"]: Identity(
            table=record["table"],
            publication=record["publication"],
            entries=frozenset(record["entries"]),
        )
        for record in records
    }
    for table in tables:
        if str(table.topic) not in found:
            raise changed(table.table)
    return found


def is_remade(was: Iterable[Identity | None], now: Mapping[str, Identity]) -> bool:
    """Whether the publication is another one: the server cannot send what lies before it."""
    publications = {identity.publication for identity in now.values()}
    return any(old is not None and old.publication not in publications for old in was)


def changed(table: str) -> UnavailableError:
    """What ends a stream whose table is not the one it began with: the next open looks again."""
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE,
        f"table {table} is another, or left the publication; the source must open again",
    )
