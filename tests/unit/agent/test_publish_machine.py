"""The publish machine: cutting, splitting, and letting go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.agent.publish_machine import (
    Advance,
    Feed,
    Limits,
    PublishMachine,
    Store,
    Stored,
    Tick,
    halve,
)
from fabric.model.block import Block
from fabric.model.change import ORDINAL_MAX, ZERO, Op, Run, Sequence, end_of
from fabric.model.errors import UsageError
from fabric.model.names import Origin, Stream, Topic
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema
from fabric.ports import Captured, Reached

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
NOTES = RowSchema.parse((Path(__file__).parents[3] / "schemas/notes.avsc").read_text(), ("id",))
TOPIC = Topic.parse("secret.G01.notes")
OTHER = Topic.parse("public.G01.wards")
ORIGIN = Origin.parse("G01/registry/main")
STREAM = Stream(ORIGIN, TOPIC, 0)
LIMITS = Limits(changes_max=4, bytes_max=400_000, linger_s=0.02, silence_s=10)


def feed(topic: Topic = TOPIC, *, partitions: int = 1, sealed: bool = True) -> Feed:
    return Feed(topic=topic, schema=NOTES, partitions=partitions, salt=b"s" * 32, sealed=sealed)


def machine(*feeds: Feed, upto: dict[Stream, Sequence] | None = None) -> PublishMachine:
    return PublishMachine(ORIGIN, feeds or (feed(),), generation=7, upto=upto or {}, limits=LIMITS)


def rows(position: int, count: int, *, first: int = 1, topic: Topic = TOPIC) -> Captured:
    content = [{"id": first + i, "text": "x"} for i in range(count)]
    run = Run(op=Op.UPSERT, position=position, ordinal=first, commit_us=1, rows=content)
    return Captured(topic=topic, run=run)


def mark(position: int, op: Op) -> Captured:
    return Captured(topic=TOPIC, run=Run(op=op, position=position, ordinal=1, commit_us=1, rows=[]))


def reached(position: int) -> Reached:
    return Reached(position=position, resume=f"token {position}")


def blocks(commands: list[object]) -> list[Block]:
    return [c.block for c in commands if isinstance(c, Store)]


def advances(commands: list[object]) -> list[int]:
    return [c.position for c in commands if isinstance(c, Advance)]


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_changes_wait_for_others_until_linger_is_over() -> None:
    it = machine()
    assert blocks(it.step(rows(100, 2), NOW)) == []
    assert it.next_at() == later(0.02)
    (block,) = blocks(it.step(Tick(), later(0.02)))
    assert block.count == 2
    assert (block.after, block.upto) == (ZERO, Sequence(7, 100, 2))


def test_a_full_block_is_cut_at_once_and_the_rest_follows_without_a_hole() -> None:
    it = machine()
    (first,) = blocks(it.step(rows(100, 6), NOW))
    assert first.count == 4
    assert blocks(it.step(Tick(), later(1))) == []  # one in flight at a time
    (second,) = blocks(it.step(Stored(block=first, plaintext_bytes=40), later(1)))
    assert second.after == first.upto == Sequence(7, 100, 4)
    assert [run.ordinal for run in second.runs] == [5]
    assert second.upto == Sequence(7, 100, 6)


def test_what_the_source_reached_is_the_blocks_end() -> None:
    it = machine()
    it.step(rows(100, 2), NOW)
    it.step(reached(105), NOW)
    (block,) = blocks(it.step(Tick(), later(0.02)))
    assert block.upto == end_of(7, 105)


def test_position_is_let_go_only_after_every_stream_acknowledged_it() -> None:
    it = machine(feed(), feed(OTHER, sealed=False))
    it.step(rows(100, 1), NOW)
    it.step(rows(100, 1, topic=OTHER), NOW)
    assert advances(it.step(reached(100), NOW)) == []
    first, second = blocks(it.step(Tick(), later(0.02)))
    assert advances(it.step(Stored(block=first, plaintext_bytes=1), NOW)) == []
    assert advances(it.step(Stored(block=second, plaintext_bytes=1), NOW)) == [100]


def test_a_position_in_the_middle_of_a_transaction_is_not_let_go() -> None:
    it = machine()
    it.step(rows(100, 1), NOW)
    it.step(reached(100), NOW)
    (block,) = blocks(it.step(Tick(), later(0.02)))
    it.step(rows(101, 1), later(0.02))
    commands = it.step(Stored(block=block, plaintext_bytes=1), later(0.03))
    assert advances(commands) == [100]


def test_a_sealed_stream_speaks_at_once_and_then_every_silence() -> None:
    it = machine()
    (first,) = blocks(it.step(reached(50), NOW))
    assert (first.count, first.upto) == (0, end_of(7, 50))
    it.step(Stored(block=first, plaintext_bytes=0), NOW)
    assert it.next_at() == later(10)
    it.step(reached(60), later(5))
    (second,) = blocks(it.step(Tick(), later(10)))
    assert (second.after, second.upto) == (first.upto, end_of(7, 60))


def test_a_clock_that_was_ahead_and_is_set_right_holds_no_change_up() -> None:
    it = machine(feed(sealed=False))
    it.step(rows(10, 1), NOW + timedelta(hours=7))
    assert blocks(it.step(Tick(), NOW)) == []
    [block] = blocks(it.step(Tick(), NOW + timedelta(seconds=0.02)))
    assert block.count == 1


def test_a_full_block_goes_whatever_a_clock_that_is_set_right_said_before() -> None:
    it = machine(feed(sealed=False))
    it.step(rows(10, 2), NOW + timedelta(hours=7))
    [block] = blocks(it.step(rows(11, 2), NOW))
    assert block.count == 4


def test_a_clock_that_was_ahead_and_is_set_right_lengthens_no_silence() -> None:
    it = machine()
    [block] = blocks(it.step(reached(10), NOW + timedelta(hours=7)))
    it.step(Stored(block=block, plaintext_bytes=0), NOW + timedelta(hours=7))
    assert blocks(it.step(Tick(), NOW)) == []
    [sign] = blocks(it.step(Tick(), NOW + timedelta(seconds=10)))
    assert sign.count == 0


def test_an_open_stream_has_no_signs_of_life() -> None:
    it = machine(feed(OTHER, sealed=False))
    assert advances(it.step(reached(50), NOW)) == [50]
    assert it.next_at() is None


def test_what_an_earlier_life_had_acknowledged_is_not_sent_again() -> None:
    it = machine(upto={STREAM: Sequence(7, 100, 3)})
    it.step(rows(100, 5), NOW)
    (block,) = blocks(it.step(Tick(), later(0.02)))
    assert block.after == Sequence(7, 100, 3)
    assert [(run.ordinal, run.count) for run in block.runs] == [(4, 2)]


def test_a_new_generation_goes_on_from_the_old_one() -> None:
    it = machine(upto={STREAM: Sequence(6, 900, ORDINAL_MAX)})
    it.step(rows(10, 1), NOW)
    (block,) = blocks(it.step(Tick(), later(0.02)))
    assert block.after == Sequence(6, 900, ORDINAL_MAX)
    assert block.generation == 7


def test_a_full_block_is_cut_ahead_while_one_is_in_flight_and_no_third() -> None:
    it = machine()
    found = blocks(it.step(rows(100, 12), NOW)) + blocks(it.step(Tick(), NOW))
    first, ahead = found
    assert (first.upto, ahead.count) == (ahead.after, 4)
    assert blocks(it.step(Tick(), later(60))) == []
    assert it.outstanding == 12
    (third,) = blocks(it.step(Stored(block=first, plaintext_bytes=40), NOW))
    assert it.outstanding == 12 - first.count
    assert third.after == ahead.upto


def test_what_does_not_fill_a_block_waits_for_its_turn() -> None:
    it = machine()
    (first,) = blocks(it.step(rows(100, 7), NOW))
    assert blocks(it.step(Tick(), later(60))) == []
    (second,) = blocks(it.step(Stored(block=first, plaintext_bytes=40), later(60)))
    assert second.count == 3


def test_a_block_cut_ahead_holds_the_source_back_until_it_is_stored() -> None:
    it = machine()
    (first,) = blocks(it.step(rows(100, 4), NOW))
    (ahead,) = blocks(it.step(rows(110, 4), NOW))
    assert advances(it.step(reached(110), NOW)) == []
    assert advances(it.step(Stored(block=first, plaintext_bytes=40), NOW)) == []
    assert not it.is_idle
    assert advances(it.step(Stored(block=ahead, plaintext_bytes=40), NOW)) == [110]
    assert it.is_idle


def test_a_block_cut_ahead_is_not_acknowledged_before_the_one_in_flight() -> None:
    it = machine()
    it.step(rows(100, 4), NOW)
    (ahead,) = blocks(it.step(rows(110, 4), NOW))
    with pytest.raises(UsageError):
        it.step(Stored(block=ahead, plaintext_bytes=40), NOW)


def test_rows_go_to_the_partition_of_their_key_and_marks_to_all() -> None:
    it = machine(feed(partitions=3))
    it.step(mark(90, Op.TRUNCATE), NOW)
    found = blocks(it.step(rows(100, 12), NOW))
    found += blocks(it.step(Tick(), later(0.02)))
    firsts = {block.stream.partition: block for block in reversed(found)}
    assert set(firsts) == {0, 1, 2}
    assert all(block.runs[0].op is Op.TRUNCATE for block in firsts.values())
    for block in found:
        for run in block.runs:
            for row in run.rows:
                key = key_bytes(NOTES, row)
                assert partition_of(key, b"s" * 32, 3) == block.stream.partition


def test_ordinals_survive_the_split() -> None:
    it = machine(feed(partitions=2))
    it.step(rows(100, 4), NOW)
    found = blocks(it.step(Tick(), later(0.02)))
    runs = [run for block in found for run in block.runs]
    seen = {
        ordinal: row["id"]
        for run in runs
        for ordinal, row in zip(run.ordinals, run.rows, strict=True)
    }
    assert seen == {1: 1, 2: 2, 3: 3, 4: 4}


def test_a_partition_gets_one_run_of_a_transaction_however_its_keys_scatter() -> None:
    limits = replace(LIMITS, changes_max=400)
    feeds = [feed(partitions=2)]
    it = PublishMachine(ORIGIN, feeds, generation=7, upto={}, limits=limits)
    it.step(rows(100, 300), NOW)
    found = blocks(it.step(Tick(), later(0.02)))
    assert [len(block.runs) for block in found] == [1, 1]
    assert sorted(n for block in found for n in block.runs[0].ordinals) == [*range(1, 301)]
    assert any(block.runs[0].steps for block in found)


def test_large_changes_make_smaller_blocks() -> None:
    it = machine()
    (first,) = blocks(it.step(rows(100, 4), NOW))
    it.step(Stored(block=first, plaintext_bytes=4 * 400_000), NOW)
    (second,) = blocks(it.step(rows(101, 4), NOW))
    assert second.count < 4


def test_the_source_waits_while_too_much_is_pending() -> None:
    it = machine()
    it.step(rows(100, 4), NOW)
    assert not it.is_full
    it.step(rows(101, 40), NOW)
    assert it.is_full


def test_idle_positions_do_not_pile_up() -> None:
    it = machine()
    it.step(rows(100, 4), NOW)
    for position in range(101, 5_000):
        it.step(reached(position), NOW)
    assert len(it._reached) <= 2


def test_after_close_nothing_is_cut() -> None:
    it = machine()
    it.close()
    assert it.step(rows(100, 8), NOW) == []
    assert it.next_at() is None


def test_halves_say_together_what_the_whole_said() -> None:
    it = machine()
    it.step(mark(99, Op.SNAPSHOT_BEGIN), NOW)
    (block,) = blocks(it.step(rows(100, 3), NOW))
    left, right = halve(block)
    assert left.after == block.after
    assert left.upto == right.after
    assert right.upto == block.upto
    assert left.count + right.count == block.count
    with pytest.raises(UsageError):
        halve(halve(halve(block)[0])[0])


def test_an_acknowledgement_out_of_turn_is_a_bug() -> None:
    it = machine()
    block = Block(stream=STREAM, after=ZERO, upto=Sequence(7, 1, 1), runs=())
    with pytest.raises(UsageError):
        it.step(Stored(block=block, plaintext_bytes=0), NOW)
