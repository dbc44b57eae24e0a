"""Columns of SQLite and Avro physical values: how each is written, read and checked.

SQLite has five storage classes and guesses; the declared Avro type says what is
meant. Dates and times are integers in tables we make; in tables that exist they
follow the column: TEXT, DATE and the like hold ISO 8601 text, as SQLite's own
functions expect it. Arrays, maps and records are JSON text.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fabric.database import sqlite_nested as nested
from fabric.database import sqlite_times as times
from fabric.database.sqlite_decimal import decimal_reader, decimal_writer
from fabric.database.value_fit import INT_MAX, INT_MIN, checker, resolve, single
from fabric.model.change import Row, Value
from fabric.model.errors import Reason, UsageError
from fabric.model.schema import RowSchema

SqlValue: TypeAlias = int | float | str | bytes | None
Writer: TypeAlias = Callable[[Any], SqlValue]
Reader: TypeAlias = Callable[[Any], Value]

_DECIMAL_DIGITS_IN_REAL = 15
"""A NUMERIC column keeps this many digits of a decimal; more needs TEXT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field of a dataset as SQLite keeps it.

    Attributes:
        affinities: column affinities that keep every value of the type.
        sql_type: type in tables that we make.
        write: physical value to SQLite, or None when SQLite takes it as it is.
        read: SQLite value to physical value; raises ValueError for anything else.
    """

    name: str
    nullable: bool
    sql_type: str
    affinities: frozenset[str]
    write: Writer | None
    read: Reader


def affinity(declared: str) -> str:
    """The affinity of a declared column type, by SQLite's five rules."""
    text = declared.upper()
    if "INT" in text:
        return "INTEGER"
    if any(word in text for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not text or "BLOB" in text or text == "ANY":
        return "BLOB"
    if any(word in text for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


def columns_of(schema: RowSchema, declared: Mapping[str, str]) -> tuple[Column, ...]:
    """Every field as a column; `declared` holds the column types of a table that exists.

    Raises:
        UsageError: SCHEMA_MISMATCH, a field's type is a union of several types.
    """
    names: dict[str, Any] = {}
    return tuple(
        _column(name, schema.type_of(name), declared.get(name, ""), names) for name in schema.fields
    )


def _column(name: str, avro: Any, declared: str, names: dict[str, Any]) -> Column:
    nullable = False
    if isinstance(avro, list):
        nullable = "null" in avro
        branches = [branch for branch in avro if branch != "null"]
        if len(branches) != 1:
            raise UsageError(
                Reason.SCHEMA_MISMATCH,
                f"field {name}: SQLite has no column for a union of several types;"
                " use null and one type",
            )
        avro = branches[0]
    sql_type, affinities, write, read = _storage(avro, declared, names)
    return Column(
        name=name,
        nullable=nullable,
        sql_type=sql_type,
        affinities=frozenset(affinities.split()),
        write=_or_null(write) if nullable and write else write,
        read=_or_null(read) if nullable else read,
    )


def _or_null(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _storage(
    avro: Any, declared: str, names: dict[str, Any]
) -> tuple[str, str, Writer | None, Reader]:
    """Column type, fitting affinities, writer and reader of one Avro type without null."""
    avro = resolve(avro, names)
    kind: Any = avro["type"] if isinstance(avro, dict) else avro
    logical: str = avro.get("logicalType", "") if isinstance(avro, dict) else ""
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return _decimal(avro)
    if logical in times.UNITS and kind in ("int", "long"):
        return _time(logical, declared, is_int=kind == "int")
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "fixed":
        return "BLOB", "BLOB", None, _fitting(_bytes, checker(avro, names))
    if kind == "enum":
        return "TEXT", "TEXT BLOB", None, _fitting(_str, checker(avro, names))
    return "TEXT", "TEXT BLOB", nested.writer(avro, names), nested.reader(avro, names)


def _decimal(avro: dict[str, Any]) -> tuple[str, str, Writer | None, Reader]:
    scale, size = int(avro.get("scale", 0)), avro.get("size")
    fits, precision = "TEXT BLOB", int(avro["precision"])
    if precision <= _DECIMAL_DIGITS_IN_REAL:
        fits += " NUMERIC"
    return "TEXT", fits, decimal_writer(scale), decimal_reader(scale, size, precision=precision)


def _time(logical: str, declared: str, *, is_int: bool) -> tuple[str, str, Writer | None, Reader]:
    as_text = affinity(declared) == "TEXT" or any(
        word in declared.upper() for word in ("DATE", "TIME")
    )
    fits = "INTEGER NUMERIC BLOB TEXT"
    read: Reader = times.reader(logical)
    if is_int:
        read = _fitting(read, _int32)
    return "INTEGER", fits, times.writer(logical) if as_text else None, read


def _fitting(read: Reader, check: Callable[[Any], object]) -> Reader:
    """Read what `check` lets pass."""

    def checked(value: Any) -> Value:
        found = read(value)
        check(found)
        return found

    return checked


def _bool(value: Any) -> bool:
    if value is None or value not in (0, 1):
        raise ValueError
    return bool(value)


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError
    return value


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    if value == "NaN":
        return math.nan
    raise ValueError


def _write_float(value: float) -> SqlValue:
    # SQLite turns NaN into NULL; as text it survives in a REAL column.
    return "NaN" if math.isnan(value) else value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise ValueError
    return value


def _int32(value: Any) -> int:
    if type(value) is not int or not INT_MIN <= value <= INT_MAX:
        raise ValueError
    return value


def _single(value: Any) -> float:
    number = _float(value)
    single(number)
    return number


_PLAIN: dict[str, tuple[str, str, Writer | None, Reader]] = {
    "boolean": ("INTEGER", "INTEGER NUMERIC BLOB", None, _bool),
    "int": ("INTEGER", "INTEGER NUMERIC BLOB", None, _int32),
    "long": ("INTEGER", "INTEGER NUMERIC BLOB", None, _int),
    "float": ("REAL", "REAL NUMERIC BLOB", _write_float, _single),
    "double": ("REAL", "REAL NUMERIC BLOB", _write_float, _float),
    "string": ("TEXT", "TEXT BLOB", None, _str),
    "bytes": ("BLOB", "BLOB", None, _bytes),
}


class RowReader:
    """Turns tuples, in the order of `columns`, into rows."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._names = tuple(column.name for column in columns)
        self._reads = tuple(column.read for column in columns)

    def row(self, values: tuple[Any, ...]) -> Row:
        """One row.

        Raises:
            ValueError: names the column whose value is not of its declared type.
        """
        try:
            return {
                name: read(value)
                for name, read, value in zip(self._names, self._reads, values, strict=True)
            }
        except (ValueError, ArithmeticError, TypeError):
            raise ValueError(self._culprit(values)) from None  # the cause may quote the value

    def _culprit(self, values: tuple[Any, ...]) -> str:
        for name, read, value in zip(self._names, self._reads, values, strict=True):
            try:
                read(value)
            except (ValueError, ArithmeticError, TypeError):
                return name
        return "?"


def row_tuple(columns: tuple[Column, ...]) -> Callable[[Row], tuple[SqlValue, ...]]:
    """A function from a row to the values of `columns`, as SQLite takes them.

    The function raises KeyError, ValueError or OverflowError for a row that does not fit.
    """
    pairs = tuple((column.name, column.write) for column in columns)
    if all(write is None for _, write in pairs):
        names = tuple(name for name, _ in pairs)
        return lambda row: tuple([row[name] for name in names])  # type: ignore[misc]  # plain types only
    return lambda row: tuple(
        [row[name] if write is None else write(row[name]) for name, write in pairs]  # type: ignore[misc]  # as above
    )
