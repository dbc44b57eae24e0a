"""fabric.database.postgresql_changes"""

import struct
from typing import Any

import pytest

from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_changes import (
    RUN_BYTES_MAX,
    RUN_ROWS_MAX,
    Changes,
    Committed,
    Item,
    Mark,
    Moved,
)
from fabric.database.postgresql_types import TypeInfo
from fabric.database.postgresql_window import Visible, Window
from fabric.model.change import Op, Run
from fabric.model.errors import DeniedError, Malformed, Reason, UnavailableError
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.ports import Captured, SourceTable

TYPES = {
    20: TypeInfo(base="int8", element="", sql_type="bigint", typmod=-1),
    23: TypeInfo(base="int4", element="", sql_type="integer", typmod=-1),
    25: TypeInfo(base="text", element="", sql_type="text", typmod=-1),
}
SCHEMA = RowSchema.parse(
    '{"type": "record", "name": "P", "fields": [{"name": "id", "type": "long"},'
    ' {"name": "name", "type": "string"}, {"name": "note", "type": ["null", "string"]}]}',
    ("id",),
)
PEOPLE = SourceTable(table="public.people", topic=Topic("secret", "G01", "people"), schema=SCHEMA)
OTHERS = SourceTable(table="public.others", topic=Topic("secret", "G01", "others"), schema=SCHEMA)


def shape(oid: int = 1, name: str = "people", **changes: Any) -> wire.Relation:
    columns = (
        wire.Column("id", 20, -1, True),
        wire.Column("extra", 23, -1, False),
        wire.Column("name", 25, -1, False),
        wire.Column("note", 25, -1, False),
    )
    fields: dict[str, Any] = {
        "oid": oid,
        "namespace": "public",
        "name": name,
        "identity": "d",
        "columns": columns,
    }
    return wire.Relation(**{**fields, **changes})


def raw(key: int, name: str = "n", note: wire.Raw = None) -> list[wire.Raw]:
    return [struct.pack(">q", key), b"\0\0\0\1", name, note]


def keyed(key: int) -> list[wire.Raw]:
    return [struct.pack(">q", key), None, None, None]


class Stream:
    """Feeds transactions one by one."""

    def __init__(self) -> None:
        self.changes = Changes({1: PEOPLE, 2: OTHERS}, TYPES)
        self.lsn = 0
        self.transaction(shape(), shape(2, "others"), shape(3, "strange"))

    def begin(self, xid: int = 5) -> None:
        self.lsn += 10
        self.changes.feed(wire.Begin(self.lsn, 1_000, xid), 20)

    def transaction(self, *messages: wire.Message, xid: int = 5) -> list[Item]:
        self.begin(xid)
        for message in messages:
            self.changes.feed(message, 50)
        self.changes.feed(wire.Commit(self.lsn, self.lsn + 1), 20)
        return self.take()

    def take(self) -> list[Item]:
        items, self.changes.out = self.changes.out, []
        return items


def runs(items: list[Item]) -> list[Run]:
    return [item.run for item in items if isinstance(item, Captured)]


def test_changes_of_a_kind_form_one_run() -> None:
    stream = Stream()
    items = stream.transaction(
        wire.Insert(1, raw(1)),
        wire.Insert(2, raw(1)),
        wire.Insert(1, raw(2, note="x")),
        wire.Delete(1, keyed(1)),
        wire.Insert(3, raw(1)),
    )
    first, second, third = runs(items)
    assert first.rows == [
        {"id": 1, "name": "n", "note": None},
        {"id": 2, "name": "n", "note": "x"},
    ]
    assert (first.op, first.position, first.ordinal, first.commit_us) == (Op.UPSERT, 20, 1, 1_000)
    assert (second.op, second.ordinal, second.rows) == (Op.DELETE, 3, [{"id": 1}])
    assert (third.position, third.ordinal) == (20, 1)
    assert items[-1] == Committed(position=20, commit_us=1_000, has_rows=True)


