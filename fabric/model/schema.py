"""The shape of a dataset's rows: an Avro record, its key, and the codecs made from it.

Rows are carried in Avro's physical types: logical types (dates, timestamps,
decimals) stay in the declared schema for other tools and are removed for our
codec, because values travel as the integers and bytes they are.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import fastavro

from fabric.model.columns import Field, fields_of, record
from fabric.model.errors import Malformed, Reason, UsageError
from fabric.model.open_count import OpenCount
from fabric.model.schema_weight import weigh
from fabric.model.walk import Stride, strides_of

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_KEY_TYPES = frozenset({"int", "long", "string", "bytes", "boolean"})
_SCHEMA_BYTES_MAX = 256 * 1024

_RUN: Json = {
    "type": "record",
    "name": "fabric.Run",
    "fields": [
        {"name": "op", "type": "int"},
        {"name": "position", "type": "long"},
        {"name": "ordinal", "type": "long"},
        {"name": "commit_us", "type": "long"},
        {"name": "count", "type": "int"},
        {"name": "absent", "type": {"type": "array", "items": "string"}},
    ],
}
_FRONT: list[Json] = [
    {"name": "runs", "type": {"type": "array", "items": _RUN}},
    {"name": "nulls", "type": {"type": "array", "items": {"type": "array", "items": "int"}}},
]
FRONT_CODEC: Any = fastavro.parse_schema(
    {"type": "record", "name": "fabric.Front", "fields": _FRONT}, named_schemas={}
)
"""fastavro schema of what stands in a block before its columns, whatever the rows are."""


@dataclass(frozen=True, eq=False)
class RowSchema:
    """A dataset's Avro record with its key fields; build it with `parse`.

    Attributes:
        declared: the schema as the policy states it, logical types included.
        key: names of the key fields, in order; never null, physical type simple.
    """

    declared: dict[str, Any]
    key: tuple[str, ...]
    fields: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str | bytes, key: tuple[str, ...]) -> "RowSchema":
        """Read an Avro record schema.

        Raises:
            Malformed: not an Avro record, not bounded (fabric.model.schema_weight), or a
                key field is missing, nullable or not of a simple type.
        """
        if len(text) > _SCHEMA_BYTES_MAX:
            raise Malformed("schema is too large")
        try:
            declared = _strict_json(text)
            if not isinstance(declared, dict) or declared.get("type") != "record":
                raise Malformed("schema is not an Avro record")
            weigh(fastavro.parse_schema(_strict_json(text), named_schemas={}))
            types = {f["name"]: f["type"] for f in declared["fields"]}
        except Malformed:
            raise
        except Exception as exc:  # fastavro raises whatever the wrong shape makes it raise
            raise Malformed("schema does not parse as Avro") from exc
        for name in key:
            physical = _physical(types[name]) if name in types else None
            if not isinstance(physical, str) or physical not in _KEY_TYPES:
                raise Malformed("key field is missing, nullable or not of a simple type")
        if not key or len(set(key)) != len(key):
            raise Malformed("key must name at least one field, each once")
        schema = cls(declared, key, tuple(types))
        try:
            _ = schema.block_codec, schema.strides, schema.key_codec, schema.open_count
        except Exception as exc:  # as above
            raise Malformed("schema has a name that the fabric's own records use") from exc
        try:
            _ = schema.fingerprint
        except ValueError as exc:  # half a surrogate, or a number that JSON does not have
            raise Malformed("schema has text or numbers that cannot be written as JSON") from exc
        return schema

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the declared schema's canonical JSON (sorted keys, no white space)."""
        text = json.dumps(
            self.declared,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
        return hashlib.sha256(text.encode()).digest()

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """How a block holds whole rows."""
        parsed: Any = fastavro.parse_schema(_physical(self.declared), named_schemas={})
        return fields_of(parsed)

    @cached_property
    def key_columns(self) -> tuple[Field, ...]:
        """How a block holds keys; none of them may be null."""
        return tuple(Field(n, _physical(self.type_of(n)), nullable=False) for n in self.key)

    @cached_property
    def nodes(self) -> int:
        """As `weigh` gives them for the declared record."""
        return weigh(fastavro.parse_schema(_physical(self.declared), named_schemas={}))

    @cached_property
    def rows_codec(self) -> Any:
        """fastavro schema of a block's columns of rows."""
        return fastavro.parse_schema(record("fabric.Rows", self.columns), named_schemas={})

    @cached_property
    def keys_codec(self) -> Any:
        """fastavro schema of a block's columns of keys."""
        return fastavro.parse_schema(record("fabric.Keys", self.key_columns), named_schemas={})

    @cached_property
    def strides(self) -> tuple[Stride, ...]:
        """How to go over a block's columns, those of rows and then those of keys."""
        return (*strides_of(self.rows_codec), *strides_of(self.keys_codec))

    @cached_property
    def block_codec(self) -> Any:
        """fastavro schema of a block's whole plaintext, as any Avro library would take it.

        We read and write it in parts, so that what is in a part is known before it is read.
        """
        columns = [
            {"name": "rows", "type": record("fabric.Rows", self.columns)},
            {"name": "keys", "type": record("fabric.Keys", self.key_columns)},
        ]
        return fastavro.parse_schema(
            {"type": "record", "name": "fabric.Block", "fields": [*_FRONT, *columns]},
            named_schemas={},
        )

    @cached_property
    def key_codec(self) -> Any:
        """fastavro schema of the key fields alone."""
        keys = [{"name": n, "type": _physical(self.type_of(n))} for n in self.key]
        return fastavro.parse_schema(
            {"type": "record", "name": "fabric.Key", "fields": keys}, named_schemas={}
        )

    @cached_property
    def change_declared(self) -> dict[str, Any]:
        """Avro schema of one open `Change` as the schema registry serves it.

        `origin` comes first so that the gateway can compare its bytes without decoding.
        """
        key_fields = [{"name": n, "type": self.type_of(n)} for n in self.key]
        key = {"type": "record", "name": "fabric.Key", "fields": key_fields}
        return {
            "type": "record",
            "name": "fabric.Change",
            "fields": [
                {"name": "origin", "type": "string"},
                {"name": "op", "type": "int"},
                {"name": "generation", "type": "long"},
                {"name": "position", "type": "long"},
                {"name": "ordinal", "type": "long"},
                {"name": "commit_us", "type": "long"},
                {"name": "absent", "type": {"type": "array", "items": "string"}},
                {"name": "row", "type": ["null", self.declared], "default": None},
                {"name": "key", "type": ["null", key], "default": None},
            ],
        }

    @cached_property
    def change_codec(self) -> Any:
        """fastavro schema of one open `Change`, logical types removed."""
        return fastavro.parse_schema(_physical(self.change_declared), named_schemas={})

    @cached_property
    def open_count(self) -> OpenCount:
        """How the values of one open `Change` are counted."""
        return OpenCount(self.change_codec)

    def type_of(self, name: str) -> Any:
        """Declared Avro type of a field, as parsed JSON; raises UsageError when unknown."""
        for item in self.declared["fields"]:
            if item["name"] == name:
                return item["type"]
        raise UsageError(Reason.SCHEMA_MISMATCH, "field is not in the schema")

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSchema) and (self.fingerprint, self.key) == (
            other.fingerprint,
            other.key,
        )


def _strict_json(text: str | bytes) -> Any:
    """JSON in UTF-8 that two readers cannot read in two ways: no key stands twice."""
    return json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("schema has a key twice")
    return found


def _physical(schema: Any) -> Any:
    """The same type without logical types and foreign properties."""
    if isinstance(schema, list):
        return [_physical(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema["type"]
    if kind == "record":
        fields = [{"name": f["name"], "type": _physical(f["type"])} for f in schema["fields"]]
        named = {k: schema[k] for k in ("name", "namespace") if k in schema}
        return {"type": "record", **named, "fields": fields}
    if kind == "array":
        return {"type": "array", "items": _physical(schema["items"])}
    if kind == "map":
        return {"type": "map", "values": _physical(schema["values"])}
    if kind in ("enum", "fixed"):
        keep = ("type", "name", "namespace", "symbols", "size")
        return {k: schema[k] for k in keep if k in schema}
    return _physical(kind)
