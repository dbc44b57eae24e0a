import asyncio
import contextlib
import json
import math
import sqlite3
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fabric.database import sqlite_outbox
from fabric.database.sqlite import SqliteOutbox
from fabric.model.change import Change, Op, Row, Sequence
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.ports import Captured, Event, Reached, SourceTable
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, note, person

TABLES = [
    SourceTable(table="", topic=PEOPLE, schema=PEOPLE_SCHEMA),
    SourceTable(table="", topic=NOTES, schema=NOTES_SCHEMA),
]
LONG = "x" * 200_000


def outbox(folder: Path) -> SqliteOutbox:
    return SqliteOutbox(folder / "agent.db", TABLES)


async def take(events: AsyncIterator[Event]) -> tuple[list[Captured], Reached]:
    """Everything up to the next Reached."""
    found: list[Captured] = []
    async with asyncio.timeout(12):
        async for event in events:
            if isinstance(event, Reached):
                return found, event
            found.append(event)
    raise AssertionError


async def test_what_is_put_is_read_in_order_under_the_sequence_it_was_given(
    tmp_path: Path,
) -> None:
    box = outbox(tmp_path)
    opened = await box.open(None)
    given = [
        await box.put(PEOPLE, Op.UPSERT, person(1)),
        await box.put(NOTES, Op.UPSERT, note("a", 1)),
        await box.put(PEOPLE, Op.DELETE, {"id": 1}),
    ]
    found, reached = await take(box.read())
    assert [
        (e.topic, e.run.op, e.run.rows, Sequence(opened.generation, e.run.position, e.run.ordinal))
        for e in found
    ] == [
        (PEOPLE, Op.UPSERT, [person(1)], given[0]),
        (NOTES, Op.UPSERT, [note("a", 1)], given[1]),
        (PEOPLE, Op.DELETE, [{"id": 1}], given[2]),
    ]
    assert reached.position == given[2].position
    assert given == sorted(given)
    await box.close()


