"""fabric.database.postgresql_write"""

from typing import Any

import pytest

from fabric.model.change import Op, Row
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import Applying, applying, item, schema, target
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "time", "type": ["null", {"type": "long", "logicalType": "time-micros"}]},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
    {"name": "local", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
    {
        "name": "price",
        "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}],
    },
    {"name": "small", "type": ["null", "int"]},
    {"name": "ratio", "type": ["null", "float"]},
    {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
    {"name": "doc", "type": ["null", {"type": "map", "values": "bytes"}]},
    {"name": "mood", "type": ["null", {"type": "enum", "name": "Mood", "symbols": ["good"]}]},
]


def uuid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


def full(number: int) -> Row:
    return {
        "id": uuid(number),
        "day": 2**31 - 1,
        "time": 86_400_000_000,
        "at": -1,
        "local": -(2**63),
        "price": (-12_345).to_bytes(2, "big", signed=True),
        "small": -number,
        "ratio": 0.5,
        "tags": ["a", None, 'b "c"', "{}"],
        "doc": {"a": b"\x00"},
        "mood": "good",
    }


def empty(number: int) -> Row:
    return {**dict.fromkeys(full(0)), "id": uuid(number)}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("count", [2, 600])
async def test_every_type_is_written_both_ways(database: str, count: int, existing: bool) -> None:
    """Few rows go as arrays, many by COPY; the values in the table are the same."""
    application = Application(database)
    if existing:
        await application.run(
            "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE items (id text PRIMARY KEY, day date,"
            ' "time" time, at timestamptz(3), local timestamp, price numeric(12, 4),'
            " small smallint, ratio double precision, tags text[], doc json, mood mood)"
        )
    of = schema(*FIELDS)
    async with applying(database, target(of)) as sink:
        await sink.upsert(*(full(n) for n in range(count)), empty(count))
        await sink.upsert(*(full(n) for n in range(count)))
        wanted = (
            "day = 'infinity' AND time = '24:00' AND at = '1969-12-31 23:59:59.999+00'"
            " AND local = '-infinity' AND price = -12.345 AND ratio = 0.5 AND mood = 'good'"
        )
        rows = await application.rows(f"(SELECT count(*) AS n FROM items WHERE {wanted}) s")
        assert rows == [{"n": count}]
        blank = await application.rows("(SELECT count(*) AS n FROM items WHERE tags IS NULL) s")
        assert blank == [{"n": 1}]
        await sink.apply((Op.DELETE, [{"id": uuid(n)} for n in range(count + 1)]))
        assert await application.rows("(SELECT count(*) AS n FROM items) s") == [{"n": 0}]


async def test_two_large_runs_of_one_block_do_not_mix(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(*(item(n) for n in range(1200)))
        done = await sink.apply(
            (Op.DELETE, [{"id": n} for n in range(600)]),
            (Op.UPSERT, [item(n, "new") for n in range(5_000, 5_700)]),
            (Op.UPSERT, [item(n, "later") for n in range(600, 1100)]),
        )
        assert done.applied == 1800
    rows = await Application(database).rows("items")
    names = [row["name"] for row in rows]
    assert (len(rows), names.count("new"), names.count("later")) == (1300, 700, 500)


async def changed(sink: Applying, *keys: int) -> Any:
    rows = [{**item(key, "new"), "note": None} for key in keys]
    return await sink.upsert(*rows, absent=("note",))


async def test_an_update_in_part_of_a_row_that_is_missing_is_parked(database: str) -> None:
    async with applying(database) as sink:
        await sink.upsert(item(1, "old", "kept"))
        done = await changed(sink, 1, 2)
        assert (done.applied, done.quarantined) == (1, 1)
        (parked,) = await sink.sink.quarantined(None)
        assert parked.reason == "a row to update is missing"
    assert await Application(database).rows("items") == [item(1, "new", "kept")]


async def test_while_a_snapshot_runs_a_missing_row_may_come_later(database: str) -> None:
    async with applying(database) as sink:
        await sink.apply((Op.SNAPSHOT_BEGIN, []))
        done = await changed(sink, 2)
        assert (done.applied, done.quarantined) == (1, 0)
        await sink.apply((Op.UPSERT, [item(2, "new", "whole")]), (Op.SNAPSHOT_END, []))
    assert await Application(database).rows("items") == [item(2, "new", "whole")]


async def test_a_table_of_keys_alone_is_written(database: str) -> None:
    keys = schema({"name": "id", "type": "long"})
    async with applying(database, target(keys)) as sink:
        await sink.upsert({"id": 1}, {"id": 2})
        await sink.upsert({"id": 1})
        await sink.apply((Op.DELETE, [{"id": 2}]))
    assert await Application(database).rows("items") == [{"id": 1}]
