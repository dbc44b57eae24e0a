"""What can never be sent is refused as the lanes would refuse it."""

import json
import os
from dataclasses import replace

import pytest

from fabric.agent.alone import demand_room
from fabric.agent.open_form import encode
from fabric.model.block import Block, pack
from fabric.model.change import Change, Op, Row, Run, Sequence
from fabric.model.errors import DeniedError, FabricError, Malformed, Reason
from fabric.model.limits import BLOCK_BYTES_MAX, BLOCK_VALUES_MAX, OPEN_RECORD_BYTES_MAX
from fabric.model.names import Origin, Stream, Topic
from fabric.model.schema import RowSchema
from fabric.seal.sealing import prepare
from tests.fakes.platform import OPEN, ORIGIN, SECRET, Platform, dataset

ARRAYS = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Arrays",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "many", "type": {"type": "array", "items": "long"}},
            ],
        }
    ),
    ("id",),
)
NESTED = Topic.parse("secret.G01.arrays")
POLICY = Platform(dataset(SECRET), dataset(OPEN), dataset(NESTED, schema=ARRAYS)).policy
NOISE = os.urandom(BLOCK_BYTES_MAX).hex()


def change(topic: Topic, row: Row | None, op: Op = Op.UPSERT) -> Change:
    return Change(
        topic=topic,
        origin=Origin.parse("0/outbox/outbox"),
        op=op,
        sequence=Sequence(1_800_000_000, 70_000, 1),
        commit_us=1_800_000_000_000_000,
        row=row,
    )


def alone(it: Change, origin: Origin) -> Block:
    run = Run(op=it.op, position=70_000, ordinal=1, commit_us=it.commit_us, rows=[it.row or {}])
    after = it.sequence._replace(ordinal=0)
    return Block(stream=Stream(origin, it.topic, 0), after=after, upto=it.sequence, runs=(run,))


def refuses(coding: str, it: Change) -> bool:
    """Whether the sealed lane does."""
    try:
        prepare(alone(it, ORIGIN), dataset(SECRET).schema, coding=coding, padding=True)
    except DeniedError:
        return True
    return False


@pytest.mark.parametrize("coding", ["none", "zstd"])
@pytest.mark.parametrize("text", ["x" * len(NOISE), NOISE], ids=["bomb", "noise"])
def test_a_sealed_row_is_refused_from_that_byte_on_at_which_its_lane_refuses_it(
    coding: str, text: str
) -> None:
    rule = replace(POLICY.rules["secret"], coding=coding)
    policy = replace(POLICY, rules={**POLICY.rules, "secret": rule})
    low, high = 1, len(text)  # the least size that the lane refuses

    def row(size: int) -> Change:
        return change(SECRET, {"id": 1, "text": text[:size]})

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if refuses(coding, row(middle)) else (middle + 1, high)
    demand_room(policy, ORIGIN, row(low - 1))
    with pytest.raises(DeniedError, match="bytes, more than one block holds") as caught:
        demand_room(policy, ORIGIN, row(low))
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("origin", [ORIGIN, Origin.parse("G01.A.B.C/registry-of-all/the-outbox")])
def test_an_open_row_is_refused_from_that_byte_on_at_which_no_record_holds_it(
    origin: Origin,
) -> None:
    (empty,) = encode(alone(change(OPEN, {"id": 1, "text": "x" * 100_000}), origin), dataset(OPEN))
    room = OPEN_RECORD_BYTES_MAX - len(empty) + 100_000
    demand_room(POLICY, origin, change(OPEN, {"id": 1, "text": "x" * room}))
    with pytest.raises(DeniedError, match=f"open record may be, {OPEN_RECORD_BYTES_MAX} bytes"):
        demand_room(POLICY, origin, change(OPEN, {"id": 1, "text": "x" * (room + 1)}))


def test_more_values_in_arrays_than_a_block_holds_are_told_as_such() -> None:
    last = BLOCK_VALUES_MAX
    with pytest.raises(DeniedError, match="more values in its arrays"):
        demand_room(POLICY, ORIGIN, change(NESTED, {"id": 1, "many": [1] * last}))
    fits = change(NESTED, {"id": 1, "many": [1] * (last - 10)})
    demand_room(POLICY, ORIGIN, fits)
    assert pack(alone(fits, ORIGIN), ARRAYS)


@pytest.mark.parametrize("topic", [SECRET, OPEN])
def test_what_removes_a_row_and_a_mark_have_room(topic: Topic) -> None:
    demand_room(POLICY, ORIGIN, change(topic, {"id": 1}, Op.DELETE))
    demand_room(POLICY, ORIGIN, change(topic, None, Op.SNAPSHOT_END))


@pytest.mark.parametrize("topic", [SECRET, OPEN])
def test_what_is_wrong_otherwise_is_not_too_large(topic: Topic) -> None:
    with pytest.raises(Malformed):
        demand_room(POLICY, ORIGIN, change(topic, {"id": "text"}))
    with pytest.raises(FabricError) as caught:
        demand_room(replace(POLICY, datasets={}), ORIGIN, change(topic, {"id": 1, "text": ""}))
    assert caught.value.reason is Reason.TOPIC_UNKNOWN
