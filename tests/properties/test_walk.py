"""The walk over a block's columns, or an open record, and the decoder part company nowhere.

What the walk has counted is what the decoder makes, so the two must step over every byte alike.
Here both are given what Avro allows and nobody writes, and what Avro does not allow.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from random import Random
from typing import Any

import fastavro
import pytest

from fabric.model.errors import Malformed
from fabric.model.schema import RowSchema
from fabric.model.walk import walk_columns

LEFT = 10_000
TRIES = 6_000
BYTES = bytes.fromhex("00000000000101020202040406088081827fff61")
EMPTY = {"type": "record", "name": "Empty", "fields": []}
PAIR = {
    "type": "record",
    "name": "a.Pair",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "none", "type": "null"},
        {"name": "pick", "type": ["null", "int", {"type": "array", "items": "long"}]},
    ],
}
SHORT = {"type": "fixed", "name": "X", "namespace": "", "size": 1}
LONG = {"type": "fixed", "name": "X", "size": 3}
INNER = {
    "type": "record",
    "name": "Q",
    "namespace": "",
    "fields": [{"name": "x", "type": {"type": "array", "items": "X"}}],
}
KINDS: dict[str, list[Any]] = {
    "texts": ["string", ["null", "string"], {"type": "array", "items": "string"}],
    "numbers": [
        "int",
        "boolean",
        ["int", "double", "float"],
        {"type": "array", "items": "boolean"},
    ],
    "lists": [{"type": "array", "items": {"type": "array", "items": ["null", "int"]}}],
    "maps": [
        {"type": "map", "values": "bytes"},
        {"type": "map", "values": {"type": "array", "items": "string"}},
    ],
    "unions": [["null", "int", "string"], {"type": "array", "items": ["null"]}],
    "records": [{"type": "array", "items": PAIR}, "a.Pair", EMPTY, ["null", "Empty"]],
    "named": [
        {"type": "enum", "name": "E", "symbols": ["a", "b"]},
        {"type": "fixed", "name": "F", "size": 2},
        {"type": "array", "items": "E"},
        {"type": "map", "values": "F"},
        {"type": "fixed", "name": "Nothing", "size": 0},
    ],
    "logical": [
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "array", "items": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
    "names of the same sound": [
        SHORT,
        {
            "type": "record",
            "name": "a.Y",
            "fields": [{"name": "z", "type": LONG}, {"name": "w", "type": INNER}],
        },
    ],
}


def a_schema(kinds: list[Any]) -> RowSchema:
    fields = [{"name": "id", "type": "long"}]
    fields += [{"name": f"c{at}", "type": kind} for at, kind in enumerate(kinds)]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


class Writer:
    """Writes datums of parsed types in every form, honest or not, that a decoder may take."""

    def __init__(self, rng: Random, oddness: float, named: dict[str, Any]) -> None:
        self._rng = rng
        self._oddness = oddness
        self._named = named

    def is_odd(self) -> bool:
        return self._rng.random() < self._oddness

    def number(self, value: int) -> bytes:
        """Zigzag, sometimes longer than it need be, and sometimes longer than it may be."""
        rest, out = (value << 1) ^ (value >> 63), bytearray()
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
        if self.is_odd():
            out[-1] |= 0x80
            out += b"\x80" * self._rng.choice((0, 0, 1, 5, 9)) + b"\0"
        return bytes(out)

    def text(self) -> bytes:
        data = self._rng.choice((b"", b"", b"a", b"\0\0", b"\0\2a", b"x" * 70))
        return self.number(-1 if self.is_odd() else len(data)) + data

    def items(self, item: Any, many: int) -> bytes:
        """An array's items in one block, or in several, with their size in bytes or without."""
        out = b""
        while many:
            here = self._rng.randint(1, many) if self.is_odd() else many
            block = b"".join(item() for _ in range(here))
            if self.is_odd():
                size = self._rng.choice((len(block), 0, 2**40))
                out += self.number(-here) + self.number(size) + block
            else:
                out += self.number(here) + block
            many -= here
        return out + self.number(0)

    def datum(self, kind: Any) -> bytes:
        if isinstance(kind, list):
            at = self._rng.randrange(len(kind))
            index = at - len(kind) if self.is_odd() else at
            return self.number(index) + self.datum(kind[at])
        if isinstance(kind, str):
            return self._simple(kind)
        few = self._rng.choice((0, 0, 1, 2, 3))
        match kind["type"]:
            case "array":
                return self.items(lambda: self.datum(kind["items"]), few)
            case "map":
                return self.items(lambda: self.text() + self.datum(kind["values"]), few)
            case "record":
                return b"".join(self.datum(field["type"]) for field in kind["fields"])
            case "enum":
                return self.number(self._rng.choice((0, 1, -1)))
            case _:
                return bytes(kind["size"])

    def _simple(self, kind: str) -> bytes:
        match kind:
            case "null":
                return b""
            case "boolean":
                return self._rng.choice((b"\0", b"\1", b"\7"))
            case "int" | "long":
                return self.number(self._rng.choice((0, 1, -1, 64, 2**31, -(2**63))))
            case "float" | "double":
                return bytes(4 if kind == "float" else 8)
            case "bytes" | "string":
                return self.text()
            case _:
                return self.datum(self._named[kind])

    def column(self, kind: Any, many: int) -> bytes:
        """A column of so many values."""
        if kind == "bytes":
            return self.text()
        if isinstance(kind, list):
            if self._rng.random() < 0.5:
                return self.number(0) + self.text()
            return self.number(1) + self.column(kind[1], many)
        return self.items(lambda: self.datum(kind["items"]), many)


