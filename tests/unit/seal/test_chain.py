"""The reader's rules beyond the vectors: windows, other senders, stored state, long runs."""

import random
from dataclasses import dataclass, field, replace

import pytest

from fabric.model.change import ZERO, Sequence
from fabric.model.errors import DeniedError, FabricError, Malformed, PeerError, Reason
from fabric.model.limits import HEADS_REMEMBERED, SUPERSEDED_REMEMBERED
from fabric.model.names import Origin
from fabric.seal import envelope as form
from fabric.seal.chain import ROOT, ChainState, Verdict, judge
from fabric.seal.envelope import NO_PREVIOUS, Header
from fabric.seal.epoch import Head, VerifiedStart
from tests.fakes.sealing import LABEL, ORIGIN, TOPIC, Party, block, fixed

A, A2 = Party.make(), Party.make("G01/registry/a2")
_TEMPLATE = form.parse(A.seal(block(0), A.start(A.draft())).data).header


def header(start: VerifiedStart, counter: int, previous: bytes, span: tuple[int, int]) -> Header:
    """A header as `start`'s sender would write it; span is in positions of generation 1."""
    return replace(
        _TEMPLATE,
        sender=start.start.sender_id,
        epoch_id=start.start.id,
        epoch_number=start.start.number,
        start_hash=start.hash,
        counter=counter,
        previous=previous,
        after=Sequence(1, span[0], 0),
        upto=Sequence(1, span[1], 0),
    )


def digest_of(head: Header) -> bytes:
    return fixed(f"{head.epoch_id.hex()} {head.counter} {head.previous.hex()} {head.upto}")


@dataclass
class Reader:
    """Drives judge as an agent does."""

    state: ChainState | None = None
    high: Sequence = ZERO
    said: list[str] = field(default_factory=list)

    def take(self, start: VerifiedStart, head: Header, digest: bytes | None = None) -> Head:
        digest = digest or digest_of(head)
        step = judge(self.state, head, digest, start=start, high=self.high)
        self.said.append(step.verdict.value)
        if step.verdict is Verdict.ACCEPT:
            assert step.state is not None
            assert ChainState.decode(step.state.encode()) == step.state
            self.high = max(self.high, head.upto)
        self.state = step.state
        return Head(
            origin=ORIGIN,
            partition=0,
            epoch=head.epoch_id,
            counter=head.counter,
            hash=digest,
        )

    def run(self, start: VerifiedStart, count: int) -> list[Head]:
        """Take `count` envelopes of a fresh chain."""
        heads: list[Head] = []
        for n in range(count):
            previous = heads[-1].hash if heads else NO_PREVIOUS
            heads.append(self.take(start, header(start, n, previous, (n, n + 1))))
        return heads


def test_head_64_before_the_last_is_still_known_and_the_one_before_is_not() -> None:
    """MUST-7.7, with the limit of 10.8."""
    one = A.verified_start(A.draft(1))
    for back, known in ((HEADS_REMEMBERED, True), (HEADS_REMEMBERED + 1, False)):
        reader = Reader()
        heads = reader.run(one, 70)
        named = heads[-1 - back]
        two = A.verified_start(A.draft(2, heads=(named,)))
        again = header(two, 0, named.hash, (named.counter + 1, 99))
        if known:
            reader.take(two, again)
        else:
            with pytest.raises(PeerError) as caught:
                reader.take(two, again)
            assert caught.value.reason is Reason.GAP


def test_root_falls_out_of_memory_like_a_head() -> None:
    """MUST-7.8: a start without heads is no way to rewrite a long chain."""
    one, two = A.verified_start(A.draft(1)), A.verified_start(A.draft(2))
    reader = Reader()
    reader.run(one, HEADS_REMEMBERED)
    assert reader.state is not None
    assert reader.state.accepted[0] == ROOT
    reader = Reader()
    reader.run(one, HEADS_REMEMBERED + 1)
    with pytest.raises(PeerError) as caught:
        reader.take(two, header(two, 0, NO_PREVIOUS, (0, 99)))
    assert caught.value.reason is Reason.GAP


def test_reset_without_a_new_generation_does_not_replace_a_long_chain() -> None:
    """MUST-7.6."""
    one = A.verified_start(A.draft(1))
    two = A.verified_start(A.draft(2, chain_reset=True))
    reader = Reader()
    reader.run(one, HEADS_REMEMBERED + 1)
    again = header(two, 0, NO_PREVIOUS, (0, 99))
    for wrong in (
        again,
        replace(again, upto=Sequence(2, 9, 0), after=Sequence(2, 1, 0)),
        replace(again, upto=Sequence(2, 9, 0), previous=fixed("x")),
        replace(again, upto=Sequence(2, 9, 0), counter=1),
    ):
        with pytest.raises(PeerError) as caught:
            reader.take(two, wrong)
        assert caught.value.reason is Reason.GAP
    reader.take(two, replace(again, upto=Sequence(2, 9, 0)))
    assert reader.said[-1] == "accept"


