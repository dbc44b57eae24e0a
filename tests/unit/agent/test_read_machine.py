"""What a reader does with records, one event at a time."""

from dataclasses import replace

import pytest

from fabric.agent import read_machine as m
from fabric.agent.anchor_machine import Cover
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.names import Origin
from fabric.ports import StreamState
from fabric.seal.epoch import Head, parse_start, verify_start
from fabric.seal.sealing import Link, Sealed
from tests.fakes.sealing import STREAM, TRUST_DOMAIN, Party, block

LOG = m.Log(cluster="cluster", topic_id="topic")
SENDER = Party.make()


def machine(states: dict[object, StreamState] | None = None) -> m.ReadMachine:
    return m.ReadMachine(LOG, states or {})  # type: ignore[arg-type]


class Chain:
    """Envelopes of one epoch, sealed for real."""

    def __init__(self, **draft: object) -> None:
        self.started = SENDER.start(SENDER.draft(**draft))  # type: ignore[arg-type]
        opened = parse_start(self.started.value)
        self.verified = verify_start(opened, SENDER.result, TRUST_DOMAIN)
        self.counter = 0
        self.last: Sealed | None = None

    def came(self, content: Block, offset: int, *, previous: bytes = bytes(32)) -> m.Came:
        previous = previous if self.last is None else self.last.hash
        link = Link(counter=self.counter, previous=previous)
        self.last = SENDER.seal(content, self.started, link=link)
        self.counter += 1
        header = SENDER.verify(self.last.data).envelope.header
        return m.Came(offset=offset, header=header, digest=self.last.hash, start=self.verified)


def apply(it: m.ReadMachine, came: m.Came, content: Block) -> m.Apply:
    assert it.step(came) == m.Open()
    command = it.step(m.Opened(block=content))
    assert isinstance(command, m.Apply)
    return command


def test_a_first_block_is_opened_applied_and_remembered() -> None:
    it, chain, content = machine(), Chain(), block()
    command = apply(it, chain.came(content, 4), content)
    assert command.expected is None
    assert command.new.high == content.upto
    assert command.new.offset == 5
    assert (command.new.cluster, command.new.topic_id) == ("cluster", "topic")
    assert it.step(m.Applied(state=command.new)) == m.Done()
    assert it.state(STREAM) == command.new


def test_a_repeated_envelope_is_dropped_and_counted() -> None:
    it, chain, content = machine(), Chain(), block()
    came = chain.came(content, 0)
    it.step(m.Applied(state=apply(it, came, content).new))
    assert it.step(replace(came, offset=9)) == m.Drop(reason=None, outcome="duplicate")


def test_a_missing_envelope_stops_the_stream_and_only_that() -> None:
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    chain.came(block(after=first.upto, position=200), 1)
    lost = chain.came(block(after=Sequence(1, 200, 3), position=300), 2)
    assert it.step(lost) == m.Stop(stream=STREAM, reason=Reason.GAP)
    assert it.stopped == {STREAM: Reason.GAP}
    assert it.step(lost) == m.Drop(reason=None, outcome="stopped")


def gapped() -> tuple[m.ReadMachine, m.Command]:
    """A stream that stopped at a gap, and what stopped it."""
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    chain.came(block(after=first.upto, position=200), 1)
    return it, it.step(chain.came(block(after=Sequence(1, 200, 3), position=300), 2))


def anew(generation: int) -> Block:
    """The first block of a source that is read anew."""
    run = Run(op=Op.SNAPSHOT_BEGIN, position=1, ordinal=1, commit_us=0, rows=[])
    upto = Sequence(generation, 1, 1)
    return replace(block(), after=Sequence(generation - 1, 900, 1), upto=upto, runs=(run,))


def test_a_stream_that_stopped_at_a_gap_goes_on_where_its_source_is_read_anew() -> None:
    """MUST-7.6, MUST-7.8."""
    it, why = gapped()
    assert why == m.Stop(stream=STREAM, reason=Reason.GAP)
    content = anew(2)
    command = apply(it, Chain(number=2, chain_reset=True).came(content, 3), content)
    assert command.new.high == content.upto
    assert command.new.incomplete
    assert not it.stopped


def test_a_start_that_had_to_go_is_not_waited_for_and_its_stream_is_read_anew() -> None:
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    came = replace(chain.came(block(after=first.upto, position=200), 1), start=None)
    assert it.step(came) == m.Pause(reason=Reason.EPOCH_START_MISSING)
    gone = replace(came, is_too_old=True)
    assert it.step(gone) == m.Stop(stream=STREAM, reason=Reason.EPOCH_START_MISSING)
    assert it.step(gone) == m.Drop(reason=None, outcome="stopped")
    content = anew(2)
    command = apply(it, Chain(number=2, chain_reset=True).came(content, 3), content)
    assert command.new.incomplete
    assert not it.stopped


