"""Values are counted before a decoder makes them, whatever their types are."""

import json
import tracemalloc
from io import BytesIO
from itertools import count as numbers
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.block import unpack
from fabric.model.change import Sequence
from fabric.model.errors import Malformed
from fabric.model.limits import BLOCK_CHANGES_MAX, BLOCK_VALUES_MAX, DECOMPRESSED_BYTES_MAX
from fabric.model.schema import RowSchema
from fabric.model.walk import TooManyValues, strides_of, walk_columns
from tests.fuzz.model_targets import STREAM, UPTO
from tests.unit.model.test_skim import RUN, count

TEXTS = {"type": "array", "items": "string"}
MAPS = {"type": "map", "values": "bytes"}
NULLS = {"type": "array", "items": ["null"]}
WIDE = {"type": "record", "name": "W", "fields": [{"name": "n", "type": "int"}]}
WIDE["fields"] = [*WIDE["fields"], *({"name": f"n{i}", "type": "null"} for i in range(100))]
NUMBERS = {"type": "record", "name": "N", "fields": [{"name": "n", "type": "bytes"}]}
FRONT = count(1) + RUN + b"\0" + b"\0" + count(8) + bytes(8)
"""One upsert, nothing null, and the column of its id."""
HUGE = DECOMPRESSED_BYTES_MAX - 2**10
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.just(0.5),
    "double": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=200),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
}
_NAMES = numbers()


def one_of(kind: Any) -> Any:
    """A type made of `kind`, which fastavro takes as it stands."""
    name = f"N{next(_NAMES)}"
    fields = [{"name": "a", "type": kind}, {"name": "b", "type": "null"}]
    made = [
        {"type": "array", "items": kind},
        {"type": "map", "values": kind},
        {"type": "record", "name": name, "fields": fields},
    ]
    return st.sampled_from(made if isinstance(kind, list) else [*made, ["boolean", kind]])


def leaves() -> st.SearchStrategy[Any]:
    enum = st.builds(lambda: {"type": "enum", "name": f"N{next(_NAMES)}", "symbols": ["a", "b"]})
    fixed = st.builds(lambda: {"type": "fixed", "name": f"N{next(_NAMES)}", "size": 3})
    return st.sampled_from([*SIMPLE]) | enum | fixed


KINDS = st.recursive(leaves(), lambda inner: inner.flatmap(one_of), max_leaves=5)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """What fastavro writes as `kind`, and how many values that is."""
    if isinstance(kind, str):
        return st.tuples(SIMPLE[kind], st.just(1))
    if isinstance(kind, list):
        return st.one_of(*map(values_of, kind))
    match kind["type"]:
        case "array":
            many = st.lists(values_of(kind["items"]), max_size=300)
            return many.map(lambda s: ([v for v, _ in s], 1 + sum(n for _, n in s)))
        case "map":
            some = st.dictionaries(SIMPLE["string"], values_of(kind["values"]), max_size=5)
            return some.map(
                lambda s: ({k: v for k, (v, _) in s.items()}, 1 + sum(1 + n for _, n in s.values()))
            )
        case "record":
            inner = values_of(kind["fields"][0]["type"])
            return inner.map(lambda s: ({"a": s[0], "b": None}, 2 + s[1]))
        case "enum":
            return st.tuples(st.sampled_from(["a", "b"]), st.just(1))
        case _:
            return st.tuples(st.binary(min_size=3, max_size=3), st.just(1))


@given(st.data())
def test_a_walk_ends_where_the_decoder_does_and_counts_what_it_makes(data: st.DataObject) -> None:
    """MUST-4.15."""
    kind = data.draw(KINDS)
    drawn = data.draw(st.lists(values_of(kind), max_size=20))
    items = kind if isinstance(kind, list) else [kind]  # as what may be zero bytes long is
    whole = {"name": "c", "type": {"type": "array", "items": items}}
    parsed: Any = fastavro.parse_schema(
        {"type": "record", "name": "C", "fields": [whole]}, named_schemas={}
    )
    out = BytesIO()
    fastavro.schemaless_writer(out, parsed, {"c": [value for value, _ in drawn]})
    [stride] = strides_of(parsed)
    made = sum(many for _, many in drawn)
    assert stride(out.getvalue() + b"more", 0, made + 7, len(drawn)) == (len(out.getvalue()), 7)
    with pytest.raises(TooManyValues):
        walk_columns(out.getvalue(), 0, left=made - 1, strides=[stride], counts=[len(drawn)])


