import pytest

from fabric.database.datum import decode_change, encode_change
from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import Malformed
from fabric.model.names import Origin
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE_SCHEMA, note

ORIGIN = Origin("G01", "registry", "main")


def change(op: Op, row: "dict[str, object] | None", absent: tuple[str, ...] = ()) -> Change:
    return Change(
        topic=NOTES,
        origin=ORIGIN,
        op=op,
        sequence=Sequence(1, 2**62, 3),
        commit_us=5,
        row=row,  # type: ignore[arg-type]  # tests pass plain values
        absent=absent,
    )


@pytest.mark.parametrize(
    "one",
    [
        change(Op.UPSERT, note("a", 1, None), ("body",)),
        change(Op.UPSERT, note("a", -1, "x")),
        change(Op.DELETE, {"region": "a", "number": 1}),
        change(Op.TRUNCATE, None),
    ],
    ids=lambda one: one.op.name,
)
def test_a_change_survives_bytes(one: Change) -> None:
    assert decode_change(encode_change(one, NOTES_SCHEMA), NOTES_SCHEMA, NOTES) == one


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Malformed) as caught:
        encode_change(change(Op.UPSERT, {"region": 7, "number": "x"}), NOTES_SCHEMA)
    assert "7" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40])
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_change(data, PEOPLE_SCHEMA, NOTES)