def test_nothing_but_a_new_generation_ends_a_stop_at_a_gap_and_nothing_ends_a_fork() -> None:
    stopped = m.Drop(reason=None, outcome="stopped")
    it, _ = gapped()
    same = replace(block(), after=Sequence(0, 0, 0))
    assert it.step(Chain(number=2, chain_reset=True).came(same, 3)) == stopped
    assert it.step(Chain(number=2).came(anew(2), 3)) == stopped
    assert it.step(replace(Chain(number=2, chain_reset=True).came(anew(2), 3), start=None)) == (
        stopped
    )
    it._stopped[STREAM] = Reason.FORK
    assert it.step(Chain(number=2, chain_reset=True).came(anew(2), 3)) == stopped


def test_what_admission_refuses_is_dropped_unless_it_may_pass_later() -> None:
    for reason in Reason:
        command = machine().step(m.Refused(offset=0, reason=reason))
        if class_of(reason) is ReasonClass.WAIT or reason is Reason.POLICY_EXPIRED:
            assert command == m.Pause(reason=reason)
        else:
            assert command == m.Drop(reason=reason, outcome="")


def test_an_unknown_epoch_start_pauses() -> None:
    came = replace(Chain().came(block(), 0), start=None)
    assert machine().step(came) == m.Pause(reason=Reason.EPOCH_START_MISSING)


def test_a_missing_grant_pauses_and_a_block_that_does_not_open_stops() -> None:
    for reason, expected in (
        (Reason.GRANT_MISSING, m.Pause(reason=Reason.GRANT_MISSING)),
        (Reason.OPEN_FAILED, m.Stop(stream=STREAM, reason=Reason.OPEN_FAILED)),
    ):
        it = machine()
        it.step(Chain().came(block(), 0))
        assert it.step(m.NotOpened(reason=reason)) == expected


def test_under_from_join_what_was_sealed_before_us_is_passed_over() -> None:
    """MUST-7.11."""
    came = replace(Chain(history="from_join").came(block(), 0), before_join=True)
    assert machine().step(came) == m.Drop(reason=None, outcome="before_join")


def test_a_stream_that_we_follow_is_never_before_our_join() -> None:
    it, chain, first = machine(), Chain(history="from_join"), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    came = replace(chain.came(block(after=first.upto, position=200), 1), before_join=True)
    assert it.step(came) == m.Open()
    assert it.step(m.NotOpened(reason=Reason.GRANT_MISSING)) == m.Pause(reason=Reason.GRANT_MISSING)


def joined(it: m.ReadMachine, *, history: str = "from_join") -> m.Apply | m.Command:
    """The first block that we may have: the sender goes on from a head that we never saw."""
    head = Head(
        origin=STREAM.origin, partition=0, epoch=bytes(32), counter=9, hash=bytes(range(32))
    )
    chain, content = Chain(history=history, heads=(head,)), block(after=Sequence(1, 50, 1))
    command = it.step(chain.came(content, 7, previous=head.hash))
    return it.step(m.Opened(block=content)) if command == m.Open() else command


def test_under_from_join_a_stream_begins_at_the_first_epoch_granted_and_is_incomplete() -> None:
    """MUST-7.9, MUST-7.11."""
    it = machine()
    command = joined(it)
    assert isinstance(command, m.Apply)
    assert command.new.incomplete
    assert command.block.count == 3
    it.step(m.Applied(state=command.new))
    assert it.state(STREAM) == command.new


def test_under_retained_a_stream_never_begins_in_its_middle() -> None:
    assert joined(machine(), history="retained") == m.Drop(reason=Reason.HISTORY_LOST, outcome="")


def test_a_log_without_the_streams_beginning_is_said_and_passed_over() -> None:
    chain = Chain()
    chain.came(block(), 0)
    second = chain.came(block(after=Sequence(1, 100, 3), position=200), 1)
    assert machine().step(second) == m.Drop(reason=Reason.HISTORY_LOST, outcome="")


