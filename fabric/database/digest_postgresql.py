"""The digest of a PostgreSQL table; reads only, in one snapshot."""

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from fabric.database.digest import TableDigest
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.schema import RowSchema

_CONNECT_S_MAX = 10.0
_PAGE_ROWS = 5_000
_DAYS_TO_2000 = 10_957
_MICROS_TO_2000 = _DAYS_TO_2000 * 86_400_000_000
_EXACT = Context(prec=10_000)
_MICROS = {"micros": 1, "millis": 1_000}
_Convert: TypeAlias = Callable[[Any], Any]


async def postgresql_digest(url: str, table: str, schema: RowSchema) -> tuple[int, str]:
    """Number of rows and digest of one table; errors as `digest.table_digest`."""
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_S_MAX)
        try:
            return await _digest(connection, table, schema)
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise UnavailableError(
            Reason.DATABASE_UNAVAILABLE, f"postgresql: {type(exc).__name__}"
        ) from exc


async def _digest(
    connection: "asyncpg.Connection[asyncpg.Record]", table: str, schema: RowSchema
) -> tuple[int, str]:
    # Raw integers: datetime objects cannot hold infinity nor years beyond 9999.
    for name in ("date", "time", "timestamp", "timestamptz"):
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            encoder=lambda value: (value,),
            decoder=lambda value: value[0],
            format="tuple",
        )
    digest = TableDigest(schema)
    converts = [(name, _physical(schema.type_of(name))) for name in schema.fields]
    names = ", ".join(_quote(name) for name in schema.fields)
    place = ".".join(_quote(part) for part in table.split("."))
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        query = f"SELECT {names} FROM {place}"  # noqa: S608  # quoted
        async for record in connection.cursor(query, prefetch=_PAGE_ROWS):
            digest.add(
                {name: _converted(convert, record[name], name) for name, convert in converts}
            )
    return digest.count, digest.value


def _converted(convert: _Convert, value: Any, name: str) -> Any:
    try:
        return convert(value)
    except (ValueError, TypeError, ArithmeticError):
        raise UsageError(
            Reason.SCHEMA_MISMATCH, f"a value in column {name} is not of its declared type"
        ) from None


def _physical(avro: Any) -> _Convert:
    """From the driver's value to the Avro physical value of this type."""
    if isinstance(avro, list):
        inner = next((_physical(branch) for branch in avro if branch != "null"), _same)
        return lambda value: None if value is None else inner(value)
    if isinstance(avro, str):
        return _text if avro == "string" else _same
    kind, logical = avro["type"], avro.get("logicalType", "")
    if isinstance(kind, dict | list):
        return _physical(kind)
    if logical == "decimal":
        return _decimal(int(avro.get("scale", 0)))
    if logical == "date":
        return _date
    if logical.startswith("time-"):
        unit = _MICROS[logical.rpartition("-")[2]]
        return lambda value: value // unit
    if "timestamp-" in logical and logical.rpartition("-")[2] in _MICROS:
        return _timestamp(_MICROS[logical.rpartition("-")[2]])
    if kind == "array":
        item = _physical(avro["items"])
        return lambda value: [item(each) for each in value]
    return _text if kind == "string" else _same


def _decimal(scale: int) -> _Convert:
    def convert(value: Decimal | int) -> bytes:
        scaled = Decimal(value).scaleb(scale, _EXACT)
        unscaled = int(scaled)
        if unscaled != scaled:
            raise ValueError
        return unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)

    return convert


def _date(days: int) -> int:
    """Days since 2000 to days since 1970; infinity keeps its extreme value."""
    return days if days in (2**31 - 1, -(2**31)) else days + _DAYS_TO_2000


def _timestamp(unit: int) -> _Convert:
    def convert(micros: int) -> int:
        if micros in (2**63 - 1, -(2**63)):
            return micros
        return (micros + _MICROS_TO_2000) // unit

    return convert


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, UUID | int | float | Decimal) else value


def _same(value: Any) -> Any:
    return value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
