"""What is acknowledged next: nothing twice without need, nothing left out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.receipt_machine import Mark, ReceiptMachine
from fabric.model.change import ZERO, Sequence
from fabric.model.limits import RECEIPT_BLOCKS_MAX
from fabric.ports import StreamState
from fabric.seal.chain import ROOT, Accepted, ChainState
from fabric.seal.receipt import Received
from tests.fakes.receipts import STREAM
from tests.fakes.sealing import fixed

NOW = datetime(2026, 9, 1, tzinfo=UTC)
OTHER = replace(STREAM, partition=1)
EPOCH = fixed("epoch")


def at(n: int) -> Sequence:
    return Sequence(1, n, 0)


def block(n: int) -> Received:
    return Received(epoch_id=EPOCH, counter=n, hash=fixed(f"envelope {n}"))


def apply(machine: ReceiptMachine, first: int, last: int) -> None:
    for n in range(first, last + 1):
        machine.applied(
            STREAM, block(n), after=at(n - 1), upto=at(n), now=NOW + timedelta(seconds=n)
        )


def state(last: int, *, remembered: int = 65) -> StreamState:
    first = max(1, last - remembered + 1)
    accepted = [Accepted(EPOCH, n, block(n).hash) for n in range(first, last + 1)]
    if first == 1:
        accepted.insert(0, ROOT)
    chain = ChainState(
        sender="spiffe://x/a/b/c", number=1, accepted=tuple(accepted[-65:]), superseded=()
    )
    return StreamState(
        high=at(last), chain=chain.encode(), offset=1, cluster="", topic_id="", incomplete=False
    )


def test_blocks_gather_until_they_are_taken() -> None:
    machine = ReceiptMachine()
    apply(machine, 1, 3)
    draft = machine.take(STREAM)
    assert (draft.after, draft.upto, draft.applied) == (at(0), at(3), NOW + timedelta(seconds=3))
    assert draft.blocks == (block(1), block(2), block(3))
    assert machine.waiting == []
    apply(machine, 4, 4)
    assert machine.take(STREAM).after == at(3)


def test_streams_are_acknowledged_apart() -> None:
    machine = ReceiptMachine()
    apply(machine, 1, 1)
    machine.applied(OTHER, block(9), after=at(8), upto=at(9), now=NOW)
    assert machine.waiting == [STREAM, OTHER]


def test_a_lost_receipt_leaves_its_range_to_the_next() -> None:
    """MUST-13.5."""
    machine = ReceiptMachine()
    apply(machine, 1, 2)
    lost = machine.take(STREAM)
    apply(machine, 3, 3)
    machine.lost(lost)
    assert machine.take(STREAM).after == at(0)
    machine.lost(lost)
    apply(machine, 4, 4)
    assert machine.take(STREAM).after == at(0)


def test_what_was_sent_again_makes_no_range_run_backwards() -> None:
    machine = ReceiptMachine()
    apply(machine, 1, 3)
    machine.take(STREAM)
    machine.applied(STREAM, block(4), after=at(1), upto=at(2), now=NOW)
    draft = machine.take(STREAM)
    assert draft.after <= draft.upto


def test_more_blocks_than_a_receipt_names_keep_their_range() -> None:
    machine = ReceiptMachine()
    apply(machine, 1, RECEIPT_BLOCKS_MAX + 5)
    draft = machine.take(STREAM)
    assert len(draft.blocks) == RECEIPT_BLOCKS_MAX
    assert (draft.after, draft.blocks[-1]) == (at(0), block(RECEIPT_BLOCKS_MAX + 5))


@pytest.mark.parametrize(("marked", "named"), [(10, 0), (7, 3), (1, 9)])
def test_a_restart_says_what_was_left_unsaid(marked: int, named: int) -> None:
    machine = ReceiptMachine()
    mark = Mark(upto=at(marked), hash=block(marked).hash)
    machine.resume({STREAM: state(10)}, {STREAM: mark}, NOW)
    assert bool(machine.waiting) is bool(named)
    if named:
        draft = machine.take(STREAM)
        assert (draft.after, draft.upto, len(draft.blocks)) == (at(marked), at(10), named)
        assert draft.mark == Mark(upto=at(10), hash=block(10).hash)


def test_a_mark_older_than_memory_still_gives_the_whole_range() -> None:
    machine = ReceiptMachine()
    machine.resume({STREAM: state(200)}, {STREAM: Mark(upto=at(5), hash=block(5).hash)}, NOW)
    draft = machine.take(STREAM)
    assert (draft.after, len(draft.blocks)) == (at(5), 65)


def test_without_a_mark_only_what_is_remembered_is_claimed() -> None:
    machine = ReceiptMachine()
    machine.resume({STREAM: state(3)}, {}, NOW)
    draft = machine.take(STREAM)
    assert (draft.after, draft.upto) == (at(3), at(3))
    assert draft.blocks == (block(1), block(2), block(3))


def test_a_stream_without_a_chain_has_nothing_to_say() -> None:
    machine = ReceiptMachine()
    empty = replace(state(3), chain=b"", high=ZERO)
    machine.resume({STREAM: empty}, {}, NOW)
    assert machine.waiting == []


def test_a_mark_comes_back_and_what_is_none_counts_for_nothing() -> None:
    mark = Mark(upto=at(7), hash=fixed("x"))
    assert Mark.decode(mark.encode()) == mark
    for data in (None, b"", b"garbage", b"\x80"):
        assert Mark.decode(data) is None