def test_changes_that_are_in_the_table_already_are_trimmed() -> None:
    it, first = machine(), block()
    chain = Chain()
    state = apply(it, chain.came(first, 0), first).new
    it.step(m.Applied(state=state))
    again = Chain(number=2)  # the sender never saw its acknowledgement: it starts from the root
    longer = replace(
        block(position=100),
        upto=Sequence(1, 150, 1),
        runs=(*first.runs, *block(1, position=150).runs),
    )
    command = apply(it, again.came(longer, 1), longer)
    assert [run.position for run in command.block.runs] == [150]
    assert command.expected == state
    assert command.new.high == Sequence(1, 150, 1)


def test_the_loser_of_a_race_reads_the_state_again() -> None:
    it, chain, content = machine(), Chain(), block()
    came = chain.came(content, 0)
    winner = apply(it, came, content).new
    assert it.step(m.NotApplied(reason=Reason.OVERLOADED)) == m.Reload(stream=STREAM)
    it.load(STREAM, winner)
    assert it.step(came) == m.Drop(reason=None, outcome="duplicate")


def test_what_was_judged_and_not_applied_is_judged_anew_by_the_state_that_stands() -> None:
    """A chain kept from the first try would call the block a duplicate, and lose it."""
    it, chain, first = machine(), Chain(), block()
    kept = apply(it, chain.came(first, 0), first).new
    it.step(m.Applied(state=kept))
    second = block(after=first.upto, position=200)
    came = chain.came(second, 1)
    apply(it, came, second)
    assert it.step(m.NotApplied(reason=Reason.OVERLOADED)) == m.Reload(stream=STREAM)
    it.load(STREAM, kept)
    assert apply(it, came, second).new.high == second.upto


def test_a_change_that_cannot_be_applied_stops_the_stream() -> None:
    it, chain, content = machine(), Chain(), block()
    apply(it, chain.came(content, 0), content)
    command = it.step(m.NotApplied(reason=Reason.APPLY_FAILED))
    assert command == m.Stop(stream=STREAM, reason=Reason.APPLY_FAILED)


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, 40),
        ({"cluster": "another"}, 10),
        ({"topic_id": "made anew"}, 10),
        ({"offset": 5}, 10),
        ({"offset": m.BEGINNING}, 10),
        ({"offset": 99}, 10),
    ],
)
def test_a_hint_counts_only_for_its_own_log(changes: dict[str, object], start: int) -> None:
    state = StreamState(
        high=ZERO, chain=b"", offset=40, cluster="cluster", topic_id="topic", incomplete=False
    )
    it = machine({STREAM: replace(state, **changes)})  # type: ignore[arg-type]
    assert it.start_offset(10, 50) == start


def old(came: m.Came) -> m.Came:
    return replace(came, is_live=False)


def search(it: m.ReadMachine, came: m.Came, cover: Cover) -> m.Command:
    assert it.step(old(came)) == m.Search()
    return it.step(m.Searched(cover=cover))


UNANCHORED = m.Drop(reason=None, outcome="unanchored")


def test_an_old_block_is_taken_when_it_is_covered() -> None:
    it, came = machine(), Chain().came(block(), 0)
    assert search(it, came, Cover.COVERED) == m.Open()


def test_an_old_block_that_its_sender_abandoned_is_dropped_and_audited() -> None:
    it, came = machine(), Chain().came(block(), 0)
    assert search(it, came, Cover.ABANDONED) == m.Drop(reason=Reason.SUPERSEDED, outcome="")
    assert not it.held


def test_an_old_block_that_nobody_vouches_for_holds_its_stream() -> None:
    it, chain, first = machine(), Chain(), block()
    assert search(it, chain.came(first, 4), Cover.UNKNOWN) == UNANCHORED
    second = chain.came(block(after=first.upto, position=200), 5)
    assert it.step(old(second)) == UNANCHORED
    assert it.held[STREAM].offset == 4
    assert [digest for _, digest in it.held[STREAM].seen][1:] == [second.digest]
    assert it.release() == 4
    assert it.release() is None
    assert not it.held


def test_a_fresh_block_that_builds_on_what_is_held_waits_with_it_and_is_no_gap() -> None:
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    second = block(after=first.upto, position=200)
    assert search(it, chain.came(second, 1), Cover.UNKNOWN) == UNANCHORED
    third = chain.came(block(after=second.upto, position=300), 2)
    assert it.step(third) == UNANCHORED
    assert not it.stopped


def test_a_fresh_block_that_goes_on_from_what_is_applied_ends_the_holding() -> None:
    """What was held is abandoned, or was made up by a lapsed host and a broker."""
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    counter, last = chain.counter, chain.last
    made_up = chain.came(block(after=first.upto, position=200), 1)
    assert search(it, made_up, Cover.UNKNOWN) == UNANCHORED
    chain.counter, chain.last = counter, last
    real = block(2, after=first.upto, position=250)
    assert apply(it, chain.came(real, 2), real).new.offset == 3
    assert not it.held


