"""Rows as columns: how a block holds them, because one list a column is far less work than
one map a row.

Every field becomes one array. A field that may be null keeps its null rows' places apart, so
that its values need no branch each. Spec: docs/format.md section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from typing import Any

from fabric.model.change import Row, Value
from fabric.model.errors import Malformed
from fabric.model.schema_weight import is_empty

Column = list[Value]


@dataclass(frozen=True, slots=True)
class Field:
    """One column.

    Attributes:
        item: Avro type of one value (physical), never zero bytes long.
        nullable: null rows are kept apart; `item` is the type of the others.
    """

    name: str
    item: Any
    nullable: bool


def fields_of(parsed: Mapping[str, Any]) -> tuple[Field, ...]:
    """The columns of a record type that fastavro has parsed, logical types removed."""
    known: dict[str, bool] = {}
    return tuple(_field(field["name"], field["type"], known) for field in parsed["fields"])


def _field(name: str, kind: Any, known: dict[str, bool]) -> Field:
    nullable = isinstance(kind, list) and len(kind) == 2 and "null" in kind
    item = next(branch for branch in kind if branch != "null") if nullable else kind
    # A union's index is one byte: items of nothing would make a reader run without end.
    return Field(name, [item] if is_empty(item, known) else item, nullable)


def record(name: str, fields: Sequence[Field]) -> dict[str, Any]:
    """The Avro record whose fields are the columns."""
    arrays = [{"name": f.name, "type": {"type": "array", "items": f.item}} for f in fields]
    return {"type": "record", "name": name, "fields": arrays}


def split(rows: Sequence[Row], fields: Sequence[Field]) -> tuple[dict[str, Column], list[Any]]:
    """Columns of `rows`, and for each nullable column the places of its nulls.

    Raises:
        KeyError: a row lacks a field that may not be null.
    """
    columns: dict[str, Column] = {}
    nulls: list[list[int]] = []
    for field in fields:
        column = _column(rows, field)
        if field.nullable:
            places = [at for at, value in enumerate(column) if value is None]
            nulls.append(places)
            if places:
                column = [value for value in column if value is not None]
        columns[field.name] = column
    return columns, nulls


def _column(rows: Sequence[Row], field: Field) -> Column:
    name = field.name
    try:
        return [row[name] for row in rows]
    except KeyError:
        if not field.nullable:
            raise
    return [row.get(name) for row in rows]


def join(
    columns: Mapping[str, Column], nulls: Sequence[list[int]], fields: Sequence[Field], count: int
) -> list[Row]:
    """Undo `split` for `count` rows.

    Raises:
        Malformed: a column has another length, or the places of nulls are not rising places
            of rows.
    """
    places = iter(nulls)
    whole = [
        _with_nulls(columns[field.name], next(places, None), count)
        if field.nullable
        else columns[field.name]
        for field in fields
    ]
    if next(places, None) is not None or any(len(column) != count for column in whole):
        raise Malformed("columns do not add up to the rows")
    names = [field.name for field in fields]
    return [dict(zip(names, values, strict=False)) for values in zip(*whole, strict=False)]


def _with_nulls(values: Column, places: list[int] | None, count: int) -> Column:
    if places is None or len(values) + len(places) != count:
        raise Malformed("columns do not add up to the rows")
    if not places:
        return values
    if places[0] < 0 or places[-1] >= count or any(a >= b for a, b in pairwise(places)):
        raise Malformed("places of nulls are not rising places of rows")
    whole: Column = [None] * count
    is_there = [True] * count
    for place in places:
        is_there[place] = False
    for place, value in zip(compress(range(count), is_there), values, strict=True):
        whole[place] = value
    return whole