def test_reset_is_taken_even_if_the_sender_lost_its_numbers() -> None:
    """MUST-7.6: a lost state file may lose the numbers too, and nothing may vanish silently."""
    nine = A.verified_start(A.draft(9))
    one = A.verified_start(A.draft(1, chain_reset=True))
    reader = Reader()
    reader.run(nine, 3)
    reader.take(one, replace(header(one, 0, NO_PREVIOUS, (0, 1)), upto=Sequence(2, 1, 0)))
    assert reader.said[-1] == "accept"


def test_left_epoch_is_known_by_its_id_where_numbers_say_nothing() -> None:
    """MUST-7.5: after lost numbers, and after another host took over."""
    nine = A.verified_start(A.draft(9))
    one = A.verified_start(A.draft(1, chain_reset=True))
    reader = Reader()
    last = reader.run(nine, 3)[-1]
    reader.take(one, replace(header(one, 0, NO_PREVIOUS, (0, 1)), upto=Sequence(2, 1, 0)))
    reader.take(nine, header(nine, 3, last.hash, (3, 4)))
    assert reader.said[-1] == "superseded"
    reader = Reader()
    last = reader.run(nine, 3)[-1]
    other = A2.verified_start(A2.draft(1, heads=(last,)))
    reader.take(other, header(other, 0, last.hash, (3, 4)))
    reader.take(nine, header(nine, 3, last.hash, (3, 4)))
    assert reader.said[-1] == "superseded"


def test_start_that_names_a_head_for_the_stream_is_no_reset_of_it() -> None:
    """MUST-7.6."""
    one = A.verified_start(A.draft(1))
    reader = Reader()
    reader.run(one, 3)
    stranger = Head(origin=ORIGIN, partition=0, epoch=fixed("e"), counter=0, hash=fixed("h"))
    two = A.verified_start(A.draft(2, chain_reset=True, heads=(stranger,)))
    with pytest.raises(PeerError) as caught:
        reader.take(two, replace(header(two, 0, NO_PREVIOUS, (0, 1)), upto=Sequence(2, 1, 0)))
    assert caught.value.reason is Reason.GAP


def test_another_host_of_the_system_may_take_over_from_the_current_epoch() -> None:
    """MUST-7.7."""
    one = A.verified_start(A.draft(5))
    reader = Reader()
    heads = reader.run(one, 3)
    take_over = A2.verified_start(A2.draft(1, heads=(heads[1],)))
    head = reader.take(take_over, header(take_over, 0, heads[1].hash, (2, 5)))
    back = A.verified_start(A.draft(6, heads=(head,)))
    reader.take(back, header(back, 0, head.hash, (5, 6)))
    assert reader.said == ["accept"] * 5


def test_two_hosts_that_go_on_from_one_head_are_a_gap_and_not_a_silent_choice() -> None:
    """MUST-7.7, MUST-7.8."""
    one = A.verified_start(A.draft(5))
    reader = Reader()
    last = reader.run(one, 3)[-1]
    take_over = A2.verified_start(A2.draft(1, heads=(last,)))
    reader.take(take_over, header(take_over, 0, last.hash, (3, 4)))
    late = A.verified_start(A.draft(6, heads=(last,)))
    with pytest.raises(PeerError) as caught:
        reader.take(late, header(late, 0, last.hash, (3, 4)))
    assert caught.value.reason is Reason.GAP


def test_duplicate_beyond_the_remembered_is_dropped_whatever_its_hash() -> None:
    """MUST-7.3, MUST-7.4."""
    one = A.verified_start(A.draft(1))
    reader = Reader()
    reader.run(one, 70)
    old = header(one, 2, fixed("x"), (2, 3))
    reader.take(one, old, fixed("another"))
    assert reader.said[-1] == "duplicate"
    with pytest.raises(PeerError) as caught:
        reader.take(one, replace(old, counter=69), fixed("another"))
    assert caught.value.reason is Reason.FORK


def test_left_epochs_are_remembered_up_to_the_limit_and_then_known_by_number() -> None:
    """MUST-7.5, with the limit of 10.8."""
    reader = Reader()
    first = A.verified_start(A.draft(1))
    last = reader.run(first, 1)[0]
    for number in range(2, SUPERSEDED_REMEMBERED + 10):
        start = A.verified_start(A.draft(number, heads=(last,)))
        last = reader.take(start, header(start, 0, last.hash, (number - 1, number)))
    assert reader.state is not None
    assert len(reader.state.superseded) == SUPERSEDED_REMEMBERED
    assert first.start.id not in reader.state.superseded
    reader.take(first, header(first, 1, fixed("x"), (1, 2)))
    assert reader.said[-1] == "superseded"
    assert len(reader.state.encode()) < 5_000


