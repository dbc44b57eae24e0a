"""Who may write at all is known before a record is looked at."""

from dataclasses import replace

import pytest

from fabric.admit.view import Place, View
from fabric.admit.writer import check_again, check_writer
from fabric.attest.members import notice_record
from fabric.model.errors import FabricError, Reason
from fabric.model.names import AUDIT, AUTHORITY, MEMBERS, RECEIPTS, RESULTS
from tests.fakes.gateway import GRANTS, OPEN, SEALED, World
from tests.fakes.sealing import Party
from tests.fakes.verifier import a_notice


@pytest.fixture
def world() -> World:
    return World()


def check(world: World, topic: str, partition: int = 0, *, by: Party | str = "a") -> None:
    party = {"a": world.a, "b": world.b}.get(by) if isinstance(by, str) else by
    name = str(party.host) if party else str(by)
    host = party.host if party else None
    check_writer(Place(topic, partition), world.view, identity=name, host=host, now=world.now)


def why(world: World, topic: str, partition: int = 0, *, by: Party | str = "a") -> Reason:
    with pytest.raises(FabricError) as refused:
        check(world, topic, partition, by=by)
    return refused.value.reason


def test_a_producer_writes_its_datasets_grants_receipts_and_heads(world: World) -> None:
    for topic in (SEALED, OPEN, GRANTS, RECEIPTS, AUDIT):
        check(world, topic)


def test_a_reader_writes_receipts_heads_and_grants_and_no_data(world: World) -> None:
    """Whether a host is a custodian is asked when its grant is known."""
    for topic in (GRANTS, RECEIPTS, AUDIT):
        check(world, topic, by="b")
    for topic in (SEALED, OPEN):
        assert why(world, topic, by="b") is Reason.NOT_A_PRODUCER


def test_the_authority_writes_its_own_topics_and_no_data(world: World) -> None:
    for topic in (MEMBERS, RESULTS, AUDIT):
        check(world, topic, by=AUTHORITY)
    for topic in (SEALED, OPEN, GRANTS, RECEIPTS):
        assert why(world, topic, by=AUTHORITY) is Reason.IDENTITY_MISMATCH


def test_nobody_else_writes_the_authoritys_topics(world: World) -> None:
    for topic in (MEMBERS, RESULTS):
        for by in ("a", "admin"):
            assert why(world, topic, by=by) is Reason.IDENTITY_MISMATCH


def test_what_the_policy_does_not_name_is_nobodys(world: World) -> None:
    for topic in ("secret.G01.unknown", "fabric.grants.secret.G01.unknown", "no.such.topic"):
        assert why(world, topic) is Reason.TOPIC_UNKNOWN


def test_there_are_no_partitions_beside_those_of_the_policy(world: World) -> None:
    for topic in (SEALED, OPEN, GRANTS, RECEIPTS, AUDIT):
        assert why(world, topic, 99) is Reason.PARTITION_MISMATCH
    assert why(world, MEMBERS, 1, by=AUTHORITY) is Reason.PARTITION_MISMATCH


def test_a_host_that_is_not_attested_now_writes_nothing(world: World) -> None:
    notice = a_notice(1, host=world.a.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    for topic in (SEALED, OPEN, GRANTS, RECEIPTS, AUDIT):
        assert why(world, topic) is Reason.HOST_SUSPENDED


def test_a_dataset_without_the_hosts_system_is_not_its(world: World) -> None:
    dataset = replace(world.policy.datasets[SEALED], producers=())
    view = View(replace(world.policy, datasets={SEALED: dataset}), world.members)
    with pytest.raises(FabricError) as refused:
        check_writer(
            Place(SEALED, 0), view, identity=str(world.a.host), host=world.a.host, now=world.now
        )
    assert refused.value.reason is Reason.NOT_A_PRODUCER


def test_what_is_asked_again_is_the_hosts_standing_too(world: World) -> None:
    name, host = str(world.a.host), world.a.host
    for topic in (SEALED, OPEN):
        place = Place(topic, 0)
        check_again(place, world.view, identity=name, host=host, now=world.now)
        view = world.approving(world.b.host)
        with pytest.raises(FabricError) as refused:
            check_again(place, view, identity=name, host=host, now=world.now)
        assert refused.value.reason is Reason.NOT_APPROVED
    for topic in (MEMBERS, AUDIT):
        check_again(Place(topic, 0), world.view, identity=AUTHORITY, host=None, now=world.now)


def test_what_is_asked_again_begins_with_who_may_write(world: World) -> None:
    name, host = str(world.b.host), world.b.host
    with pytest.raises(FabricError) as refused:
        check_again(Place(OPEN, 0), world.view, identity=name, host=host, now=world.now)
    assert refused.value.reason is Reason.NOT_A_PRODUCER