def test_a_large_transaction_leaves_in_pieces_before_its_commit() -> None:
    stream = Stream()
    stream.begin()
    for key in range(RUN_ROWS_MAX + 1):
        stream.changes.feed(wire.Insert(1, raw(key)), 50)
    (early,) = runs(stream.take())
    assert early.count == RUN_ROWS_MAX
    stream.changes.feed(wire.Insert(1, raw(9_999)), RUN_BYTES_MAX)
    (late,) = runs(stream.take())
    assert (late.ordinal, late.count) == (RUN_ROWS_MAX + 1, 2)


def test_a_changed_key_is_a_delete_and_an_upsert() -> None:
    stream = Stream()
    gone, come = runs(stream.transaction(wire.Update(1, keyed(1), False, raw(2))))
    assert (gone.op, gone.rows, gone.ordinal) == (Op.DELETE, [{"id": 1}], 1)
    assert (come.op, come.rows[0]["id"], come.ordinal) == (Op.UPSERT, 2, 2)
    (same,) = runs(stream.transaction(wire.Update(1, raw(1), True, raw(1, "new"))))
    assert (same.op, same.rows[0]["name"]) == (Op.UPSERT, "new")


def test_an_unchanged_toast_value_is_absent_or_taken_from_the_old_row() -> None:
    stream = Stream()
    new = raw(1, "new", wire.UNCHANGED)
    (run,) = runs(stream.transaction(wire.Update(1, None, False, new)))
    assert (run.rows, run.absent) == ([{"id": 1, "name": "new", "note": None}], ("note",))
    (full,) = runs(stream.transaction(wire.Update(1, raw(1, "old", "kept"), True, new)))
    assert (full.rows[0]["note"], full.absent) == ("kept", ())


def test_a_moved_row_that_lacks_columns_is_asked_for() -> None:
    stream = Stream()
    stream.begin()
    stream.changes.feed(wire.Update(1, keyed(1), False, raw(2, "n", wire.UNCHANGED)), 50)
    deleted, moved = stream.take()
    assert isinstance(deleted, Captured)
    assert isinstance(moved, Moved)
    assert (moved.row["id"], moved.absent) == (2, ("note",))
    assert "n" not in repr(moved).replace("people", "").replace("public", "").replace("Moved", "")
    stream.changes.put(PEOPLE, {"id": 2, "name": "n", "note": "whole"})
    stream.changes.feed(wire.Commit(20, 21), 10)
    (put,) = runs(stream.take())
    assert (put.ordinal, put.rows[0]["note"]) == (2, "whole")


def test_a_moved_row_that_is_gone_keeps_its_ordinal() -> None:
    stream = Stream()
    stream.begin()
    stream.changes.feed(wire.Update(1, keyed(1), False, raw(2, "n", wire.UNCHANGED)), 50)
    stream.changes.skip(PEOPLE)
    stream.changes.feed(wire.Insert(1, raw(3)), 50)
    stream.changes.feed(wire.Commit(20, 21), 10)
    assert [run.ordinal for run in runs(stream.take())] == [1, 3]


def test_a_truncate_is_a_mark_of_its_own() -> None:
    stream = Stream()
    items = stream.transaction(
        wire.Insert(1, raw(1)), wire.Truncate((1, 3)), wire.Insert(1, raw(2))
    )
    assert [(run.op, run.ordinal) for run in runs(items)] == [
        (Op.UPSERT, 1),
        (Op.TRUNCATE, 2),
        (Op.UPSERT, 3),
    ]


def test_what_a_sink_of_ours_wrote_is_left_out() -> None:
    stream = Stream()
    items = stream.transaction(
        wire.OriginName("fabric_3"), wire.Insert(1, raw(1)), wire.Truncate((1,))
    )
    assert items == [Committed(position=20, commit_us=1_000, has_rows=False)]
    assert runs(stream.transaction(wire.OriginName("pg_16400"), wire.Insert(1, raw(1))))


def test_our_marks_are_seen_and_others_messages_are_not() -> None:
    stream = Stream()
    items = stream.transaction(
        wire.LogicalMessage(True, 5, "fabric", b'{"id": "x"}'),
        wire.LogicalMessage(True, 5, "fabric", b"no json"),
        wire.LogicalMessage(True, 5, "fabric", b"[]"),
        wire.LogicalMessage(True, 5, "billing", b'{"id": "y"}'),
    )
    assert items[:-1] == [Mark(content={"id": "x"}, position=20, commit_us=1_000)]


