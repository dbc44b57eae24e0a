"""What the judge says beyond the scenarios: whole verdicts, and what it remembers."""

import hashlib
from datetime import timedelta

import pytest

from fabric.gateway import producers, wire
from fabric.gateway.judge import Admitted, Judge, Refused, Repeated, Verdict
from fabric.gateway.replay import Replays
from fabric.gateway.requests import Part
from fabric.kafka.producer import CONTENT_TYPE
from fabric.model.errors import Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import MEMBERS
from tests.fakes.gateway import GRANTS, OPEN, SEALED, World, batch


@pytest.fixture
def world() -> World:
    return World()


def test_an_admitted_envelope_says_where_it_stands_in_its_chain(world: World) -> None:
    part = Part(SEALED, 0, batch(world.seal()))
    verdict = world.judge().judge(part, world.identity(), world.now)
    assert isinstance(verdict, Admitted)
    (mark,) = verdict.marks
    assert (mark.counter, mark.hash) == (0, world.sealed[0].hash)


def test_refused_records_are_named_with_their_digests(world: World) -> None:
    part = Part(OPEN, 0, batch(world.open_record(), b"bad", b"worse"))
    verdict = world.judge().judge(part, world.identity(), world.now)
    assert isinstance(verdict, Refused)
    assert verdict.bad == (1, 2)
    assert verdict.notes == tuple(hashlib.sha256(v).digest() for v in (b"bad", b"worse"))
    assert verdict.message == "gateway: malformed: record is not in Confluent's wire format"


def test_a_judge_that_waits_names_the_records_too(world: World) -> None:
    judge = Judge(Replays(), heartbeat_interval_s=1)
    verdict = judge.judge(Part(OPEN, 0, batch(b"x")), world.identity(), world.now)
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.NOT_READY
    assert verdict.notes == (hashlib.sha256(b"x").digest(),)


def test_a_verdict_stands_until_host_policy_or_view_changes(world: World) -> None:
    judge, identity = world.judge(), world.identity()
    envelope = Part(SEALED, 0, batch(world.seal()))
    row = Part(OPEN, 0, batch(world.open_record()))
    for part in (envelope, row):
        assert judge.confirm(part, identity, world.now) is None
    judge.view = world.approving(world.b.host)
    for part in (envelope, row):
        refused = judge.confirm(part, identity, world.now)
        assert refused is not None
        assert refused.reason is Reason.NOT_APPROVED
        assert len(refused.notes) == 1
    judge.view = world.view
    stale = judge.confirm(row, identity, world.now + timedelta(seconds=2.001))
    assert stale is not None
    assert stale.reason is Reason.MEMBERS_STALE


def test_two_missed_heartbeats_stop_everything_but_the_authority(world: World) -> None:
    judge, now = world.judge(), world.now + timedelta(seconds=2)
    part = Part(OPEN, 0, batch(world.open_record()))
    assert isinstance(judge.judge(part, world.identity(), now), Admitted)
    now += timedelta(milliseconds=1)
    verdict = judge.judge(part, world.identity(), now)
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.MEMBERS_STALE
    _, key, value = world.heartbeat()
    beat = Part(MEMBERS, 0, batch(value, key=key))
    assert isinstance(judge.judge(beat, world.platform("verifier"), now), Admitted)


def test_a_clock_that_is_set_back_stops_everything_but_the_authority(world: World) -> None:
    """What has ended is not valid again: the last heartbeat was seen later than that."""
    judge, identity = world.judge(), world.identity()
    part = Part(OPEN, 0, batch(world.open_record()))
    behind = world.now - timedelta(seconds=CLOCK_SKEW_S_MAX)
    assert judge.confirm(part, identity, behind) is None
    behind -= timedelta(milliseconds=1)
    for refused in (judge.judge(part, identity, behind), judge.confirm(part, identity, behind)):
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.MEMBERS_STALE
    _, key, value = world.heartbeat()
    beat = Part(MEMBERS, 0, batch(value, key=key))
    assert isinstance(judge.judge(beat, world.platform("verifier"), behind), Admitted)


def test_what_is_stored_is_repeated_even_when_its_result_has_ended(world: World) -> None:
    judge, part = world.judge(), Part(SEALED, 0, batch(world.seal()))
    verdict = judge.judge(part, world.identity(), world.now)
    assert isinstance(verdict, Admitted)
    judge.replays.stored(verdict.marks, 12)
    later = world.now + timedelta(seconds=120)
    world.members.feed(*world.heartbeat(at=later))
    assert judge.judge(part, world.identity(), later) == Repeated(offset=12)


def test_a_refused_envelope_leaves_no_trace_in_the_replay_memory(world: World) -> None:
    judge = world.judge()
    old = batch(world.seal(now=world.now - timedelta(seconds=100)))
    verdict = judge.judge(Part(SEALED, 0, old), world.identity(), world.now)
    assert isinstance(verdict, Refused)
    assert len(judge.replays) == 0


