"""Receipts: what they say comes back, and nothing else passes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.model import canonical
from fabric.model.change import ZERO, Sequence
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import RECEIPT_BLOCKS_MAX, RECEIPT_BYTES_MAX
from fabric.seal.receipt import (
    KIND,
    Received,
    parse_receipt,
    receipt_key,
    verify_receipt,
    write_receipt,
)
from tests.fakes.gateway import World
from tests.fakes.receipts import BLOCK, STREAM, receipt_of
from tests.fakes.sealing import TRUST_DOMAIN, Party, fixed


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("suite", ["classic", "hybrid"])
def test_a_receipt_comes_back_as_it_was_signed(suite: str) -> None:
    """MUST-13.3, MUST-13.4."""
    world = World(suite=suite)
    receipt = receipt_of(world.b, world, suite=suite)
    value = write_receipt(receipt, world.b.signers)
    opened = parse_receipt(value)
    assert verify_receipt(opened, world.b.result, TRUST_DOMAIN) == receipt
    assert len(opened.signed.signatures) == len(world.b.signers)


def test_the_largest_receipt_fits(world: World) -> None:
    blocks = tuple(
        Received(epoch_id=fixed("epoch"), counter=999_999, hash=fixed(f"{n}"))
        for n in range(RECEIPT_BLOCKS_MAX)
    )
    value = write_receipt(receipt_of(world.b, world, blocks=blocks), world.b.signers)
    assert len(value) < RECEIPT_BYTES_MAX
    assert len(parse_receipt(value).receipt.blocks) == RECEIPT_BLOCKS_MAX


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": ()},
        {"blocks": (BLOCK,) * (RECEIPT_BLOCKS_MAX + 1)},
        {"after": Sequence(1, 101, 0)},
        {"reader": "G02/health/b1"},
        {"result_id": bytes(15)},
        {"suite": "Classic"},
        {"policy_version": -1},
        {"blocks": (replace(BLOCK, hash=bytes(31)),)},
        {"blocks": (replace(BLOCK, counter=1_000_000),)},
    ],
)
def test_a_receipt_that_breaks_its_rules_is_not_written(
    world: World, changes: dict[str, object]
) -> None:
    """MUST-13.2."""
    with pytest.raises(Malformed):
        write_receipt(receipt_of(world.b, world, **changes), world.b.signers)


def test_another_hosts_or_results_keys_do_not_verify(world: World) -> None:
    """MUST-13.4."""
    receipt = receipt_of(world.b, world)
    opened = parse_receipt(write_receipt(receipt, world.b.signers))
    forged = parse_receipt(write_receipt(receipt, world.a.signers))
    for found, result, reason in (
        (opened, world.a.result, Reason.IDENTITY_MISMATCH),
        (opened, replace(world.b.result, id=bytes(16)), Reason.IDENTITY_MISMATCH),
        (forged, world.b.result, Reason.BAD_SIGNATURE),
    ):
        with pytest.raises(PeerError) as caught:
            verify_receipt(found, result, TRUST_DOMAIN)
        assert caught.value.reason is reason


def test_a_suite_nobody_knows_is_refused(world: World) -> None:
    from fabric.attest import cose
    from fabric.seal import receipt as module

    content = module._content(receipt_of(world.b, world, suite="rot13"))
    value = cose.sign(KIND, module._PROTECTED, canonical.encode(content), world.b.signers)
    with pytest.raises(PeerError) as caught:
        verify_receipt(parse_receipt(value), world.b.result, TRUST_DOMAIN)
    assert caught.value.reason is Reason.SUITE_REFUSED


def test_a_signature_for_something_else_is_none_here(world: World) -> None:
    """MUST-13.1."""
    from fabric.attest import cose
    from fabric.seal import receipt as module

    payload = canonical.encode(module._content(receipt_of(world.b, world)))
    other = cose.sign("grant", module._PROTECTED, payload, world.b.signers)
    with pytest.raises(PeerError) as caught:
        verify_receipt(parse_receipt(other), world.b.result, TRUST_DOMAIN)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    named = cose.sign(KIND, canonical.encode({16: "grant"}), payload, world.b.signers)
    with pytest.raises(Malformed):
        parse_receipt(named)


def test_every_changed_byte_is_refused(world: World) -> None:
    value = write_receipt(receipt_of(world.b, world), world.b.signers)
    for at in range(0, len(value), 7):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(PeerError):
            verify_receipt(parse_receipt(changed), world.b.result, TRUST_DOMAIN)
    with pytest.raises(Malformed):
        parse_receipt(value + bytes(RECEIPT_BYTES_MAX))


def test_a_receipt_covers_its_range_and_the_envelopes_it_names(world: World) -> None:
    """MUST-13.5."""
    receipt = receipt_of(
        world.b, world, after=Sequence(1, 50, 0), applied=world.now + timedelta(seconds=1)
    )
    assert receipt.covers(Sequence(1, 100, 3), fixed("other"))
    assert receipt.covers(Sequence(1, 50, 1), fixed("other"))
    assert not receipt.covers(Sequence(1, 50, 0), fixed("other"))
    assert not receipt.covers(Sequence(1, 100, 4), fixed("other"))
    assert receipt.covers(ZERO, BLOCK.hash)


def test_the_key_begins_with_the_reader() -> None:
    key = receipt_key(Party.make("G02/health/b1").host, STREAM)
    assert key == b"G02/health/b1/receipt/G01/registry/main@secret.G01.notes:0"
