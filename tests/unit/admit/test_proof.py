"""A proof holds as a whole or names the first step that does not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.admit.proof import Unproved, prove_block, prove_grants, prove_receipt, prove_start
from fabric.admit.view import Place, View
from fabric.attest.members import Members, NoticeKind, notice_record
from fabric.model.change import Sequence
from fabric.model.errors import Reason
from fabric.model.names import MEMBERS
from fabric.seal import envelope as form
from fabric.seal.epoch import start_key
from fabric.seal.receipt import Received
from fabric.seal.verify import VerifiedEnvelope
from tests.fakes.gateway import OPEN, SEALED, World, a_dataset
from tests.fakes.receipts import receipt_of, record_of
from tests.fakes.sealing import fixed
from tests.fakes.verifier import a_notice
from tests.unit.admit.test_grants import a_grant, with_custodians

HERE = Place(SEALED, 0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def verified(world: World) -> VerifiedEnvelope:
    return prove_block(world.seal(), HERE, world.view, appended=world.now)


def starts(world: World) -> list[tuple[bytes, bytes]]:
    return [(start_key(world.started.start), world.started.value)]


def fails(value: bytes, view: View, world: World, place: Place = HERE) -> tuple[str, Reason]:
    with pytest.raises(Unproved) as caught:
        prove_block(value, place, view, appended=world.now)
    assert caught.value.step in str(caught.value)
    return caught.value.step, caught.value.reason


def test_an_honest_block_is_proved_to_its_epoch_start(
    world: World, verified: VerifiedEnvelope
) -> None:
    start = prove_start(verified, [(b"x", b"garbage"), *starts(world)], world.view)
    assert verified.result == world.a.result
    assert start.start.sender == world.a.host


def test_the_step_that_fails_is_named(world: World) -> None:
    value = world.seal()
    flipped = value[:-1] + bytes([value[-1] ^ 1])
    empty = View(world.policy, Members(world.policy.trust))
    unnamed = a_dataset(SEALED, producers=())
    policy = replace(world.policy, datasets={SEALED: unnamed})
    assert fails(b"", world.view, world) == ("record", Reason.NOT_SEALED)
    assert fails(value, world.view, world, Place(OPEN, 0)) == ("record", Reason.TOPIC_MISMATCH)
    assert fails(value, empty, world) == ("result", Reason.RESULT_UNKNOWN)
    assert fails(flipped, world.view, world) == ("signatures", Reason.BAD_SIGNATURE)
    assert fails(value, View(policy, world.members), world) == ("policy", Reason.NOT_A_PRODUCER)


def test_a_sender_that_was_revoked_before_proves_nothing(world: World) -> None:
    value = world.seal()
    at = world.now - timedelta(seconds=5)
    notice = a_notice(1, NoticeKind.REVOCATION, host=world.a.host, at=at)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert fails(value, world.view, world) == ("trust", Reason.HOST_REVOKED)


def test_a_block_that_was_stored_much_later_proves_nothing(world: World) -> None:
    value = world.seal()
    with pytest.raises(Unproved) as caught:
        prove_block(value, HERE, world.view, appended=world.now + timedelta(minutes=10))
    assert (caught.value.step, caught.value.reason) == ("time", Reason.TOO_OLD)


def test_an_epoch_start_that_is_missing_or_forged_is_named(
    world: World, verified: VerifiedEnvelope
) -> None:
    with pytest.raises(Unproved, match="epoch does not hold") as caught:
        prove_start(verified, [], world.view)
    assert caught.value.reason is Reason.EPOCH_START_MISSING
    key, value = starts(world)[0]
    spoilt = value[:-1] + bytes([value[-1] ^ 1])
    with pytest.raises(Unproved, match="epoch does not hold"):
        prove_start(verified, [(key, spoilt)], world.view)
    assert prove_start(verified, [(key, spoilt), (key, value)], world.view)


def says(world: World, verified: VerifiedEnvelope, **changes: object) -> tuple[bytes, bytes]:
    header = verified.envelope.header
    block = Received(epoch_id=header.epoch_id, counter=header.counter, hash=verified.envelope.hash)
    known = {"after": header.after, "upto": header.upto, "blocks": (block,)}
    return record_of(world.b, receipt_of(world.b, world, **{**known, **changes}))


def test_who_was_granted_to_later_has_the_epoch_too(
    world: World, verified: VerifiedEnvelope
) -> None:
    start = prove_start(verified, starts(world), world.view)
    begun = tuple(recipient.host for recipient in start.start.recipients)
    assert world.b.host not in begun
    later = a_grant(world, world.a)
    records = [*starts(world), (b"x", b"garbage"), (b"k", later), (b"k", later)]
    assert prove_grants(start, records, world.view) == (*begun, world.b.host)


def test_a_grant_that_does_not_hold_says_nothing(world: World, verified: VerifiedEnvelope) -> None:
    start = prove_start(verified, starts(world), world.view)
    begun = tuple(recipient.host for recipient in start.start.recipients)
    good, foreign = a_grant(world, world.a), a_grant(world, world.b)
    ended = a_grant(world, world.a, granted=world.a.result.expires)
    spoilt = good.replace(start.hash, start.hash[:-1] + bytes([start.hash[-1] ^ 1]))
    forged = good.replace(world.b.host.system.encode(), b"xealth")  # the signature no longer fits
    assert spoilt != good != forged
    for value in (foreign, ended, spoilt, forged):
        assert prove_grants(start, [(b"k", value)], world.view) == begun
    by_custodian = with_custodians(world, "G02/health")
    assert prove_grants(start, [(b"k", foreign)], by_custodian) == (*begun, world.b.host)


def test_a_receipt_that_names_the_envelope_is_its_readers_word(
    world: World, verified: VerifiedEnvelope
) -> None:
    found = prove_receipt(*says(world, verified), verified, world.view, offset=4, stored=world.now)
    assert found is not None
    assert (found.reader, found.by_hash, found.offset) == (world.b.host, True, 4)


def test_a_receipt_whose_range_covers_it_is_told_apart(
    world: World, verified: VerifiedEnvelope
) -> None:
    other = (Received(epoch_id=fixed("e"), counter=5, hash=fixed("later")),)
    record = says(world, verified, upto=Sequence(1, 999, 0), blocks=other)
    found = prove_receipt(*record, verified, world.view, offset=0, stored=world.now)
    assert found is not None
    assert not found.by_hash


def test_receipts_of_other_blocks_and_streams_say_nothing(
    world: World, verified: VerifiedEnvelope
) -> None:
    header = verified.envelope.header
    other = (Received(epoch_id=fixed("e"), counter=5, hash=fixed("later")),)
    later = says(world, verified, after=header.upto, upto=Sequence(1, 999, 0), blocks=other)
    stream = replace(receipt_of(world.b, world).stream, partition=1)
    elsewhere = says(world, verified, stream=stream)
    for record in (later, elsewhere, (b"x", b"garbage")):
        found = prove_receipt(*record, verified, world.view, offset=0, stored=world.now)
        assert found is None


def test_a_forged_receipt_for_the_block_is_named(world: World, verified: VerifiedEnvelope) -> None:
    key, value = says(world, verified)
    forged = record_of(world.a, receipt_of(world.b, world), key)
    spoilt = (key, value[:-1] + bytes([value[-1] ^ 1]))
    moved = (b"G02/health/b1/receipt/elsewhere", value)
    late = timedelta(hours=1)
    cases = [
        (forged, world.now),
        (spoilt, world.now),
        (moved, world.now),
        ((key, value), world.now + late),
    ]
    for record, stored in cases:
        with pytest.raises(Unproved, match="receipt does not hold"):
            prove_receipt(*record, verified, world.view, offset=0, stored=stored)


def test_a_receipt_of_who_may_not_have_it_is_named(
    world: World, verified: VerifiedEnvelope
) -> None:
    record = says(world, verified)
    datasets = {**world.policy.datasets, SEALED: a_dataset(SEALED, consumers=())}
    view = View(replace(world.policy, datasets=datasets), world.members)
    with pytest.raises(Unproved) as caught:
        prove_receipt(*record, verified, view, offset=0, stored=world.now)
    assert caught.value.reason is Reason.NOT_A_CONSUMER


def test_what_was_done_under_an_approval_is_proved_when_it_is_withdrawn(
    world: World, verified: VerifiedEnvelope
) -> None:
    record = says(world, verified)
    by_custodian = [(b"k", a_grant(world, world.b))]
    world.policy = world.approving().policy
    found = prove_receipt(*record, verified, world.view, offset=0, stored=world.now)
    assert found is not None
    start = prove_start(verified, starts(world), world.view)
    granted = prove_grants(start, by_custodian, with_custodians(world, "G02/health"))
    assert granted == (world.a.host, world.b.host)


def test_the_block_is_the_one_that_was_sealed(verified: VerifiedEnvelope, world: World) -> None:
    assert verified.envelope.hash == form.parse(world.sealed[0].data).hash