def schema(kind: Any, *more: Any) -> RowSchema:
    fields = [{"name": "id", "type": "long"}, {"name": "text", "type": kind}, *more]
    return RowSchema.parse(json.dumps({"type": "record", "name": "R", "fields": fields}), ("id",))


def opened(data: bytes, kind: Any) -> None:
    unpack(data, schema(kind), stream=STREAM, after=Sequence(1, 0, 0), upto=UPTO)


def column(column: bytes) -> bytes:
    """A block of one row with this column, and no key."""
    return FRONT + column + b"\0"


def array(*items: bytes) -> bytes:
    return count(len(items)) + b"".join(items) + b"\0"


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [
        ("string", b"\2" + count(HUGE) + bytes(HUGE) + b"\0"),
        ("string", b"\2" + count(1) + b"\0" + count(HUGE) + bytes(HUGE) + b"\0"),
        ("bytes", count(HUGE) + bytes(HUGE) + b"\0"),
        (TEXTS, count(HUGE) + bytes(HUGE) + b"\0"),
        (TEXTS, array(count(HUGE) + bytes(HUGE) + b"\0")),
        (TEXTS, array((count(1) + b"\0") * (HUGE // 2) + b"\0")),
        ({"type": "array", "items": TEXTS}, array(count(HUGE) + bytes(HUGE) + b"\0")),
        (NULLS, array(count(HUGE) + bytes(HUGE) + b"\0")),
        (MAPS, count(HUGE) + bytes(HUGE) + b"\0"),
        (MAPS, array(count(HUGE // 2) + bytes(HUGE) + b"\0")),
        ({"type": "array", "items": WIDE}, array(count(HUGE) + bytes(HUGE) + b"\0")),
        ({"type": "array", "items": WIDE}, array(count(2_500) + bytes(2_500) + b"\0")),
        (["int", "null", "bytes"], array(b"\0" + b"\x80" * HUGE + b"\0")),
        ("string", b"\2\1" + count(HUGE) + bytes(HUGE) + b"\0"),
    ],
    ids=[
        "texts", "texts in pieces", "bytes", "lists", "list", "list in pieces", "list of lists",
        "nulls", "maps", "map", "records", "records of nulls", "number", "texts, negative count",
    ],
)  # fmt: skip
def test_sixteen_megabytes_of_almost_nothing_make_nothing(kind: Any, bomb: bytes) -> None:
    """Each of these stopped a process for seconds, with up to a gigabyte."""
    data = column(bomb)
    assert len(data) <= DECOMPRESSED_BYTES_MAX
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            opened(data, kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_block_has_as_many_values_in_arrays_as_it_may_and_no_more() -> None:
    """MUST-4.15: the list is one of them."""
    most = BLOCK_VALUES_MAX - 1
    opened(column(array(count(most) + bytes(most) + b"\0")), TEXTS)
    most += 1
    with pytest.raises(TooManyValues):
        opened(column(array(count(most) + bytes(most) + b"\0")), TEXTS)


def test_values_of_all_columns_and_names_of_absent_ones_are_counted_together() -> None:
    half = BLOCK_VALUES_MAX // 2 - 1
    two = schema(TEXTS, {"name": "more", "type": TEXTS})
    lists = array(count(half) + bytes(half) + b"\0")

    def both(run: bytes) -> None:
        data = count(1) + run + FRONT[len(count(1) + RUN) :] + lists * 2 + b"\0"
        unpack(data, two, stream=STREAM, after=Sequence(1, 0, 0), upto=UPTO)

    both(RUN)
    with pytest.raises(TooManyValues):
        both(RUN[:-1] + count(1) + count(4) + b"text" + b"\0")


def test_runs_name_no_more_absent_columns_than_a_block_has_values() -> None:
    """MUST-4.15."""
    each = BLOCK_VALUES_MAX // BLOCK_CHANGES_MAX + 1
    more = [{"name": f"c{n}", "type": "int"} for n in range(each)]
    run = RUN[:-1] + count(each) + bytes(each) + b"\0"
    data = count(BLOCK_CHANGES_MAX) + run * BLOCK_CHANGES_MAX + b"\0\0"
    with pytest.raises(Malformed, match="absent"):
        unpack(data, schema("int", *more), stream=STREAM, after=Sequence(1, 0, 0), upto=UPTO)


@pytest.mark.parametrize(
    ("kind", "wrong", "why"),
    [
        ("string", b"\4\0", "too large"),
        ("string", b"\1\0", "negative"),
        ("string", b"\2" + array(b"\0", b"\0"), "another number"),
        ("string", b"\2\0", "another number"),
        ("bytes", array(b"\0", b"\0"), "another number"),
        ("bytes", b"\1\2\0\0", "negative"),
        ("bytes", count(1) + b"\0" + count(1) + b"\0\0", "one piece"),
        (["int", "string", "null"], array(b"\1\0"), "negative"),
        (["int", "string", "null"], array(b"\6\0"), "too large"),
        (TEXTS, array(b"\1\2\0\0"), "negative"),
        (TEXTS, array(count(1) + b"\0" + count(1) + b"\0\0"), "one piece"),
        (MAPS, array(count(1) + b"\0\0" + count(1) + b"\0\0\0"), "one piece"),
        ({"type": "fixed", "name": "F", "size": 2**20}, count(1), "one piece"),
    ],
    ids=str,
)
def test_a_column_that_is_no_array_of_its_rows_in_one_piece_is_malformed(
    kind: Any, wrong: bytes, why: str
) -> None:
    """MUST-4.11."""
    with pytest.raises(Malformed, match=why):
        opened(column(wrong), kind)


@pytest.mark.parametrize(
    ("kind", "long"),
    [
        ("string", b"\x80\0" + b"\0"),
        ("string", b"\0" + b"\x82\0a"),
        ("string", b"\2" + b"\x82\0" + b"\2\0" + b"\0"),
        ("bytes", b"\x82\0" + b"\0" + b"\0"),
        (["int", "string", "null"], array(b"\x84\0")),
        (TEXTS, array(b"\x80\0")),
        (TEXTS, array(b"\x82\x80\0" + b"\0" + b"\0")),
        (MAPS, array(b"\x80\0")),
    ],
    ids=[
        "branch of a column", "text", "texts", "column", "union", "no text", "a text", "no entry",
    ],
)  # fmt: skip
def test_a_count_that_is_longer_than_it_need_be_is_malformed(kind: Any, long: bytes) -> None:
    """MUST-4.17."""
    with pytest.raises(Malformed, match="longer than it need be"):
        opened(column(long), kind)


def test_a_zero_of_two_bytes_hides_no_records_from_the_count() -> None:
    """A decoder found an empty list and then many records, where the walk saw one text."""
    many, two = 200_000, count(1) + RUN[:4] + count(2) + b"\0\0"
    lists = count(2) + b"\x80\0" + b"\0" + count(1) + count(many) + bytes(many) + b"\0\0"
    entry = {"type": "record", "name": "L", "fields": [{"name": "t", "type": "string"}]}
    data = two + b"\0" + count(16) + bytes(16) + lists + b"\0"
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            opened(data, {"type": "array", "items": entry})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


@pytest.mark.parametrize("kind", ["string", "bytes", TEXTS, MAPS, ["null", "int", "string"], WIDE])
def test_a_column_that_ends_early_is_malformed(kind: Any) -> None:
    with pytest.raises(Malformed):
        opened(FRONT, kind)
    with pytest.raises(Malformed):
        opened(FRONT + (b"\2" if kind == "string" else b"") + count(1), kind)


def test_columns_that_end_after_their_block_are_malformed() -> None:
    with pytest.raises(Malformed, match="ends in its columns"):
        walk_columns(count(4) + b"abc", 0, left=0, strides=strides_of(NUMBERS), counts=[1])


def test_a_type_that_stands_in_an_earlier_column_is_known() -> None:
    kinds = [{"type": "fixed", "name": "F", "size": 2}, "F"]
    data = array(b"ab") * 2
    fields = [{"name": f"c{n}", "type": {"type": "array", "items": k}} for n, k in enumerate(kinds)]
    for stride in strides_of({"type": "record", "name": "C", "fields": fields}):
        assert stride(data, 0, 1, 1) == (len(data) // 2, 0)