@pytest.mark.parametrize(
    "change",
    [
        {"sender": A2.draft().sender_id},
        {"label": replace(LABEL, level="internal")},
        {"topic": replace(TOPIC, dataset="other")},
        {"suite": "hybrid"},
        {"epoch_number": 2},
        {"epoch_id": bytes(32)},
        {"start_hash": bytes(32)},
    ],
)
def test_envelope_that_does_not_belong_to_its_start_is_refused(change: dict[str, object]) -> None:
    """MUST-7.1: else a start could be lent to another topic, label or suite."""
    one = A.verified_start(A.draft(1))
    wrong = replace(header(one, 0, NO_PREVIOUS, (0, 1)), **change)  # type: ignore[arg-type]
    with pytest.raises(PeerError) as caught:
        judge(None, wrong, bytes(32), start=one, high=ZERO)
    assert caught.value.reason is Reason.IDENTITY_MISMATCH


def test_heads_of_other_streams_do_not_matter() -> None:
    """MUST-7.9."""
    elsewhere = Head(origin=ORIGIN, partition=1, epoch=fixed("e"), counter=1, hash=fixed("h"))
    other = replace(elsewhere, partition=0, origin=Origin.parse("G01/registry/aux"))
    one = A.verified_start(A.draft(1, heads=(elsewhere, other)))
    reader = Reader()
    reader.take(one, header(one, 0, NO_PREVIOUS, (0, 1)))
    assert reader.said == ["accept"]


def test_first_join_after_the_beginning_says_history_lost_until_a_reset_comes() -> None:
    """MUST-7.9."""
    one = A.verified_start(A.draft(1))
    reader = Reader()
    for counter in (3, 4):
        with pytest.raises(DeniedError) as caught:
            reader.take(one, header(one, counter, fixed("x"), (counter, counter + 1)))
        assert caught.value.reason is Reason.HISTORY_LOST
    two = A.verified_start(A.draft(2, chain_reset=True))
    reader.take(two, header(two, 0, NO_PREVIOUS, (0, 1)))
    assert reader.said == ["accept"]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x01", fixed("garbage", 100)])
def test_stored_state_that_is_damaged_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        ChainState.decode(data)


def test_truncated_state_is_malformed() -> None:
    reader = Reader()
    reader.run(A.verified_start(A.draft(1)), 3)
    assert reader.state is not None
    whole = reader.state.encode()
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            ChainState.decode(whole[:end])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_broker_does_no_change_is_lost_in_silence_or_applied_twice(seed: int) -> None:
    """A sender that crashes, a broker that drops, repeats, re-orders and replays.

    After every accepted envelope the reader holds every position up to H, each once.
    It may stop with GAP or FORK; it may not go on over a hole.
    """
    rng = random.Random(seed)
    log = _crashing_sender(rng)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(log))
        act = rng.choice(["drop", "repeat", "swap"])
        if act == "drop":
            del log[place]
        elif act == "repeat":
            log.insert(rng.randrange(place, len(log)) + 1, log[place])
        else:
            other = min(place + 1, len(log) - 1)
            log[place], log[other] = log[other], log[place]
    reader, applied = Reader(), []
    for start, head in log:
        high = reader.high
        try:
            reader.take(start, head)
        except FabricError:
            break
        if reader.said[-1] == "accept":
            span = range(head.after.position + 1, head.upto.position + 1)
            applied += [n for n in span if n > high.position]
    assert applied == list(range(1, len(applied) + 1))
    assert reader.high.position == len(applied)


def _crashing_sender(rng: random.Random) -> list[tuple[VerifiedStart, Header]]:
    """What a sender writes that crashes at will between sending and storing the answer."""
    log: list[tuple[VerifiedStart, Header]] = []
    known: Head | None = None
    done = 0
    for number in range(1, 13):
        start = A.verified_start(A.draft(number, heads=(known,) if known else ()))
        position, counter = done, 0
        previous = known.hash if known else NO_PREVIOUS
        for _ in range(rng.randrange(4)):
            upto = position + rng.randrange(1, 4)
            head = header(start, counter, previous, (position, upto))
            log.append((start, head))
            if rng.random() < 0.2:
                break  # it crashed: what was sent last is in the log, and it does not know
            position, counter, previous = upto, counter + 1, digest_of(head)
            done = position
            known = Head(
                origin=ORIGIN,
                partition=0,
                epoch=head.epoch_id,
                counter=head.counter,
                hash=previous,
            )
    return log or _crashing_sender(rng)


def test_sender_that_only_crashes_never_stops_a_reader() -> None:
    for seed in range(20):
        reader = Reader()
        for start, head in _crashing_sender(random.Random(seed)):
            reader.take(start, head)
        assert set(reader.said) == {"accept"}