def wanted(schema: RowSchema) -> tuple[list[Any], dict[str, Any]]:
    """The types of the columns as the decoder has them, and the types that have names."""
    codecs = (schema.rows_codec, schema.keys_codec)
    named = {name: kind for codec in codecs for name, kind in codec["__named_schemas"].items()}
    return [field["type"] for codec in codecs for field in codec["fields"]], named


def columns_of(schema: RowSchema, rng: Random) -> Iterator[tuple[bytes, int]]:
    """Bytes that may be columns of the schema, and of how many rows."""
    kinds, named = wanted(schema)
    while True:
        rows = rng.randrange(4)
        writer = Writer(rng, rng.choice((0, 0.02, 0.2)), named)
        yield spoilt(b"".join(writer.column(kind, rows) for kind in kinds), rng), rows


def changes_of(schema: RowSchema, rng: Random) -> Iterator[bytes]:
    """Bytes that may be open changes of the schema."""
    codec = schema.change_codec
    while True:
        writer = Writer(rng, rng.choice((0, 0.02, 0.2)), codec["__named_schemas"])
        yield spoilt(writer.datum(codec), rng)


def spoilt(data: bytes, rng: Random) -> bytes:
    """The same, or with other bytes in places, or without its end."""
    made = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 3))):
        made[rng.randrange(len(made))] = rng.choice(BYTES)
    return bytes(made[: rng.randrange(len(made)) if rng.random() < 0.1 else None])


def decoded(data: bytes, schema: RowSchema) -> tuple[Any, int]:
    """What the decoder makes of it, and where it ends."""
    buffer = BytesIO(data)
    parts = [
        fastavro.schemaless_reader(buffer, codec, None)
        for codec in (schema.rows_codec, schema.keys_codec)
    ]
    return [column for part in parts for column in part.values()], buffer.tell()


def made(value: Any) -> int:
    """How many values a decoder has made, at the least: one of a map may stand for many."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(made, inner))


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_walk_and_decoder_end_at_the_same_byte_whatever_the_bytes_are(kinds: list[Any]) -> None:
    """MUST-4.15: what the walk takes is counted by it, all that the decoder makes of it."""
    schema, both = a_schema(kinds), 0
    count = len(schema.columns) + len(schema.key_columns)
    for data, rows in islice(columns_of(schema, Random(7)), TRIES):
        try:
            end, left = walk_columns(
                data, 0, left=LEFT, strides=schema.strides, counts=[rows] * count
            )
        except Malformed:
            continue
        try:
            columns, at = decoded(data, schema)
        except (UnicodeDecodeError, IndexError):  # of a text, and of an enum's symbols
            continue
        both += 1
        assert at == end, data.hex()
        values = sum(made(column) - 1 for column in columns if isinstance(column, list))
        assert values <= LEFT - left, data.hex()
    assert both > TRIES / 50


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_no_open_record_makes_more_values_than_were_counted(kinds: list[Any]) -> None:
    """MUST-8.3."""
    schema, both = a_schema(kinds), 0
    for data in islice(changes_of(schema, Random(7)), TRIES):
        try:
            counted = schema.open_count.of(data, 0)
        except Malformed:
            continue
        try:
            change: Any = fastavro.schemaless_reader(BytesIO(data), schema.change_codec, None)
        except Exception:  # noqa: BLE001, S112  # of a row that needs no walk, it may be any
            continue
        both += 1
        assert counted <= schema.open_count.most(len(data)), data.hex()
        values = made(change["row"]) + made(change["key"]) + len(change["absent"])
        assert values <= counted, data.hex()
    assert both > TRIES / 50