def window(stream: Stream, *keys: int) -> Window:
    made = Window(PEOPLE.topic, "mark", Visible.parse("50:100:"))
    for key in keys:
        made.add((key,), {"id": key})
    stream.changes.window = made
    return made


def test_a_hidden_change_takes_its_row_out_of_the_window() -> None:
    stream = Stream()
    made = window(stream, 1, 2, 3, 4)
    stream.transaction(wire.Delete(1, keyed(1)), xid=99)
    stream.transaction(wire.Delete(1, keyed(2)), wire.Insert(2, raw(3)), xid=100)
    stream.transaction(wire.Update(1, keyed(3), False, raw(9)), xid=101)
    assert [row["id"] for row in made.result().rows] == [1, 4]
    stream.transaction(wire.Update(1, None, False, raw(4, "n", wire.UNCHANGED)), xid=102)
    assert made.result().is_cut


def test_a_hidden_change_of_a_sink_makes_the_row_be_read_again() -> None:
    stream = Stream()
    made = window(stream, 1)
    stream.transaction(wire.OriginName("fabric_0"), wire.Insert(1, raw(1)), xid=100)
    assert made.result().is_cut


def test_a_hidden_truncate_empties_the_window() -> None:
    stream = Stream()
    made = window(stream, 1, 2)
    stream.transaction(wire.Truncate((1,)), xid=100)
    assert made.result().rows == []


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ([b"\0" * 8, b"", None, None], "name"),
        (["12x", b"", "n", None], "id"),
        ([b"\0" * 8], "name"),
    ],
)
def test_a_row_that_does_not_fit_stops_and_names_the_column(
    row: list[wire.Raw], column: str
) -> None:
    with pytest.raises(DeniedError, match=f"public.people column {column}") as caught:
        Stream().transaction(wire.Insert(1, row))
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert "12x" not in str(caught.value)


def test_a_table_is_known_by_its_id_and_not_by_its_name() -> None:
    stream = Stream()
    renamed, another = shape(1, "people_old"), shape(9, "people")
    items = stream.transaction(renamed, another, wire.Insert(1, raw(1)), wire.Insert(9, raw(2)))
    assert [row["id"] for run in runs(items) for row in run.rows] == [1]


def test_a_table_that_lost_a_column_or_its_key_stops() -> None:
    columns = shape().columns
    with pytest.raises(DeniedError, match="note"):
        Stream().transaction(shape(columns=columns[:3]))
    with pytest.raises(DeniedError, match="replica identity"):
        Stream().transaction(shape(identity="n"))
    unkeyed = tuple(column._replace(is_key=False) for column in columns)
    with pytest.raises(DeniedError, match="replica identity"):
        Stream().transaction(shape(columns=unkeyed))
    Stream().transaction(shape(columns=unkeyed, identity="f"))
    wrong = (*columns[:2], wire.Column("name", 23, -1, False), columns[3])
    Stream().transaction(shape(columns=wrong))  # a string reads any type through its text
    with pytest.raises(UnavailableError, match="again"):
        Stream().transaction(shape(columns=wrong), wire.Insert(1, [b"\0" * 8, None, b"1", None]))
    unknown = (*columns[:3], wire.Column("note", 77, -1, False))
    with pytest.raises(UnavailableError, match="new type"):
        Stream().transaction(shape(columns=unknown))


def test_an_impossible_order_of_messages_is_malformed() -> None:
    stream = Stream()
    with pytest.raises(Malformed):
        stream.changes.feed(wire.Insert(1, raw(1)), 10)
    with pytest.raises(Malformed):
        stream.changes.feed(wire.Commit(1, 2), 10)
    stream.begin()
    with pytest.raises(Malformed):
        stream.begin()
    with pytest.raises(Malformed):
        stream.changes.feed(wire.Insert(99, raw(1)), 10)
