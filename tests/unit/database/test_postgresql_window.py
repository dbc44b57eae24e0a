"""fabric.database.postgresql_window"""

import pytest

from fabric.database.postgresql_window import Visible, Window
from fabric.model.errors import Malformed
from fabric.model.names import Topic

TOPIC = Topic("secret", "G01", "people")


def window(*keys: int, visible: str = "10:20:12") -> Window:
    made = Window(TOPIC, "mark", Visible.parse(visible))
    for key in keys:
        made.add((key,), {"id": key})
    made.is_last = True
    return made


def test_a_snapshot_saw_what_had_ended_before_it() -> None:
    visible = Visible.parse("10:20:12,15")
    assert [xid for xid in range(8, 24) if visible.saw(xid)] == [
        8, 9, 10, 11, 13, 14, 16, 17, 18, 19,
    ]  # fmt: skip


def test_transaction_ids_wrap_around() -> None:
    visible = Visible.parse(f"{2**32 - 5}:{2**32 + 5}:")
    assert visible.saw(2**32 - 1)
    assert visible.saw(4)
    assert not visible.saw(5)


def test_garbage_is_no_snapshot() -> None:
    for bad in ("", "1:2", "a:b:c"):
        with pytest.raises(Malformed):
            Visible.parse(bad)


def test_a_changed_row_is_dropped_and_the_rest_stands() -> None:
    chunk = window(1, 2, 3)
    chunk.touch((2,), False)
    chunk.touch((99,), True)
    result = chunk.result()
    assert [row["id"] for row in result.rows] == [1, 3]
    assert (result.last, result.is_cut, result.is_last) == ((3,), False, True)


def test_a_row_that_the_stream_has_in_part_cuts_the_chunk() -> None:
    chunk = window(1, 2, 3)
    chunk.touch((2,), True)
    result = chunk.result()
    assert [row["id"] for row in result.rows] == [1]
    assert (result.last, result.is_cut, result.is_last) == ((1,), True, False)
    first = window(1, 2)
    first.touch((1,), True)
    assert (first.result().last, first.result().rows) == (None, [])


def test_a_truncate_leaves_nothing() -> None:
    chunk = window(1, 2)
    chunk.touch((1,), True)
    chunk.clear()
    result = chunk.result()
    assert (result.rows, result.last, result.is_last) == ([], (2,), True)
    assert "id" not in repr(result)
