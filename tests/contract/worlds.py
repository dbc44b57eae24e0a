"""What a contract suite needs of a database under test: two datasets and a few plain writes.

One world is one empty database; the suites open sources and sinks on it again and
again, as a restarted agent would. Rows are Avro physical values everywhere.
"""

import json
from collections.abc import Sequence
from typing import Protocol

from fabric.model.change import Row
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.ports import ChangeSink, ChangeSource, SourceTable, Target

PEOPLE_SCHEMA = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Person",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "name", "type": "string"},
                {"name": "born", "type": {"type": "int", "logicalType": "date"}},
                {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                {"name": "active", "type": "boolean"},
                {"name": "score", "type": ["null", "double"], "default": None},
                {"name": "photo", "type": ["null", "bytes"], "default": None},
                {
                    "name": "balance",
                    "type": [
                        "null",
                        {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
                    ],
                    "default": None,
                },
            ],
        }
    ),
    ("id",),
)
"""SQL: id bigint key, name text, born date, seen timestamptz, active boolean,
score double precision null, photo bytea null, balance numeric(12,2) null."""

NOTES_SCHEMA = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Note",
            "fields": [
                {"name": "region", "type": "string"},
                {"name": "number", "type": "int"},
                {"name": "body", "type": ["null", "string"], "default": None},
            ],
        }
    ),
    ("region", "number"),
)
"""SQL: region text, number integer, body text null, primary key (region, number)."""

PEOPLE = Topic("secret", "G01", "people")
NOTES = Topic("secret", "G01", "notes")
POISON = "poison"
"""The `name` that a spoiled people table refuses."""
CHUNK_ROWS = 10
"""Rows of one snapshot chunk in the suites."""


def decimal_bytes(unscaled: int) -> bytes:
    """Avro's bytes of a decimal's unscaled value, of least length."""
    return unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)


def person(number: int, name: str = "", **values: object) -> Row:
    """A whole row of `people`."""
    row: Row = {
        "id": number,
        "name": name or f"name {number}",
        "born": 10_000 + number,
        "seen": 1_700_000_000_123_456 + number,
        "active": number % 2 == 0,
        "score": number / 4,
        "photo": b"\x00\xff" + str(number).encode(),
        "balance": decimal_bytes(number * 100 + 5),
    }
    row.update(values)  # type: ignore[arg-type]  # tests pass plain values
    return row


def note(region: str, number: int, body: str | None = "text") -> Row:
    """A whole row of `notes`."""
    return {"region": region, "number": number, "body": body}


class SourceWorld(Protocol):
    """One database with the tables `people` and `notes`, both empty at first.

    Attributes:
        people, notes: the captured tables with PEOPLE_SCHEMA and NOTES_SCHEMA.
        truncates: whether the database has TRUNCATE and the source sees it.
    """

    people: SourceTable
    notes: SourceTable
    truncates: bool

    def source(self) -> ChangeSource:
        """A source, not yet open, on `people` and `notes` with chunks of CHUNK_ROWS rows."""

    async def insert(self, table: SourceTable, rows: Sequence[Row]) -> None:
        """Insert whole rows in one transaction."""

    async def update(self, table: SourceTable, key: Row, row: Row) -> None:
        """Set every column of the row with `key` (key fields only); the key may change."""

    async def delete(self, table: SourceTable, keys: Sequence[Row]) -> None:
        """Delete rows by key in one transaction."""

    async def truncate(self, table: SourceTable) -> None:
        """TRUNCATE; only called when `truncates`."""

    async def rows(self, table: SourceTable) -> list[Row]:
        """Every row, as Avro physical values, in no order."""

    async def forget(self) -> None:
        """Lose what the source keeps in the database (slot, change table): tokens turn foreign."""


class SinkWorld(Protocol):
    """One database without tables, that sinks write to."""

    def sink(self) -> ChangeSink:
        """A sink, not yet open."""

    async def rows(self, target: Target) -> list[Row]:
        """Every row of the target's table, as Avro physical values, in no order."""

    async def insert(self, target: Target, rows: Sequence[Row]) -> None:
        """Write rows round the sink, as if they had been there before; the table exists."""

    async def spoil(self, target: Target) -> None:
        """Make the table refuse any write of a row whose `name` is POISON."""

    async def heal(self, target: Target) -> None:
        """Undo `spoil`."""