async def test_a_put_wakes_the_reader(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    await box.open(None)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(take(box.read()))
        await asyncio.sleep(0)
        await box.put(PEOPLE, Op.UPSERT, person(1))
    assert len(reading.result()[0]) == 1
    await box.close()


async def test_what_was_not_released_comes_again_and_what_was_does_not(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    opened = await box.open(None)
    first = await box.put(PEOPLE, Op.UPSERT, person(1))
    _, reached = await take(box.read())
    await box.put(PEOPLE, Op.UPSERT, person(2))
    await box.release(first.position)
    await box.close()
    box = outbox(tmp_path)
    again = await box.open(reached.resume)
    assert (again.generation, again.position) == (opened.generation, first.position)
    found, _ = await take(box.read())
    assert [event.run.rows[0]["id"] for event in found] == [2]
    third = await box.put(PEOPLE, Op.UPSERT, person(3))
    assert third.position == first.position + 2
    await box.close()


async def test_a_change_that_is_read_lags_until_it_is_released(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    await box.open(None)
    await box.put(PEOPLE, Op.UPSERT, person(1))
    _, reached = await take(box.read())
    status = await box.status()
    assert status["lag_seconds"] > 0
    assert status["lag_bytes"] > 0
    await box.release(reached.position)
    status = await box.status()
    assert (status["lag_seconds"], status["lag_bytes"]) == (0, 0)
    await box.close()


async def test_what_an_earlier_life_had_acknowledged_does_not_lag(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    await box.open(None)
    await box.put(PEOPLE, Op.UPSERT, person(1))
    _, reached = await take(box.read())
    await box.close()
    box = outbox(tmp_path)
    await box.open(reached.resume)
    assert (await box.status())["lag_seconds"] == 0
    await box.close()


@pytest.mark.parametrize(
    "resume", [None, "", "{}", '{"kind": "outbox", "database": "00", "position": 0}']
)
async def test_without_a_token_of_ours_what_waits_is_sent_in_a_new_generation(
    tmp_path: Path, resume: str | None
) -> None:
    box = outbox(tmp_path)
    old = await box.open(None)
    await box.put(PEOPLE, Op.UPSERT, person(1))
    await box.close()
    box = outbox(tmp_path)
    new = await box.open(resume)
    assert new.generation > old.generation
    found, _ = await take(box.read())
    assert len(found) == 1
    assert found[0].run.position > new.position
    await box.close()


async def test_wrong_use_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    with pytest.raises(UsageError):
        await box.put(PEOPLE, Op.UPSERT, person(1))
    await box.open(None)
    for topic, op, row, reason in (
        (Topic("secret", "G01", "other"), Op.UPSERT, person(1), Reason.TOPIC_UNKNOWN),
        (PEOPLE, Op.TRUNCATE, {}, Reason.SCHEMA_MISMATCH),
        (PEOPLE, Op.UPSERT, {"id": 1}, Reason.SCHEMA_MISMATCH),
        (PEOPLE, Op.DELETE, {"id": "secret text"}, Reason.SCHEMA_MISMATCH),
    ):
        with pytest.raises(UsageError) as caught:
            await box.put(topic, op, row)
        assert caught.value.reason is reason
        assert "secret text" not in str(caught.value)
    assert (await box.status())["lag_bytes"] == 0
    await box.close()


async def test_a_field_that_lacks_or_is_unknown_is_named(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    await box.open(None)
    whole = note("a", 1)
    cases: list[tuple[Op, Row, str]] = [
        (Op.UPSERT, {"region": "a", "number": 1, "bdoy": "x"}, r"lacks 'body' and has 'bdoy'$"),
        (Op.UPSERT, {"region": "a", "number": 1}, r"whole row; this one lacks 'body'$"),
        (Op.UPSERT, {**whole, **{f"f{n}": "secret text" for n in range(9)}}, r"'f7', and 1 more$"),
        (Op.UPSERT, {**whole, "x" * 999: 1}, r"has 'x{64}'$"),
        (Op.DELETE, whole, r"key columns; this one has 'body'$"),
        (Op.DELETE, {"region": "a"}, r"lacks 'number'$"),
    ]
    for op, row, said in cases:
        with pytest.raises(UsageError, match=said) as caught:
            await box.put(NOTES, op, row)
        assert caught.value.reason is Reason.SCHEMA_MISMATCH
        assert "secret text" not in str(caught.value)
    assert (await box.status())["lag_bytes"] == 0
    await box.close()


async def test_what_was_released_is_gone_and_can_be_put_again_as_a_snapshot(
    tmp_path: Path,
) -> None:
    box = outbox(tmp_path)
    await box.open(None)
    old = await box.put(PEOPLE, Op.UPSERT, person(1))
    await box.release(old.position)
    await box.close()
    box = outbox(tmp_path)
    await box.open(None)
    given = [
        await box.put(PEOPLE, Op.SNAPSHOT_BEGIN, {}),
        await box.put(PEOPLE, Op.UPSERT, person(1)),
        await box.put(PEOPLE, Op.SNAPSHOT_END, {}),
    ]
    found, _ = await take(box.read())
    assert [(event.run.op, event.run.rows) for event in found] == [
        (Op.SNAPSHOT_BEGIN, []),
        (Op.UPSERT, [person(1)]),
        (Op.SNAPSHOT_END, []),
    ]
    assert [event.run.position for event in found] == [each.position for each in given]
    with pytest.raises(UsageError, match="empty row"):
        await box.put(PEOPLE, Op.SNAPSHOT_END, {"id": 1})
    await box.close()


async def test_a_full_outbox_is_overloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_outbox, "ROWS_MAX", 2)
    box = outbox(tmp_path)
    await box.open(None)
    for number in range(2):
        await box.put(PEOPLE, Op.UPSERT, person(number))
    with pytest.raises(UnavailableError) as caught:
        await box.put(PEOPLE, Op.UPSERT, person(3))
    assert caught.value.reason is Reason.OVERLOADED
    await box.release(1)
    await box.put(PEOPLE, Op.UPSERT, person(9))
    await box.close()


async def test_what_can_never_be_sent_is_refused_and_takes_no_place(tmp_path: Path) -> None:
    asked: list[tuple[Op, Sequence, Row | None]] = []

    def room(change: Change) -> None:
        asked.append((change.op, change.sequence, change.row))
        if change.row and change.row["body"] == LONG:
            raise DeniedError(Reason.TOO_LARGE, "is 7 bytes, more than one block holds")
        raise DeniedError(Reason.TOPIC_UNKNOWN, "the policy changes just now")

    box = SqliteOutbox(tmp_path / "agent.db", TABLES, room)
    opened = await box.open(None)
    first = await box.put(NOTES, Op.UPSERT, note("a", 1))
    with pytest.raises(UsageError, match=r"is 7 bytes.*; make it smaller") as caught:
        await box.put(NOTES, Op.UPSERT, {**note("a", 2), "body": LONG})
    assert (caught.value.reason, str(NOTES) in str(caught.value)) == (Reason.TOO_LARGE, True)
    last = await box.put(NOTES, Op.UPSERT, {**note("a", 3), "body": LONG[1:]})
    assert last.position == first.position + 1
    found, _ = await take(box.read())
    assert [event.run.position for event in found] == [first.position, last.position]
    assert [(op, sequence, row["number"]) for op, sequence, row in asked if row] == [
        (Op.UPSERT, Sequence(opened.generation, last.position, 1), number) for number in (2, 3)
    ]
    await box.close()


async def test_an_idle_outbox_says_what_it_has_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_outbox, "_SILENCE_S", 0.05)
    box = outbox(tmp_path)
    opened = await box.open(None)
    found, reached = await take(box.read())
    assert (found, reached.position) == ([], opened.position)
    assert (await box.status())["lag_seconds"] == 0
    await box.close()


SWAPPED = RowSchema.parse(
    json.dumps({**NOTES_SCHEMA.declared, "fields": NOTES_SCHEMA.declared["fields"][::-1]}),
    NOTES_SCHEMA.key,
)


def notes(folder: Path, schema: RowSchema) -> SqliteOutbox:
    return SqliteOutbox(folder / "agent.db", [SourceTable(table="", topic=NOTES, schema=schema)])


async def test_what_waits_is_read_by_the_schema_that_it_was_put_with(tmp_path: Path) -> None:
    box = notes(tmp_path, NOTES_SCHEMA)
    await box.open(None)
    await box.put(NOTES, Op.UPSERT, note("a", 1))
    await box.close()
    box = notes(tmp_path, SWAPPED)
    await box.open(None)
    await box.put(NOTES, Op.DELETE, {"region": "a", "number": 1})
    found, _ = await take(box.read())
    assert [event.run.rows for event in found] == [
        [note("a", 1)],
        [{"region": "a", "number": 1}],
    ]
    await box.close()


async def test_an_outbox_from_before_schemas_were_kept_still_opens(tmp_path: Path) -> None:
    box = notes(tmp_path, NOTES_SCHEMA)
    await box.open(None)
    await box.put(NOTES, Op.UPSERT, note("a", 1))
    await box.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as file:
        file.execute("DROP TABLE fabric_schemas")
        file.execute("ALTER TABLE fabric_outbox DROP COLUMN schema")
        file.commit()
    box = notes(tmp_path, NOTES_SCHEMA)
    await box.open(None)
    await box.put(NOTES, Op.UPSERT, note("a", 2))
    found, _ = await take(box.read())
    assert [event.run.rows for event in found] == [[note("a", 1)], [note("a", 2)]]
    await box.close()


_FLOATS = {"type": "array", "items": "float"}
_ITEM = {"type": "record", "name": "I", "fields": [{"name": "a", "type": ["null", "float"]}]}


@pytest.mark.parametrize(
    ("avro", "value"),
    [
        ("float", 1e39),
        ("float", -(2**200)),
        (["null", "float"], 1e39),
        (_FLOATS, [0.5, 1e39]),
        (_ITEM, {"a": 1e39}),
        (["null", "string", _FLOATS], [1e39]),
        ("int", 2**31),
        ("boolean", 2),
        ("string", "secret \ud800"),
        ("string", None),
        ({"type": "map", "values": "int"}, {"secret": 2**40}),
    ],
)
async def test_a_value_that_does_not_fit_names_its_column_only(
    tmp_path: Path, avro: object, value: Any
) -> None:
    fields = [{"name": "id", "type": "long"}, {"name": "v", "type": avro}]
    schema = RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))
    box = notes(tmp_path, schema)
    await box.open(None)
    with pytest.raises(UsageError, match=r"^schema_mismatch: .*column 'v'") as caught:
        await box.put(NOTES, Op.UPSERT, {"id": 1, "v": value})
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(UsageError, match="column 'id'"):
        await box.put(NOTES, Op.DELETE, {"id": "secret"})
    assert await box.status() == {
        "lag_seconds": 0.0,
        "lag_bytes": 0.0,
        "snapshot_rows": 0.0,
        "snapshot_total": 0.0,
    }
    await box.close()


async def test_floats_that_have_no_end_and_none_are_published(tmp_path: Path) -> None:
    fields = [{"name": "id", "type": "long"}, {"name": "v", "type": ["null", "float"]}]
    schema = RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))
    box = notes(tmp_path, schema)
    await box.open(None)
    given = [math.inf, -math.inf, 1, None]
    for number, value in enumerate(given):
        await box.put(NOTES, Op.UPSERT, {"id": number, "v": value})
    found, _ = await take(box.read())
    assert [event.run.rows[0]["v"] for event in found] == given
    await box.close()


async def test_what_today_cannot_be_read_is_held_with_the_remedy(tmp_path: Path) -> None:
    box = notes(tmp_path, NOTES_SCHEMA)
    await box.open(None)
    await box.put(NOTES, Op.UPSERT, note("a", 1))
    await box.close()
    more = {"name": "more", "type": "string"}
    fields = [*NOTES_SCHEMA.declared["fields"], more]
    text = json.dumps({**NOTES_SCHEMA.declared, "fields": fields})
    box = notes(tmp_path, RowSchema.parse(text, NOTES_SCHEMA.key))
    await box.open(None)
    with pytest.raises(UsageError, match="publish the one") as caught:
        await take(box.read())
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    await box.close()
