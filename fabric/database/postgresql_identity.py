"""Which table a snapshot was of, in the server's own ids: a name may come to mean another table.

A table that was dropped and made again, or that left the publication and came back, has
changed without a word in the log. So has one with a column made again under its name: its old
rows have other values there. The ids tell, and its dataset is read anew.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
) AS entries, ARRAY(
    WITH RECURSIVE parts (oid) AS (
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i
        WHERE i.inhparent = c.oid AND NOT i.inhdetachpending
      UNION
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts ON i.inhparent = parts.oid
        WHERE NOT i.inhdetachpending
    )
    SELECT k.oid::text || '/' || k.relfilenode::text FROM parts
    JOIN pg_catalog.pg_class k ON k.oid = parts.oid ORDER BY k.oid
) AS parts, (
    SELECT pg_catalog.json_object_agg(a.attname::text, a.attnum) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
)::text AS columns
FROM unnest($1::text[], $2::text[], $3::text[]) AS t (topic, schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
JOIN pg_catalog.pg_publication p ON p.pubname = $4
"""

_ANY_FILLED = """
SELECT coalesce(bool_or(NOT c.relispartition OR pg_catalog.pg_relation_size(c.oid) > 0), false)
FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::oid[])
"""
"""A child that is no partition counts, empty or not: the log will not hold its changes."""
_ADDED_MAX = 256
"""Partitions that are looked into at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One table in one publication; no id is ever given twice.

    Attributes:
        table: pg_class.oid.
        publication: pg_publication.oid.
        entries: what puts the table into the publication: its own entry, its schema's, or
            the publication itself when it is for all tables.
        parts: `oid/file` of each partition, at any depth. A partition that is emptied for
            itself gets another file, and the log says nothing of it.
        columns: number of each of the schema's columns, in its order, 0 for one that is not
            there; empty when nobody told. A number is never given twice.
    """

    table: int
    publication: int
    entries: frozenset[int]
    parts: frozenset[str] = frozenset()
    columns: tuple[int, ...] = ()

    def goes_on_as(self, now: "Identity") -> bool:
        """Whether every change between then and now is in the log, new partitions' aside.

        One entry that was there all the time is enough: the table never left.
        """
        same = (self.table, self.publication) == (now.table, now.publication)
        same = same and self.parts <= now.parts and self._keeps_columns(now)
        return same and (self.entries == now.entries or bool(self.entries & now.entries))

    def _keeps_columns(self, now: "Identity") -> bool:
        if not self.columns:
            return True
        if len(self.columns) != len(now.columns):
            return False
        pairs = zip(self.columns, now.columns, strict=True)
        return all(old == new or not new for old, new in pairs)  # rows tell of one that is gone

    def after(self, old: "Identity | None") -> "Identity":
        """The same, with what `old` knew of columns that are gone: they may come back."""
        if old is None or len(old.columns) != len(self.columns):
            return self
        pairs = zip(old.columns, self.columns, strict=True)
        return replace(self, columns=tuple(new or was for was, new in pairs))

    def added(self, now: "Identity") -> list[int]:
        """Partitions that are new."""
        return sorted(int(part.partition("/")[0]) for part in now.parts - self.parts)


def to_json(identity: Identity | None) -> Any:
    """As a value for JSON; None stays None."""
    if identity is None:
        return None
    return {
        "table": identity.table,
        "publication": identity.publication,
        "entries": sorted(identity.entries),
        "parts": " ".join(sorted(identity.parts)),
        "columns": " ".join(map(str, identity.columns)),
    }


def from_json(data: Any) -> Identity | None:
    """What `to_json` gave; raises one of ValueError, KeyError and TypeError for other things."""
    if data is None:
        return None
    return Identity(
        table=int(data["table"]),
        publication=int(data["publication"]),
        entries=frozenset(int(each) for each in data["entries"]),
        parts=frozenset(str(data["parts"]).split()),
        columns=tuple(int(each) for each in str(data.get("columns", "")).split()),
    )


async def identities(
    connection: "asyncpg.Connection[Any]", tables: Iterable[SourceTable], publication: str
) -> Mapping[str, Identity]:
    """Who the tables are now, by topic.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, a table or the publication is gone.
    """
    tables = list(tables)
    fields = {str(table.topic): table.schema.fields for table in tables}
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
            parts=frozenset(record["parts"]),
            columns=_numbers(record["columns"], fields[record["topic"]]),
        )
        for record in records
    }
    for table in tables:
        if str(table.topic) not in found:
            raise changed(table.table)
    return found


def _numbers(columns: str | None, fields: Iterable[str]) -> tuple[int, ...]:
    known: dict[str, int] = json.loads(columns or "{}")
    return tuple(known.get(name, 0) for name in fields)


async def goes_on(
    connection: "asyncpg.Connection[Any]", old: Identity | None, now: Identity
) -> bool:
    """Whether every change since `old` is in the log; an unknown one is taken for the same.

    A new partition may have brought rows along, which the log does not hold. One whose
    file is empty brought none: so partitions can be made in advance without a snapshot.
    """
    if old is None:
        return True
    if not old.goes_on_as(now):
        return False
    added = old.added(now)
    if len(added) > _ADDED_MAX:
        return False
    return not added or not await connection.fetchval(_ANY_FILLED, added)


def is_remade(was: Iterable[Identity | None], now: Mapping[str, Identity]) -> bool:
    """Whether the publication is another one: the server cannot send what lies before it."""
    publications = {identity.publication for identity in now.values()}
    return any(old is not None and old.publication not in publications for old in was)


def changed(table: str) -> UnavailableError:
    """What ends a stream whose table is not the one it began with: the next open looks again."""
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE,
        f"table {table} is another, has other partitions or columns, or left the publication; the"
        " source must open again",
    )