def test_one_bad_envelope_keeps_its_whole_batch_out_of_the_memory(world: World) -> None:
    judge = world.judge()
    both = batch(world.seal(), world.seal()[:-1])
    verdict = judge.judge(Part(SEALED, 0, both), world.identity(), world.now)
    assert isinstance(verdict, Refused)
    assert verdict.bad == (1,)
    assert len(judge.replays) == 0


def test_a_fault_of_ours_is_never_an_admission(world: World) -> None:
    judge = world.judge()
    judge.view = object()  # type: ignore[assignment]  # a broken view
    with pytest.raises(AttributeError):
        judge.judge(Part(OPEN, 0, batch(world.open_record())), world.identity(), world.now)


def test_hybrid_envelopes_are_judged_alike() -> None:
    world = World(suite="hybrid")
    part = Part(SEALED, 0, batch(world.seal()))
    assert isinstance(world.judge().judge(part, world.identity(), world.now), Admitted)


def bomb(count: int) -> bytes:
    """A batch that is small on the way and long to read."""
    return batch(*[bytes(64)] * count, codec=1)


def test_who_may_write_nothing_costs_next_to_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a record of a stranger is looked at, and nothing is decompressed for it."""
    monkeypatch.setattr(wire, "records_of", None)
    monkeypatch.setattr(wire, "_expand", None)
    data, judge = bomb(1000), world.judge()
    for topic, reason in (
        ("no.such.topic", Reason.TOPIC_UNKNOWN),
        (SEALED, Reason.NOT_A_PRODUCER),
        (OPEN, Reason.NOT_A_PRODUCER),
        (MEMBERS, Reason.IDENTITY_MISMATCH),
    ):
        found = judge.judge(Part(topic, 0, data), world.identity(world.b), world.now)
        assert isinstance(found, Refused)
        assert (found.reason, found.notes) == (reason, ())


def test_a_compressed_batch_of_a_sealed_topic_is_not_expanded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_expand", None)
    found = world.judge().judge(Part(SEALED, 0, bomb(100)), world.identity(), world.now)
    assert isinstance(found, Refused)
    assert found.reason is Reason.MALFORMED


def test_an_answer_names_a_hundred_bad_records_and_not_all(world: World) -> None:
    data = batch(*[b"bad"] * 5000)
    found = world.judge().judge(Part(OPEN, 0, data), world.identity(), world.now)
    assert isinstance(found, Refused)
    assert found.bad == tuple(range(100))


def test_an_identity_writes_under_so_many_producer_ids_a_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producers, "PRODUCER_IDS_PER_IDENTITY_MAX", 2)
    judge, identity, row = world.judge(), world.identity(), world.open_record()

    def written(producer_id: int) -> Verdict:
        return judge.judge(Part(OPEN, 0, batch(row, producer_id=producer_id)), identity, world.now)

    assert [type(written(ident)) for ident in (1, 2, -1, 1)] == [Admitted] * 4
    refused = written(3)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.OVERLOADED


def test_control_topics_take_no_idempotent_producers_and_data_topics_do(world: World) -> None:
    beat, start = world.heartbeat(), f"{world.a.host}/start/1".encode()
    for number, is_refused in ((-1, False), (0, True), (9, True)):
        for part, identity in (
            (
                Part(MEMBERS, 0, batch(beat[2], key=beat[1], producer_id=number)),
                world.platform("verifier"),
            ),
            (
                Part(GRANTS, 0, batch(world.started.value, key=start, producer_id=number)),
                world.identity(),
            ),
        ):
            found = world.judge().judge(part, identity, world.now)
            assert isinstance(found, Refused) == is_refused
            assert not isinstance(found, Refused) or found.reason is Reason.API_REFUSED
    for part in (
        Part(SEALED, 0, batch(world.seal(), producer_id=9)),
        Part(OPEN, 0, batch(world.open_record(), producer_id=9)),
    ):
        assert isinstance(world.judge().judge(part, world.identity(), world.now), Admitted)


def test_nothing_stands_in_the_clear_beside_an_envelope(world: World) -> None:
    value = world.seal()
    for headers in (
        [("content-type", b"NAME=Nguyen Van A")],
        [("Content-Type", CONTENT_TYPE[1])],
        [CONTENT_TYPE, CONTENT_TYPE],
    ):
        data = batch(value, headers=headers)
        found = world.judge().judge(Part(SEALED, 0, data), world.identity(), world.now)
        assert isinstance(found, Refused)
    fits = batch(value, headers=[CONTENT_TYPE])
    found = world.judge().judge(Part(SEALED, 0, fits), world.identity(), world.now)
    assert isinstance(found, Admitted)
