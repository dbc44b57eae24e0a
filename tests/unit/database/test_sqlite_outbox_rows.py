"""fabric.database.sqlite_outbox_rows"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fabric.database import sqlite_outbox_rows as rows
from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.model.block import Block, pack
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.model.errors import DeniedError
from fabric.model.limits import BLOCK_BYTES_MAX, OPEN_RECORD_BYTES_MAX
from fabric.model.names import Origin, Stream
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, note, person

TABLES = {
    str(table.topic): table
    for table in (
        SourceTable(table="", topic=PEOPLE, schema=PEOPLE_SCHEMA),
        SourceTable(table="", topic=NOTES, schema=NOTES_SCHEMA),
    )
}


@pytest.fixture
async def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A file in which a note, a long one, a person and another long note wait."""
    box = SqliteOutbox(tmp_path / "outbox.db", [*TABLES.values()])
    await box.open(None)
    for number, size in enumerate((1, 100_000, 0, 100_001)):
        if size:
            await box.put(NOTES, Op.UPSERT, note("a", number, "x" * size))
        else:
            await box.put(PEOPLE, Op.DELETE, {"id": person(1)["id"]})
    await box.close()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        yield connection


def test_a_page_holds_what_waits_in_order_with_its_schema(file: sqlite3.Connection) -> None:
    found = rows.page(file, after=1, rows_max=2)
    assert [(row.id, row.topic) for row in found] == [(2, str(NOTES)), (3, str(PEOPLE))]
    changes = [rows.change_of(row, TABLES[row.topic], 9) for row in found]
    assert [(it.op, it.sequence) for it in changes] == [
        (Op.UPSERT, Sequence(9, 2, 1)),
        (Op.DELETE, Sequence(9, 3, 1)),
    ]
    assert changes[0].row == note("a", 1, "x" * 100_000)


def test_what_may_be_too_large_is_found_in_order_and_so_many_of_it(
    file: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row.id for row, _ in rows.large(file, TABLES)] == [2, 4]
    assert [row.id for row, _ in rows.large(file, {str(PEOPLE): TABLES[str(PEOPLE)]})] == []
    monkeypatch.setattr(rows, "_LOOKS_MAX", 1)
    assert [row.id for row, _ in rows.large(file, TABLES)] == [2]


def test_a_file_from_before_schemas_were_kept_is_left_alone(file: sqlite3.Connection) -> None:
    file.execute("ALTER TABLE fabric_outbox DROP COLUMN schema")
    assert [*rows.large(file, TABLES)] == []


def nested(items: object) -> RowSchema:
    fields = [{"name": "id", "type": "long"}, {"name": "many", "type": items}]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


def test_what_needs_no_packing_always_fits() -> None:
    """Nested records without a byte of their own are the most values that bytes stand for."""
    assert 2 * rows.small_bytes(NOTES_SCHEMA) < OPEN_RECORD_BYTES_MAX < BLOCK_BYTES_MAX
    inner: object = "boolean"
    row: object = True
    for depth in range(6):
        fields = [{"name": f"n{n}", "type": "null"} for n in range(30)]
        fields.append({"name": "in", "type": inner})
        inner = {"type": "record", "name": f"L{depth}", "fields": fields}
        row = {"in": row, **{f"n{n}": None for n in range(30)}}
    schema = nested({"type": "array", "items": inner})
    small = rows.small_bytes(schema)
    pack(_alone({"id": 1, "many": [row] * small}), schema)
    with pytest.raises(DeniedError):
        pack(_alone({"id": 1, "many": [row] * (2 * small)}), schema)


def _alone(row: dict[str, object]) -> Block:
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=1, rows=[row])
    stream = Stream(Origin.parse("G01/registry/main"), NOTES, 0)
    return Block(stream=stream, after=ZERO, upto=Sequence(1, 1, 1), runs=(run,))
