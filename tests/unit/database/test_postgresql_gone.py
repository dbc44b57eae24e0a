"""fabric.database.postgresql_gone"""

from dataclasses import replace

import pytest

from fabric.database.postgresql_gone import given, noted
from fabric.database.postgresql_token import DONE, PENDING, Gone, Progress, Token
from fabric.database.postgresql_window import Key
from fabric.model.change import Op, Row, Run
from fabric.ports import Captured
from tests.contract.postgresql_cases import TOPIC, item

NAME = str(TOPIC)
EMPTY = Token(
    generation=1,
    system_id="7",
    timeline=1,
    slot="s",
    position=9,
    snapshots={NAME: Progress(table="public.items", fingerprint="f", state=DONE)},
)


def keys(count: int) -> set[Key]:
    return {(key,) for key in range(count)}


def run(op: Op, *rows: Row, absent: tuple[str, ...] = ()) -> Captured:
    made = Run(op=op, position=12, ordinal=1, commit_us=0, rows=rows, absent=absent)
    return Captured(topic=TOPIC, run=made)


def gone(token: Token) -> Gone | None:
    return token.snapshots[NAME].gone


def lacks(token: Token) -> set[object]:
    found = gone(token)
    return {key for (key,) in found.keys} if found and found.keys else set()


def test_rows_that_sinks_wrote_are_noted_unless_a_snapshot_is_to_bring_them() -> None:
    assert lacks(noted(EMPTY, {NAME: keys(2)})) == {0, 1}
    pending = EMPTY.with_progress(NAME, replace(EMPTY.snapshots[NAME], state=PENDING))
    assert noted(pending, {NAME: keys(2)}) == pending


def test_a_row_that_goes_out_whole_or_ends_is_lacked_no_more() -> None:
    token = noted(EMPTY, {NAME: keys(3)})
    token = given(token, run(Op.UPSERT, item(0), item(9), absent=("note",)), ("id",))
    assert lacks(token) == {0, 1, 2}
    token = given(token, run(Op.UPSERT, item(0), item(9)), ("id",))
    assert lacks(token) == {1, 2}
    token = given(token, run(Op.DELETE, {"id": 1}), ("id",))
    assert lacks(token) == {2}
    assert given(token, run(Op.UPSERT, item(2)), ("id",)) == EMPTY


def test_of_too_many_only_the_end_of_all_makes_none_lacked() -> None:
    token = noted(EMPTY, {NAME: keys(65)})
    token = given(token, run(Op.UPSERT, *[item(key) for key in range(65)]), ("id",))
    found = gone(token)
    assert found is not None
    assert found.keys is None
    assert given(token, run(Op.TRUNCATE), ("id",)) == EMPTY


def test_that_any_row_may_be_lacked_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    token = noted(EMPTY, {NAME: keys(64)})
    assert not caplog.records
    token = noted(token, {NAME: {(99,)}})
    noted(token, {NAME: {(100,)}})
    (record,) = caplog.records
    assert "more rows were applied to table public.items than" in record.getMessage()