def test_while_a_stream_is_held_no_hint_moves_past_its_first_block() -> None:
    it, chain, first = machine(), Chain(), block()
    other = replace(STREAM, partition=0, origin=Origin.parse("G01/registry/other"))
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    it.held[other] = m.Held(offset=1, seen=[])  # type: ignore[index]
    second = block(after=first.upto, position=200)
    assert apply(it, chain.came(second, 7), second).new.offset == 1


def test_a_new_generation_is_incomplete_until_a_snapshot_in_it_ends() -> None:
    """What an outbox had sent is gone: its new generation brings no snapshot by itself."""
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    after = Sequence(1, 900, 1)
    content = replace(block(after=after), upto=Sequence(2, 100, 3))
    renewed = Chain(number=2, chain_reset=True)
    command = apply(it, renewed.came(content, 3), content)
    assert command.new.incomplete
    begin, end = Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END
    for place, (op, after) in enumerate(((end, True), (begin, True), (end, False)), 4):
        it.step(m.Applied(state=command.new))
        upto = Sequence(2, place * 100, 1)
        run = Run(op=op, position=place * 100, ordinal=1, commit_us=0, rows=[])
        content = replace(block(after=content.upto), upto=upto, runs=(run,))
        command = apply(it, renewed.came(content, place), content)
        assert command.new.incomplete is after, op


def with_a_tail() -> tuple[m.ReadMachine, m.Came, m.Came]:
    """One block is applied, and two more lie behind it."""
    it, chain, first = machine(), Chain(), block()
    it.step(m.Applied(state=apply(it, chain.came(first, 0), first).new))
    second = block(after=first.upto, position=200)
    third = block(after=second.upto, position=300)
    return it, chain.came(second, 1), chain.came(third, 2)


DROPPED = m.Drop(reason=Reason.SUPERSEDED, outcome="")


def test_a_tail_that_its_sender_abandoned_is_dropped_whole_and_is_no_gap() -> None:
    """MUST-9.38"""
    it, second, third = with_a_tail()
    assert search(it, second, Cover.ABANDONED) == DROPPED
    assert search(it, third, Cover.ABANDONED) == DROPPED
    assert not it.stopped


def test_what_follows_an_abandoned_block_is_looked_up_though_its_result_runs() -> None:
    it, second, third = with_a_tail()
    search(it, second, Cover.ABANDONED)
    assert it.step(third) == m.Search()
    assert it.step(m.Searched(cover=Cover.ABANDONED)) == DROPPED
    assert not it.stopped


def test_a_block_whose_result_runs_after_a_hole_is_a_gap_at_once() -> None:
    it, _, third = with_a_tail()
    assert it.step(third) == m.Stop(stream=STREAM, reason=Reason.GAP)


def test_an_old_block_after_a_hole_is_a_gap_once_it_is_covered() -> None:
    it, _, third = with_a_tail()
    assert search(it, third, Cover.COVERED) == m.Stop(stream=STREAM, reason=Reason.GAP)


@pytest.mark.parametrize("after_snapshot", [True, False])
def test_who_joined_and_stands_inside_its_first_block_lacks_what_it_says_it_lacks(
    after_snapshot: bool,
) -> None:
    """A subscriber that acknowledged a change behind the snapshot is complete."""
    marks = [
        Run(op=op, position=10, ordinal=n, commit_us=0, rows=[])
        for n, op in enumerate((Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END, Op.TRUNCATE, Op.TRUNCATE), 1)
    ]
    begins, ends = Sequence(1, 5, 0), Sequence(1, 10, 4)
    content = replace(block(), after=begins, upto=ends, runs=tuple(marks))
    head = Head(
        origin=STREAM.origin, partition=STREAM.partition, epoch=b"e" * 32, counter=4, hash=b"h" * 32
    )
    came = Chain(number=2, history="from_join", heads=(head,)).came(content, 4, previous=head.hash)
    state = StreamState(
        high=Sequence(1, 10, 3) if after_snapshot else begins,
        chain=b"",
        offset=0,
        cluster="cluster",
        topic_id="topic",
        incomplete=False,
    )
    rest = replace(content, runs=tuple(marks[3:]))
    assert apply(machine({STREAM: state}), came, rest).new.incomplete is not after_snapshot
