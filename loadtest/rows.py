"""The one record that everybody moves: ten fields of a resident, in Avro's physical values."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeAlias

from fabric.demo.people import ResidentRow, residents, wards

Row: TypeAlias = dict[str, Any]

POOL_ROWS = 20_000
_DAY_0 = date(1970, 1, 1)
_TIME_0 = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = Path(__file__).parents[1] / "schemas" / "residents.avsc"
FIELDS = tuple(field["name"] for field in json.loads(_SCHEMA.read_text())["fields"])


def schema_text(*, logical: bool = False, tags: Sequence[str] = ()) -> str:
    """The residents' Avro schema.

    Args:
        logical: keep logical types. Without them dates and times are plain numbers for
            everybody, which is faster for every Avro library.
        tags: fields that get Confluent's tag `PII`.
    """
    schema = json.loads(_SCHEMA.read_text())
    for field in schema["fields"]:
        if isinstance(field["type"], dict) and not logical:
            field["type"] = field["type"]["type"]
        if field["name"] in tags:
            field["confluent:tags"] = ["PII"]
    return json.dumps(schema)


def write_pool(path: Path, size: int = POOL_ROWS) -> None:
    """Make up `size` residents, always the same people, and write them down."""
    places = {ward.code: f"{ward.name}, {ward.province_name}" for ward in wards()}
    pool = []
    for row in residents(size):
        # The demo's addresses end at the street; a register's name the ward and the province.
        values = physical(row)
        pool.append({**values, "address": f"{row.address}, {places[row.ward_code]}"})
    path.write_text(json.dumps(pool))


def read_pool(path: Path) -> list[Row]:
    """What `write_pool` wrote."""
    pool: list[Row] = json.loads(path.read_text())
    return pool


def physical(row: ResidentRow) -> Row:
    """A resident in Avro's physical values: days, microseconds."""
    values = {name: getattr(row, name) for name in FIELDS}
    values["birth_date"] = (row.birth_date - _DAY_0).days
    values["updated_at"] = (row.updated_at - _TIME_0) // timedelta(microseconds=1)
    return values


def logical(row: Row) -> Row:
    """The same with a date and an aware time."""
    birth = _DAY_0 + timedelta(days=row["birth_date"])
    changed = _TIME_0 + timedelta(microseconds=row["updated_at"])
    return {**row, "birth_date": birth, "updated_at": changed}


def numbered(pool: Sequence[Row], first: int, size: int) -> Iterator[tuple[Any, ...]]:
    """`size` rows for a table, as tuples in the order of FIELDS, with ids from `first` on."""
    for number in islice(count(first), size):
        row = logical(pool[number % len(pool)])
        yield (number, *(row[name] for name in FIELDS[1:]))


def slices(pool: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Consecutive slices of the pool, each of `size` rows, for ever."""
    usable = len(pool) - len(pool) % size
    if not usable:
        raise ValueError("slices must not be larger than the pool")
    while True:
        for start in range(0, usable, size):
            yield list(pool[start : start + size])
