"""One change as bytes, for quarantine and outbox: the Avro datum of the open form.

What waits there may outlive its dataset's schema, so each store keeps the schema that a
change was written with (`Written`) and the change is read by Avro's resolution: fields by
their names, new ones by their defaults.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import fastavro

from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import Malformed
from fabric.model.names import Origin, Topic
from fabric.model.schema import RowSchema

_SCHEMAS_KEPT = 16
"""Schemas that stay parsed: a store holds changes of few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The schema that changes were written with, as a store keeps it once for all of them.

    Attributes:
        id: SHA-256 of `text`, 32 bytes.
        text: JSON of the declared schema and its key.
    """

    id: bytes
    text: str


@lru_cache(maxsize=_SCHEMAS_KEPT)
def written(schema: RowSchema) -> Written:
    """What to keep beside a change of this schema."""
    text = json.dumps({"key": schema.key, "schema": schema.declared}, separators=(",", ":"))
    return Written(id=hashlib.sha256(text.encode()).digest(), text=text)


def encode_change(change: Change, schema: RowSchema, *, exact: bool = False) -> bytes:
    """Write a change; raises Malformed when its row does not fit the schema.

    Args:
        exact: refuse fields that the schema lacks or the row leaves out, at every depth:
            else the former are dropped and the latter null.
    """
    out = BytesIO()
    datum = {
        "origin": str(change.origin),
        "op": int(change.op),
        "generation": change.sequence.generation,
        "position": change.sequence.position,
        "ordinal": change.sequence.ordinal,
        "commit_us": change.commit_us,
        "absent": list(change.absent),
        "row": change.row if change.op is Op.UPSERT else None,
        "key": change.row if change.op is Op.DELETE else None,
    }
    try:
        fastavro.schemaless_writer(out, schema.change_codec, datum, strict=exact)
    except Exception:  # noqa: BLE001  # fastavro raises whatever the value raised, and quotes it
        raise Malformed("row does not fit the schema") from None
    return out.getvalue()


def decode_change(data: bytes, schema: RowSchema, topic: Topic, *, by: str | None = None) -> Change:
    """Read what `encode_change` wrote.

    Args:
        schema: today's; the row has its fields.
        by: `Written.text` of the schema that the change was written with. None when nobody
            kept it: then it must be today's, which bytes alone cannot always show.

    Raises:
        Malformed: the bytes are not one change of that schema, or today's cannot read it.
    """
    buffer = BytesIO(data)
    try:
        if by is None or by == written(schema).text:
            datum: Any = fastavro.schemaless_reader(buffer, schema.change_codec, None)
        else:
            datum = fastavro.schemaless_reader(buffer, _writer(by).change_codec, _reader(schema))
        change = Change(
            topic=topic,
            origin=Origin.parse(datum["origin"]),
            op=Op(datum["op"]),
            sequence=Sequence(datum["generation"], datum["position"], datum["ordinal"]),
            commit_us=datum["commit_us"],
            row=datum["row"] if datum["row"] is not None else datum["key"],
            absent=_absent(datum["absent"], schema),
        )
    except Malformed:
        raise
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("stored change does not fit the dataset's schema") from exc
    if buffer.read(1):
        raise Malformed("stored change does not fit the dataset's schema: bytes are left over")
    return change


@lru_cache(maxsize=_SCHEMAS_KEPT)
def _writer(text: str) -> RowSchema:
    kept = json.loads(text)
    return RowSchema.parse(json.dumps(kept["schema"]), tuple(kept["key"]))


@lru_cache(maxsize=_SCHEMAS_KEPT)
def _reader(schema: RowSchema) -> Any:
    """Today's schema with the aliases and defaults that resolution needs.

    Its logical types do no harm: fastavro goes by the writer's, which are removed.
    """
    parsed: Any = fastavro.parse_schema(schema.change_declared, named_schemas={})
    _set_defaults(parsed, {})
    return parsed


def _set_defaults(kind: Any, named: dict[str, Any]) -> None:
    """Make the defaults of a parsed schema physical: JSON writes bytes as text."""
    if isinstance(kind, list):
        for branch in kind:
            _set_defaults(branch, named)
    elif isinstance(kind, dict):
        if "name" in kind:
            named[kind["name"]] = kind
        for field in kind.get("fields", ()):
            _set_defaults(field["type"], named)
            if "default" in field:
                field["default"] = _default(field["type"], field["default"], named)
        for inner in (kind.get("items"), kind.get("values")):
            _set_defaults(inner, named)


def _default(kind: Any, value: Any, named: dict[str, Any]) -> Any:
    if isinstance(kind, list):  # the default is of the first branch
        return None if value is None else _default(kind[0], value, named)
    kind = named.get(kind, kind) if isinstance(kind, str) else kind
    name = kind["type"] if isinstance(kind, dict) else kind
    if name in ("bytes", "fixed"):
        return value.encode("latin-1")
    if name == "array":
        return [_default(kind["items"], item, named) for item in value]
    if name == "map":
        return {key: _default(kind["values"], item, named) for key, item in value.items()}
    if name == "record":
        return {
            field["name"]: _default(field["type"], value[field["name"]], named)
            if field["name"] in value
            else field["default"]
            for field in kind["fields"]
        }
    return value


def _absent(names: list[str], schema: RowSchema) -> tuple[str, ...]:
    """Absent columns by today's names; those that are gone today are left out."""
    there = set(names)
    return tuple(
        field["name"]
        for field in schema.declared["fields"]
        if there & {field["name"], *field.get("aliases", ())}
    )
