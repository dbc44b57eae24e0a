"""What the audit and the receipts topic let in: one's own word, signed, by who may give it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.admit import door
from fabric.admit.view import View
from fabric.attest.audit_head import head_record
from fabric.attest.members import NoticeKind, notice_record
from fabric.model.errors import FabricError, Reason
from fabric.model.names import AUDIT, MEMBERS, RECEIPTS, Origin, Stream, Topic
from tests.fakes.gateway import SEALED, World, a_dataset
from tests.fakes.receipts import STREAM, attest_hybrid, head_of, receipt_of, record_of
from tests.fakes.verifier import a_notice


@pytest.fixture
def world() -> World:
    return World()


def admit(world: World, topic: str, record: tuple[bytes, bytes], who: str, **how: object) -> None:
    view = how.get("view") or world.view
    now = how.get("now") or world.now
    door.admit_control(*record, topic, view, identity=who, now=now)  # type: ignore[arg-type]


def refused(world: World, topic: str, record: tuple[bytes, bytes], who: str, **how: object) -> str:
    with pytest.raises(FabricError) as caught:
        admit(world, topic, record, who, **how)
    return caught.value.reason


def receipt(world: World, **changes: object) -> tuple[bytes, bytes]:
    return record_of(world.b, receipt_of(world.b, world, **changes))


def test_both_topics_are_control_topics_and_not_the_authoritys_alone() -> None:
    for topic in (AUDIT, RECEIPTS):
        assert door.is_control(topic)
        assert not door.is_authoritys(topic)


def test_a_consumers_receipt_is_admitted_from_itself_alone(world: World) -> None:
    """MUST-13.6."""
    record = receipt(world)
    admit(world, RECEIPTS, record, "G02/health/b1")
    assert refused(world, RECEIPTS, record, "G01/registry/a1") is Reason.IDENTITY_MISMATCH
    assert refused(world, RECEIPTS, record, "verifier") is Reason.IDENTITY_MISMATCH
    assert refused(world, AUDIT, record, "G02/health/b1") is Reason.MALFORMED


def test_a_receipt_of_who_is_no_consumer_is_refused(world: World) -> None:
    record = record_of(world.a, receipt_of(world.a, world))
    assert refused(world, RECEIPTS, record, "G01/registry/a1") is Reason.NOT_A_CONSUMER


def test_a_receipt_under_another_key_or_name_is_refused(world: World) -> None:
    who, wrong = "G02/health/b1", Reason.IDENTITY_MISMATCH
    value = receipt(world)[1]
    assert refused(world, RECEIPTS, (b"G02/health/b1/receipt/x", value), who) is wrong
    other = record_of(world.b, receipt_of(world.a, world), key=b"G02/health/b1/receipt/x")
    assert refused(world, RECEIPTS, other, who) is wrong


def test_a_receipt_about_what_does_not_exist_is_refused(world: World) -> None:
    who = "G02/health/b1"
    for stream, reason in (
        (replace(STREAM, partition=2), Reason.PARTITION_MISMATCH),
        (replace(STREAM, origin=Origin.parse("G09/a/b")), Reason.NOT_A_PRODUCER),
        (Stream(STREAM.origin, Topic.parse("secret.G01.none"), 0), Reason.TOPIC_UNKNOWN),
    ):
        assert refused(world, RECEIPTS, receipt(world, stream=stream), who) is reason


def test_a_receipt_is_judged_by_the_readers_standing_now(world: World) -> None:
    who, record = "G02/health/b1", receipt(world)
    later = world.now + timedelta(minutes=11)
    assert refused(world, RECEIPTS, record, who, now=later) is Reason.RESULT_EXPIRED
    soon = receipt(world, applied=world.now + timedelta(minutes=1))
    assert refused(world, RECEIPTS, soon, who) is Reason.FROM_THE_FUTURE
    newer = receipt(world, policy_version=8)
    assert refused(world, RECEIPTS, newer, who) is Reason.POLICY_NEWER
    unnamed = a_dataset(SEALED, consumers=())
    datasets = {**world.policy.datasets, SEALED: unnamed}
    view = View(replace(world.policy, datasets=datasets), world.members)
    assert refused(world, RECEIPTS, record, who, view=view) is Reason.NOT_A_CONSUMER
    view = world.approving(world.a.host)
    assert refused(world, RECEIPTS, record, who, view=view) is Reason.NOT_APPROVED
    notice = a_notice(1, NoticeKind.REVOCATION, host=world.b.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert refused(world, RECEIPTS, record, who) is Reason.HOST_REVOKED


def test_what_was_applied_long_ago_may_be_acknowledged_now(world: World) -> None:
    old = receipt(world, applied=world.now - timedelta(days=30))
    admit(world, RECEIPTS, old, "G02/health/b1")


def test_a_receipt_signed_by_another_is_a_bad_signature(world: World) -> None:
    forged = record_of(world.a, receipt_of(world.b, world), key=receipt(world)[0])
    assert refused(world, RECEIPTS, forged, "G02/health/b1") is Reason.BAD_SIGNATURE


def test_a_hosts_head_is_admitted_from_itself_alone(world: World) -> None:
    result, signers = attest_hybrid(world)
    record = head_record(head_of("G02/health/b1", world, result_id=result.id), signers)
    admit(world, AUDIT, record, "G02/health/b1")
    assert refused(world, AUDIT, record, "G01/registry/a1") is Reason.IDENTITY_MISMATCH
    assert refused(world, RECEIPTS, record, "G02/health/b1") is Reason.MALFORMED
    later = world.now + timedelta(minutes=11)
    assert refused(world, AUDIT, record, "G02/health/b1", now=later) is Reason.RESULT_EXPIRED


def test_the_authoritys_head_is_admitted_when_it_is_fresh(world: World) -> None:
    record = head_record(head_of("verifier", world), world.verifier.signers)
    admit(world, AUDIT, record, "verifier")
    assert refused(world, AUDIT, record, "G02/health/b1") is Reason.IDENTITY_MISMATCH
    old = world.now + timedelta(minutes=6)
    assert refused(world, AUDIT, record, "verifier", now=old) is Reason.TOO_OLD
    early = world.now - timedelta(minutes=1)
    assert refused(world, AUDIT, record, "verifier", now=early) is Reason.FROM_THE_FUTURE


def test_a_head_of_a_host_that_never_attested_is_refused(world: World) -> None:
    _, signers = attest_hybrid(world)
    head = head_of("G09/none/x1", world, result_id=bytes(16))
    record = head_record(head, signers)
    assert refused(world, AUDIT, record, "G09/none/x1") is Reason.NOT_ATTESTED
