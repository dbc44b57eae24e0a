"""Rows as columns: how a block holds them, because one list a column is far less work than
one map a row.

Every field becomes one list of values, and how that stands in a block is `packing`'s. A field
that may be null keeps its null rows' places apart, so that its values need no branch each. What
is read from a block stays in columns until somebody asks for a row: a target that writes by
column never does. Spec: docs/format.md section 4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, pairwise
from typing import Any, TypeAlias, overload

from fabric.model.change import Row, Value
from fabric.model.errors import Malformed
from fabric.model.packing import Column, Packed, pack, type_of, unpack
from fabric.model.schema_weight import is_empty

_Maker: TypeAlias = Callable[[Iterable[tuple[Value, ...]]], Iterator[Row]]
_MAKERS_MAX = 256


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
    columns = [{"name": f.name, "type": type_of(f.item)} for f in fields]
    return {"type": "record", "name": name, "fields": columns}


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


@lru_cache(_MAKERS_MAX)
def _maker(names: tuple[str, ...]) -> _Maker:
    """What makes dicts of values that stand in the order of `names`; at least one name.

    A dict display with its names written out takes half the time of `dict(zip(names, values))`,
    and this runs for every row that the Python API gives out. It is written as `namedtuple`
    writes its constructors: names stand in it as literals and nowhere else.
    """
    values = [f"v{at}" for at in range(len(names))]
    shown = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
    made: _Maker = eval(  # noqa: S307  # nothing in it is given but literals
        f"lambda many: ({{{shown}}} for {', '.join(values)}, in many)", {"__builtins__": {}}
    )
    return made


class Rows(Sequence[Row]):
    """Rows that are still columns; the same as a list of them, and equal to it.

    Who iterates gets each row made as it comes, and kept by nobody else: rows that are used one
    after another stay in the processor's cache, and the collector of garbage never sees them.

    Args:
        columns: by name, all of one length, never changed.
        first, count: which rows of the columns these are.
    """

    __slots__ = ("_columns", "_count", "_first", "_made")

    def __init__(self, columns: Mapping[str, Column], first: int, count: int) -> None:
        self._columns = columns
        self._first = first
        self._count = count
        self._made: list[Row] | None = None

    def column(self, name: str) -> Column:
        """One column of these rows; raises KeyError."""
        whole = self._columns[name]
        if self._count == len(whole):
            return whole
        return whole[self._first : self._first + self._count]

    def follows(self, other: "Rows") -> bool:
        """Whether these are the rows after `other`, of the same columns."""
        return self._columns is other._columns and self._first == other._first + other._count

    def grown(self, more: int) -> "Rows":
        """These rows and the `more` after them."""
        return Rows(self._columns, self._first, self._count + more)

    def _rows(self) -> list[Row]:
        if self._made is None:
            self._made = [*self]
        return self._made

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice) and at.step in (None, 1):
            first, end, _ = at.indices(self._count)
            return Rows(self._columns, self._first + first, max(0, end - first))
        return self._rows()[at]

    def __iter__(self) -> Iterator[Row]:
        if self._made is not None:
            return iter(self._made)
        names = (*self._columns,)
        if not names:
            return iter(())
        # Columns are of one length, as `join` has seen to.
        return _maker(names)(zip(*map(self.column, names), strict=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._rows() == [*other]

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:  # rows are secret
        return f"Rows(count={self._count})"


def values_of(rows: Sequence[Row], name: str) -> Column:
    """One column of any rows; raises KeyError."""
    return rows.column(name) if isinstance(rows, Rows) else [row[name] for row in rows]


def one_after_another(parts: Sequence[Sequence[Row]]) -> Rows | None:
    """All rows of `parts`, when together they are one stretch of one block's columns."""
    stretch: Rows | None = None
    for part in parts:
        if not isinstance(part, Rows) or (stretch is not None and not part.follows(stretch)):
            return None
        stretch = part if stretch is None else stretch.grown(len(part))
    return stretch


def pack_all(columns: Mapping[str, Column], fields: Sequence[Field]) -> dict[str, Packed]:
    """Every column as it stands in a block; raises as `packing.pack`."""
    return {field.name: pack(field.item, columns[field.name]) for field in fields}


def counts_of(nulls: Sequence[Sequence[int]], fields: Sequence[Field], count: int) -> list[int]:
    """How many values each column of `count` rows has.

    Raises:
        Malformed: more values of a column are null than there are rows.
    """
    places = iter(nulls)
    counts = [count - len(next(places, ())) if field.nullable else count for field in fields]
    if min(counts, default=0) < 0:
        raise Malformed("column has another number of nulls than its rows can have")
    return counts


def unpack_all(
    packed: Mapping[str, Any], nulls: Sequence[Sequence[int]], fields: Sequence[Field], count: int
) -> dict[str, Column]:
    """Every column of `count` rows without its nulls, as `join` takes them.

    Raises:
        Malformed: as `packing.unpack` and `counts_of`.
    """
    counts = counts_of(nulls, fields, count)
    return {
        field.name: unpack(field.item, packed[field.name], many)
        for field, many in zip(fields, counts, strict=True)
    }


def join(
    columns: Mapping[str, Column], nulls: Sequence[list[int]], fields: Sequence[Field], count: int
) -> Rows:
    """Undo `split` for `count` rows.

    Raises:
        Malformed: a column has another length, or the places of nulls are not rising places
            of rows.
    """
    places = iter(nulls)
    whole = {
        field.name: _with_nulls(columns[field.name], next(places, None), count)
        if field.nullable
        else columns[field.name]
        for field in fields
    }
    if next(places, None) is not None or any(len(column) != count for column in whole.values()):
        raise Malformed("columns do not add up to the rows")
    return Rows(whole, 0, count)


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
