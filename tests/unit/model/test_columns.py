"""Columns: split and join are inverses, and columns that do not add up are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.columns import Field, Rows, join, one_after_another, split, values_of
from fabric.model.errors import Malformed
from fabric.model.schema import RowSchema

FIELDS = (Field("id", "long", False), Field("name", "string", True), Field("age", "int", True))
ROWS: list[Any] = [
    {"id": 1, "name": "An", "age": None},
    {"id": 2, "name": None, "age": None},
    {"id": 3, "name": "Chi", "age": 7},
]


def test_nulls_stand_apart_and_the_rest_has_no_branch() -> None:
    columns, nulls = split(ROWS, FIELDS)
    assert columns == {"id": [1, 2, 3], "name": ["An", "Chi"], "age": [7]}
    assert nulls == [[1], [0, 1]]
    assert join(columns, nulls, FIELDS, 3) == ROWS


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": st.integers(),
                "name": st.none() | st.text(),
                "age": st.none() | st.integers(),
            }
        ),
        max_size=30,
    )
)
def test_join_undoes_split(rows: list[Any]) -> None:
    assert join(*split(rows, FIELDS), FIELDS, len(rows)) == rows


def test_rows_of_a_block_are_a_sequence_like_a_list_of_them() -> None:
    rows = join(*split(ROWS, FIELDS), FIELDS, 3)
    assert rows == ROWS == rows
    assert rows != ROWS[:2]
    assert (len(rows), rows[1], rows[-1], [*rows]) == (3, ROWS[1], ROWS[2], ROWS)
    for part in (slice(1, None), slice(0, 2), slice(2, 1), slice(-1, None), slice(0, 9)):
        assert rows[part] == ROWS[part]
    assert rows[::2] == ROWS[::2]
    assert rows[1:][1:] == ROWS[2:]
    with pytest.raises(IndexError):
        rows[1:2][1]
    assert "An" not in repr(rows)


def test_a_column_is_had_without_making_rows() -> None:
    rows = join(*split(ROWS, FIELDS), FIELDS, 3)
    assert values_of(rows, "name") == values_of(ROWS, "name") == ["An", None, "Chi"]
    assert values_of(rows[1:], "id") == [2, 3]
    for some in (rows, ROWS):
        with pytest.raises(KeyError):
            values_of(some, "colour")


def test_stretches_of_one_block_are_put_together_and_others_are_not() -> None:
    rows, others = (join(*split(ROWS, FIELDS), FIELDS, 3) for _ in range(2))
    whole = one_after_another([rows[:1], rows[1:2], rows[2:]])
    assert isinstance(whole, Rows)
    assert whole == ROWS
    assert one_after_another([rows[:1], rows[2:]]) is None
    assert one_after_another([rows[1:], rows[:1]]) is None
    assert one_after_another([rows[:1], others[1:]]) is None
    assert one_after_another([rows[:1], ROWS[1:]]) is None


def test_a_row_may_lack_what_may_be_null_and_nothing_else() -> None:
    columns, nulls = split([{"id": 1}, ROWS[0]], FIELDS)
    assert (columns["name"], nulls) == (["An"], [[0], [0, 1]])
    with pytest.raises(KeyError):
        split([{"name": "An"}], FIELDS)


@pytest.mark.parametrize(
    ("columns", "nulls"),
    [
        ({"id": [1, 2], "name": ["a", "b", "c"], "age": [1, 2, 3]}, [[], []]),
        ({"id": [1, 2, 3], "name": ["a", "b"], "age": [1, 2, 3]}, [[], []]),
        ({"id": [1, 2, 3], "name": ["a", "b", "c"], "age": [1, 2, 3]}, [[0], []]),
        ({"id": [1, 2, 3], "name": ["a", "b"], "age": [1, 2, 3]}, [[3], []]),
        ({"id": [1, 2, 3], "name": ["a", "b"], "age": [1, 2, 3]}, [[-1], []]),
        ({"id": [1, 2, 3], "name": ["a"], "age": [1, 2, 3]}, [[1, 1], []]),
        ({"id": [1, 2, 3], "name": ["a"], "age": [1, 2, 3]}, [[2, 1], []]),
        ({"id": [1, 2, 3], "name": ["a", "b", "c"], "age": [1, 2, 3]}, [[]]),
        ({"id": [1, 2, 3], "name": ["a", "b", "c"], "age": [1, 2, 3]}, [[], [], []]),
    ],
)
def test_columns_that_do_not_add_up_are_malformed(
    columns: dict[str, Any], nulls: list[list[int]]
) -> None:
    with pytest.raises(Malformed):
        join(columns, nulls, FIELDS, 3)


def test_items_of_nothing_are_wrapped_so_that_each_costs_a_byte() -> None:
    empty = {"type": "record", "name": "Empty", "fields": []}
    fields = [
        {"name": "id", "type": "long"},
        {"name": "nothing", "type": "null"},
        {"name": "empty", "type": empty},
        {"name": "again", "type": "Empty"},
        {"name": "maybe", "type": ["null", "Empty"]},
        {"name": "none", "type": {"type": "fixed", "name": "None", "size": 0}},
        {"name": "either", "type": ["int", "null", "string"]},
        {"name": "full", "type": {"type": "record", "name": "Full", "fields": [
            {"name": "one", "type": "boolean"}]}},
    ]  # fmt: skip
    schema = RowSchema.parse(
        json.dumps({"type": "record", "name": "Row", "fields": fields}), ("id",)
    )
    wrapped = {f.name for f in schema.columns if isinstance(f.item, list) and len(f.item) == 1}
    assert wrapped == {"nothing", "empty", "again", "maybe", "none"}
    assert [f.name for f in schema.columns if f.nullable] == ["maybe"]
