"""What a reader takes from the log."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.admit.reader import RuledOut, admit_read, is_trusted_still
from fabric.admit.view import Place, View
from fabric.attest.members import notice_record
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.names import MEMBERS
from tests.fakes.gateway import OPEN, SEALED, World
from tests.fakes.verifier import a_notice

HERE = Place(SEALED, 0)


@pytest.fixture
def world() -> World:
    return World()


def why(world: World, value: bytes, place: Place = HERE, *, late_s: float = 0) -> Reason:
    appended = world.now + timedelta(seconds=late_s)
    with pytest.raises(FabricError) as refused:
        admit_read(value, place, world.view, appended=appended)
    return refused.value.reason


def test_an_honest_record_is_taken_also_after_its_result_has_ended(world: World) -> None:
    value = world.seal()
    found = admit_read(value, HERE, world.view, appended=world.now + timedelta(seconds=60))
    assert found.envelope.header.counter == 0


def test_the_gateways_questions_are_asked_again(world: World) -> None:
    assert why(world, world.open_record()) is Reason.NOT_SEALED
    assert why(world, world.seal()[:-1]) is Reason.MALFORMED
    assert why(world, world.seal(), Place(OPEN, 0)) is Reason.TOPIC_MISMATCH
    assert why(world, world.seal(), Place(SEALED, 1)) is Reason.PARTITION_MISMATCH
    assert why(world, world.seal(result_id=bytes(16))) is Reason.RESULT_UNKNOWN
    assert why(world, world.seal(policy_version=8)) is Reason.POLICY_NEWER
    value = world.seal()
    assert why(world, value[:-1] + bytes([value[-1] ^ 1])) is Reason.BAD_SIGNATURE


def test_an_envelope_of_a_host_that_may_not_publish_is_refused(world: World) -> None:
    assert why(world, world.seal_as(world.b)) is Reason.NOT_A_PRODUCER


def test_sealing_before_the_result_or_after_it_is_refused(world: World) -> None:
    early = world.a.result.issued - timedelta(seconds=31)
    assert why(world, world.seal(now=early)) is Reason.NOT_ATTESTED
    assert why(world, world.seal(now=world.a.result.expires)) is Reason.RESULT_EXPIRED


def test_what_was_sealed_before_a_suspension_stays_and_what_came_after_does_not(
    world: World,
) -> None:
    before = world.seal()
    notice = a_notice(1, host=world.a.host, at=world.now + timedelta(seconds=1))
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    admit_read(before, HERE, world.view, appended=world.now)
    after = world.seal(now=world.now + timedelta(seconds=2))
    assert why(world, after, late_s=2) is Reason.HOST_SUSPENDED


def test_what_was_sealed_under_an_approval_stays_but_its_sender_is_not_trusted_still(
    world: World,
) -> None:
    value = world.seal()
    for view, trusted in (
        (world.view, True),
        (world.approving(), False),
        (world.approving(world.a.host, security_level=3), False),
        (world.approving(world.a.host, not_after=world.now), False),
    ):
        verified = admit_read(value, HERE, view, appended=world.now)
        assert is_trusted_still(verified, view, world.now) is trusted


def test_a_sender_is_not_trusted_still_once_its_result_has_ended_or_a_notice_stands(
    world: World,
) -> None:
    verified = admit_read(world.seal(), HERE, world.view, appended=world.now)
    assert not is_trusted_still(verified, world.view, world.a.result.expires)
    notice = a_notice(1, host=world.a.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert not is_trusted_still(verified, world.view, world.now)


def test_append_time_and_time_of_sealing_lie_together(world: World) -> None:
    assert why(world, world.seal(), late_s=91) is Reason.TOO_OLD
    assert why(world, world.seal(), late_s=-31) is Reason.FROM_THE_FUTURE


def test_an_ended_policy_is_told_only_of_what_a_trusted_sender_signed(world: World) -> None:
    """Readers wait for its renewal, so nobody else's record may make them wait."""
    ended = View(replace(world.policy, expires=world.now), world.members)
    value = world.seal()
    cases = {
        Reason.POLICY_EXPIRED: value,
        Reason.BAD_SIGNATURE: value[:-1] + bytes([value[-1] ^ 1]),
        Reason.RESULT_EXPIRED: world.seal(now=world.a.result.expires),
    }
    for reason, record in cases.items():
        with pytest.raises(FabricError) as refused:
            admit_read(record, HERE, ended, appended=world.now)
        assert refused.value.reason is reason


def test_a_block_of_its_origins_own_host_that_the_policy_refuses_by_now_is_told_apart(
    world: World,
) -> None:
    value = world.seal()
    rule = world.policy.rules["secret"]
    stricter = replace(world.policy, rules={"secret": replace(rule, evidence=frozenset())})
    with pytest.raises(RuledOut) as refused:
        admit_read(value, HERE, View(stricter, world.members), appended=world.now)
    assert refused.value.reason is Reason.EVIDENCE_REFUSED
    assert refused.value.header.counter == 0


def test_nobody_elses_block_is_taken_for_one_that_the_policy_refuses_by_now(world: World) -> None:
    """An approved host may write what it likes where the broker lets it."""
    foreign = world.seal_as(world.b)
    ended = View(replace(world.policy, expires=world.now), world.members)
    withdrawn = View(replace(world.policy, datasets={}), world.members)
    cases = [(foreign, world.view), (world.seal(), ended), (world.seal(), withdrawn)]
    for value, view in cases:
        with pytest.raises(DeniedError) as refused:
            admit_read(value, HERE, view, appended=world.now)
        assert not isinstance(refused.value, RuledOut)
