"""What a grants topic refuses."""

from dataclasses import replace

import pytest

from fabric.admit.grants import admit_grant
from fabric.admit.view import View
from fabric.attest.members import notice_record
from fabric.model.errors import FabricError, Reason
from fabric.model.names import MEMBERS, Origin, Topic
from tests.fakes.gateway import SEALED, World, a_dataset
from tests.fakes.sealing import Party
from tests.fakes.verifier import a_notice

TOPIC = Topic.parse(SEALED)


@pytest.fixture
def world() -> World:
    return World()


def why(
    world: World,
    value: bytes,
    *,
    host: Party | None = None,
    topic: Topic = TOPIC,
    view: View | None = None,
) -> Reason:
    party = host or world.a
    with pytest.raises(FabricError) as refused:
        admit_grant(value, topic, view or world.view, host=party.host, now=world.now)
    return refused.value.reason


def test_garbage_and_envelopes_are_malformed(world: World) -> None:
    assert why(world, b"garbage") is Reason.MALFORMED
    assert why(world, world.seal()) is Reason.MALFORMED


def test_the_record_is_about_its_own_topic(world: World) -> None:
    other = Topic.parse("secret.G01.other")
    assert why(world, world.started.value, topic=other) is Reason.TOPIC_MISMATCH


def test_the_record_is_its_writers_own(world: World) -> None:
    assert why(world, world.started.value, host=world.b) is Reason.IDENTITY_MISMATCH


def test_changed_bytes_are_a_bad_signature(world: World) -> None:
    value = world.started.value
    changed = value[:-1] + bytes([value[-1] ^ 1])
    assert why(world, changed) is Reason.BAD_SIGNATURE


def test_a_host_that_may_not_publish_starts_no_epoch(world: World) -> None:
    assert why(world, world.start(world.b).value, host=world.b) is Reason.NOT_A_PRODUCER


def test_a_producer_of_another_system_starts_no_epoch(world: World) -> None:
    dataset = a_dataset(SEALED, producers=(Origin.parse("G01/other/main"),))
    view = View(replace(world.policy, datasets={SEALED: dataset}), world.members)
    assert why(world, world.started.value, view=view) is Reason.NOT_A_PRODUCER


def test_suite_and_label_are_the_datasets(world: World) -> None:
    hybrid = a_dataset(SEALED, suite="hybrid")
    view = View(replace(world.policy, datasets={SEALED: hybrid}), world.members)
    assert why(world, world.started.value, view=view) is Reason.SUITE_REFUSED
    plain = a_dataset(SEALED, label=replace(hybrid.label, compartments=frozenset()))
    view = View(replace(world.policy, datasets={SEALED: plain}), world.members)
    assert why(world, world.started.value, view=view) is Reason.LABEL_MISMATCH


def test_a_record_from_before_the_last_notice_is_made_anew(world: World) -> None:
    notice = a_notice(1, host=world.b.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert why(world, world.started.value) is Reason.TOO_OLD


def test_a_record_that_knows_a_later_notice_waits(world: World) -> None:
    draft = world.a.draft(2, revocation_number=1, started=world.now)
    assert why(world, world.a.start(draft).value) is Reason.MEMBERS_STALE


def test_a_newer_policy_waits(world: World) -> None:
    draft = world.a.draft(2, revocation_number=0, policy_version=8, started=world.now)
    assert why(world, world.a.start(draft).value) is Reason.POLICY_NEWER


def test_unknown_foreign_and_ended_results_are_refused(world: World) -> None:
    draft = world.a.draft(2, revocation_number=0, started=world.now)
    unknown = world.a.start(replace(draft, result_id=bytes(16))).value
    assert why(world, unknown) is Reason.RESULT_UNKNOWN
    foreign = world.a.start(replace(draft, result_id=world.b.result.id)).value
    assert why(world, foreign) is Reason.IDENTITY_MISMATCH
    world.now = world.a.result.expires
    assert why(world, world.started.value) is Reason.RESULT_EXPIRED
