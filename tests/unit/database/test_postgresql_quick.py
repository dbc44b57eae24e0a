"""fabric.database.postgresql_quick"""

from datetime import date, timedelta

import pytest

from fabric.database.postgresql_quick import rows_of
from fabric.database.postgresql_write import COPY_ROWS_MIN
from fabric.model.block import Block
from fabric.model.change import MARKS, ZERO, Op, Row, Run, end_of
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import applying, schema, target
from tests.contract.postgresql_world import Application
from tests.contract.sink_suite import stream

database = postgresql_world.database
_DAY = {"type": "int", "logicalType": "date"}


def block(*runs: tuple[Op, list[Row]], absent: tuple[str, ...] = ()) -> Block:
    made = [
        Run(op=op, position=number, ordinal=1, commit_us=0, rows=rows, absent=absent)
        for number, (op, rows) in enumerate(runs, 1)
    ]
    return Block(stream=stream(), after=ZERO, upto=end_of(1, 99), runs=tuple(made))


class Table:
    """As much of a target table as the choice needs."""

    target = target(schema({"name": "id", "type": "int"}, {"name": "a", "type": "int"}))


def rows(*runs: tuple[Op, list[Row]], absent: tuple[str, ...] = ()) -> object:
    return rows_of(block(*runs, absent=absent), Table())  # type: ignore[arg-type]  # the target alone


def test_upserts_are_for_the_quick_way_each_key_once() -> None:
    first, again = {"id": 1, "a": 1}, {"id": 1, "a": 2}
    assert rows((Op.UPSERT, [first]), (Op.UPSERT, [{"id": 2, "a": 0}, again])) == [
        {"id": 2, "a": 0},
        again,
    ]


def test_nothing_else_is() -> None:
    row: Row = {"id": 1, "a": 1}
    assert rows() is None
    assert rows((Op.UPSERT, [row]), (Op.DELETE, [{"id": 2}])) is None
    for mark in MARKS:
        assert rows((mark, []), (Op.UPSERT, [row])) is None
    assert rows((Op.UPSERT, [row]), absent=("a",)) is None
    many: list[Row] = [{"id": n, "a": n} for n in range(COPY_ROWS_MIN)]
    assert rows((Op.UPSERT, many)) is None
    assert rows((Op.UPSERT, many[1:])) is not None


@pytest.mark.integration
@pytest.mark.parametrize("names", [["id"], ["id", "day"]])
async def test_a_key_alone_and_a_value_that_is_converted_are_written(
    names: list[str], database: str
) -> None:
    types = {"id": {"type": "string", "logicalType": "uuid"}, "day": _DAY}
    of = schema(*({"name": name, "type": types[name]} for name in names))
    full: list[Row] = [
        {"id": f"00000000-0000-0000-0000-{number:012}", "day": number} for number in range(3)
    ]
    async with applying(database, target(of)) as sink:
        for row in (*full, {**full[0], "day": 9}):
            done = await sink.upsert({name: row[name] for name in names})
            assert (done.applied, done.quarantined) == (1, 0)
        assert sink.sink._plain == {sink.stream}
    found = await Application(database).rows("items")
    assert {str(row["id"]) for row in found} == {row["id"] for row in full}
    if "day" in names:
        days = {date(1970, 1, 1) + timedelta(days=n) for n in (9, 1, 2)}
        assert {row["day"] for row in found} == days  # type: ignore[comparison-overlap]  # as SQL has them
