"""Targets of fabric.model: canonical CBOR, names, schemas, and datums of Avro."""

import json
from collections.abc import Iterator
from pathlib import Path

from fabric.agent import open_form
from fabric.database.datum import decode_change, encode_change
from fabric.model import canonical
from fabric.model.block import Block, pack, unpack
from fabric.model.change import Op, Run, Sequence
from fabric.model.errors import DeniedError, PeerError
from fabric.model.label import Label
from fabric.model.limits import CBOR_ITEMS_MAX
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.model.schema import RowSchema
from tests.fakes.platform import OPEN, dataset
from tests.fuzz.target import Target, cut, join

VECTORS = Path(__file__).parents[1] / "vectors"
STREAM = Stream(Origin.parse("G01/registry/main"), Topic.parse("secret.G01.rows"), 0)
AFTER, UPTO = Sequence(1, 0, 0), Sequence(1, 2**40, 0)
ROW = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "code", "type": "string"},
        {"name": "small", "type": "int"},
        {"name": "flag", "type": ["null", "boolean", "double"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "list", "type": {"type": "array", "items": ["null", "int"]}},
        {"name": "map", "type": {"type": "map", "values": "bytes"}},
    ],
}
WIDE = RowSchema.parse(json.dumps(ROW), ("id", "code"))
SALARY = dataset(OPEN)


def vectors(kind: str) -> Iterator[bytes]:
    """Values of the vectors of one kind."""
    for path in sorted(VECTORS.glob("*.json")):
        vector = json.loads(path.read_text())
        if vector.get("kind") == kind:
            yield bytes.fromhex(vector["value"])


def _cbor(data: bytes) -> None:
    assert canonical.encode(canonical.decode(data, items_max=CBOR_ITEMS_MAX)) == data


def _names(data: bytes) -> None:
    text = data.decode(errors="replace")
    for kind in (HostId, Origin, Topic, Label):
        try:
            found = kind.parse(text)
        except PeerError:
            continue
        assert str(found) == text


def _schema(data: bytes) -> None:
    schema = RowSchema.parse(data, ("id",))
    assert len(schema.fingerprint) == 32
    again = RowSchema.parse(json.dumps(schema.declared), ("id",))
    assert (again.fingerprint, again.fields) == (schema.fingerprint, schema.fields)


def _schema_and_datum(data: bytes) -> None:
    """Whatever schema we take, a few bytes under it must not cost much."""
    text, _, datum = data.partition(b"\0")
    schema = RowSchema.parse(text, ("id",))
    unpack(datum, schema, stream=STREAM, after=AFTER, upto=UPTO)


def _block(data: bytes) -> None:
    block = unpack(data, WIDE, stream=STREAM, after=AFTER, upto=UPTO)
    again = unpack(pack(block, WIDE), WIDE, stream=STREAM, after=AFTER, upto=UPTO)
    assert repr(again) == repr(block)  # by repr, because NaN is not itself


def rows() -> list[dict[str, object]]:
    """Rows of WIDE with every branch of it."""
    row = {"id": 1, "code": "x", "small": -3, "flag": None, "kind": "b", "hash": b"four"}
    row |= {"list": [None, 7], "map": {"k": b"v"}}
    return [row, {**row, "id": 2, "flag": True, "list": []}, {**row, "id": 3, "flag": 0.5}]


def blocks() -> Iterator[bytes]:
    """A block of each kind of run, packed."""
    keys: list[dict[str, object]] = [{"id": 1, "code": "x"}]
    for runs in (
        (),
        (Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=1, rows=rows(), absent=("map",)),),
        (
            Run(op=Op.DELETE, position=5, ordinal=1, commit_us=1, rows=keys),
            Run(op=Op.TRUNCATE, position=5, ordinal=2, commit_us=1, rows=[]),
            Run(op=Op.UPSERT, position=9, ordinal=1, commit_us=-1, rows=rows()),
        ),
    ):
        block = Block(stream=STREAM, after=AFTER, upto=UPTO, runs=runs)
        yield pack(block, WIDE)


def _open_record(data: bytes) -> None:
    open_form.decode(data, SALARY)


def open_records() -> Iterator[bytes]:
    """An upsert, a delete and a mark in the open form."""
    stream = Stream(SALARY.producers[0], SALARY.topic, 0)
    runs = (
        Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=1, rows=[{"id": 1, "text": "t"}]),
        Run(op=Op.DELETE, position=6, ordinal=1, commit_us=1, rows=[{"id": 1}]),
        Run(op=Op.TRUNCATE, position=7, ordinal=1, commit_us=1, rows=[]),
    )
    yield from open_form.encode(Block(stream=stream, after=AFTER, upto=UPTO, runs=runs), SALARY)


def _stored_change(data: bytes) -> None:
    decode_change(data, SALARY.schema, OPEN)


def stored_changes() -> Iterator[bytes]:
    """The same as a target's quarantine keeps them."""
    for value in open_records():
        yield encode_change(open_form.decode(value, SALARY), SALARY.schema)


def _recursive() -> bytes:
    return (
        b'{"type":"record","name":"R","fields":[{"name":"id","type":"long"},'
        b'{"name":"r","type":["null","R"]}]}'
    )


def _nulls() -> bytes:
    return (
        b'{"type":"record","name":"R","fields":[{"name":"id","type":"long"},'
        b'{"name":"n","type":{"type":"array","items":"null"}}]}\0\0\2\2\xfe\xff\xff\xff\x0f'
    )


def schemas() -> Iterator[bytes]:
    """Good schemas, and those that decoders die of."""
    yield json.dumps({**ROW, "doc": "d"}).encode()
    for path in sorted((VECTORS.parents[1] / "schemas").glob("*.avsc")):
        yield path.read_bytes()
    yield _recursive()


def schemas_and_datums() -> Iterator[bytes]:
    """A schema, a zero byte, and a block's plaintext under it."""
    text = b'{"type":"record","name":"S","fields":[{"name":"id","type":"int"}]}'
    small = RowSchema.parse(text, ("id",))
    run = Run(op=Op.UPSERT, position=5, ordinal=1, commit_us=0, rows=[{"id": 1}, {"id": 2}])
    block = Block(stream=STREAM, after=AFTER, upto=UPTO, runs=(run,))
    yield json.dumps(small.declared).encode() + b"\0" + pack(block, small)
    yield _nulls()
    yield _recursive() + b"\0" + b"\2" * 4_000


TARGETS = [
    Target(
        name="cbor",
        parse=_cbor,
        seeds=lambda: [canonical.encode({1: [2**40, b"x", "y"], 9: {}}), *vectors("cbor")],
    ),
    Target(
        name="names",
        parse=_names,
        seeds=lambda: [b"G01/registry/a1", b"secret.G01.A.notes", b"secret+personal-data+x"],
        bytes_max=256,
    ),
    Target(name="schema", parse=_schema, seeds=schemas),
    Target(name="schema-and-datum", parse=_schema_and_datum, seeds=schemas_and_datums),
    Target(name="block", parse=_block, seeds=blocks),
    Target(
        name="open-record",
        parse=_open_record,
        seeds=open_records,
        families=(PeerError, DeniedError),
    ),
    Target(name="stored-change", parse=_stored_change, seeds=stored_changes),
]

__all__ = ["TARGETS", "cut", "join", "vectors"]
