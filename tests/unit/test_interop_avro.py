"""Two other implementations of Avro, PyPI's `avro` and Apache's in Java, read our datums.

The schemas are written here from docs/format.md, not taken from the code. Java also
writes each datum again, so that both ways are judged.
"""

import io
import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest
import zstandard

from fabric.agent.open_form import encode
from fabric.model.block import Block
from fabric.model.change import Op, Run, Sequence
from tests.fakes.platform import OPEN, ORIGIN, dataset
from tests.fakes.sealing import NOTES, STREAM, Party
from tests.vectors import judge

ROOT = Path(__file__).parents[2]
JARS = ROOT / ".cache/judges/lib"
JAVA_S_MAX = 90
ROW = NOTES.declared
KEY = {"type": "record", "name": "fabric.Key", "fields": [{"name": "id", "type": "long"}]}
SEQUENCE = [{"name": name, "type": "long"} for name in ("position", "ordinal", "commit_us")]
ABSENT = {"name": "absent", "type": {"type": "array", "items": "string"}}
RUN = {
    "type": "record",
    "name": "fabric.Run",
    "fields": [{"name": "op", "type": "int"}, *SEQUENCE, {"name": "count", "type": "int"}, ABSENT],
}
TEXTS = ["string", {"type": "array", "items": "string"}]
COLUMNS = [{"name": "id", "type": "bytes"}, {"name": "text", "type": TEXTS}]
NULLS = {"type": "array", "items": {"type": "array", "items": "int"}}
BLOCK = {
    "type": "record",
    "name": "fabric.Block",
    "fields": [
        {"name": "runs", "type": {"type": "array", "items": RUN}},
        {"name": "nulls", "type": NULLS},
        {"name": "rows", "type": {"type": "record", "name": "fabric.Rows", "fields": COLUMNS}},
        {"name": "keys", "type": {"type": "record", "name": "fabric.Keys", "fields": COLUMNS[:1]}},
    ],
}
CHANGE = {
    "type": "record",
    "name": "fabric.Change",
    "fields": [
        {"name": "origin", "type": "string"},
        {"name": "op", "type": "int"},
        {"name": "generation", "type": "long"},
        *SEQUENCE,
        ABSENT,
        {"name": "row", "type": ["null", ROW]},
        {"name": "key", "type": ["null", KEY]},
    ],
}
WRITTEN = Run(
    op=Op.UPSERT,
    position=100,
    ordinal=1,
    commit_us=1_700_000_000_000_000,
    rows=[{"id": -(2**40), "text": "ghi chú số một"}, {"id": 2, "text": ""}],
)
GONE = Run(op=Op.DELETE, position=101, ordinal=1, commit_us=7, rows=[{"id": 2}])
BEFORE = Sequence(1, 99, 0)


def blocks(stream: Any) -> Block:
    return Block(stream=stream, after=BEFORE, upto=Sequence(1, 101, 1), runs=(WRITTEN, GONE))


def change(op: int, ordinal: int, **fields: Any) -> dict[str, Any]:
    written = {"origin": str(ORIGIN), "op": op, "generation": 1, "absent": [], **fields}
    return {"position": 100 + op, "ordinal": ordinal, "row": None, "key": None, **written}


def open_records() -> list[tuple[bytes, dict[str, Any]]]:
    """Datums of the open form, behind the framing, and what they say."""
    opened = dataset(OPEN)
    values = encode(blocks(type(STREAM)(ORIGIN, OPEN, 0)), opened)
    assert {value[:5] for value in values} == {b"\0" + opened.schema_id.to_bytes(4)}
    said = [
        change(0, n, commit_us=WRITTEN.commit_us, row=row)
        for n, row in enumerate(WRITTEN.rows, start=1)
    ]
    said.append(change(1, 1, commit_us=7, key={"id": 2}))
    return list(zip((value[5:] for value in values), said, strict=True))


def sealed_plaintext(suite: str) -> tuple[bytes, dict[str, Any]]:
    """The plaintext of a sealed block, opened by the second reader, and what it says."""
    party = Party.make(suite=suite)
    data = party.seal(blocks(STREAM), party.start(party.draft())).data
    padded = judge.padded_plaintext(data, party.secret().private_bytes())
    coded = padded[4 : 4 + int.from_bytes(padded[:4])]
    plain = zstandard.ZstdDecompressor().decompress(coded)
    written = {"op": 0, "position": 100, "ordinal": 1, "commit_us": WRITTEN.commit_us, "count": 2}
    gone = {"op": 1, "position": 101, "ordinal": 1, "commit_us": 7, "count": 1}
    runs = [{**written, "absent": []}, {**gone, "absent": []}]
    rows = {"id": longs(-(2**40), 2), "text": "ghi chú số một\0"}
    return plain, {"runs": runs, "nulls": [], "rows": rows, "keys": {"id": longs(2)}}


def longs(*values: int) -> bytes:
    """A column of longs: eight bytes each, little-endian."""
    return b"".join(value.to_bytes(8, "little", signed=True) for value in values)


def cases() -> list[tuple[dict[str, Any], bytes, dict[str, Any]]]:
    sealed = [(BLOCK, *sealed_plaintext(suite)) for suite in ("hybrid", "hybrid-top")]
    return [*sealed, *((CHANGE, data, said) for data, said in open_records())]


def by_avro(folder: Path) -> None:
    for schema, data, said in cases():
        buffer = io.BytesIO(data)
        reader = avro.io.DatumReader(avro.schema.parse(json.dumps(schema)))
        assert reader.read(avro.io.BinaryDecoder(buffer)) == said
        assert buffer.read() == b""


def by_java(folder: Path) -> None:
    if not has_java_judge():
        message = "the judge in Java is missing: run deploy/setup (JDK 17 and Avro's jar)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    lines = []
    for number, (schema, data, _) in enumerate(cases()):
        path = folder / f"{number}.avsc"
        path.write_text(json.dumps(schema))
        lines.append(f"{path} {data.hex()}\n")
    program = ROOT / "tests/judges/java/ReadAvro.java"
    done = subprocess.run(
        ["java", "-cp", f"{JARS}/*", str(program)],
        input="".join(lines),
        capture_output=True,
        text=True,
        timeout=JAVA_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 2 * len(lines)
    for read, again, (_, data, expected) in zip(said[::2], said[1::2], cases(), strict=True):
        assert json.loads(read) == as_json(expected)
        assert bytes.fromhex(again) == data


def as_json(value: Any) -> Any:
    """As Avro's JSON shows it: a byte is the character of its number."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return value.decode("latin-1") if isinstance(value, bytes) else value


@cache
def has_java_judge() -> bool:
    if not any(JARS.glob("avro-*.jar")):
        return False
    listed = subprocess.run(
        ["java", "--list-modules"], capture_output=True, text=True, timeout=30, check=False
    )
    return "jdk.compiler" in listed.stdout


@pytest.mark.parametrize("judged", [by_avro, by_java])
def test_others_read_our_datums(judged: Callable[[Path], None], tmp_path: Path) -> None:
    """MUST-4.1, MUST-8.1: open changes, and the rows of sealed blocks of two hashes."""
    judged(tmp_path)
