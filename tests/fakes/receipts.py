"""Receipts and heads of the small platform of tests.fakes.gateway."""

from dataclasses import replace
from datetime import timedelta

from fabric.attest.audit_chain import Link
from fabric.attest.audit_head import Head
from fabric.attest.keys import Alg, SigningKey
from fabric.attest.result import Result
from fabric.model.change import ZERO, Sequence
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.seal.receipt import Receipt, Received, receipt_key, write_receipt
from tests.fakes.gateway import SEALED, World
from tests.fakes.sealing import TRUST_DOMAIN, Party, fixed

STREAM = Stream(Origin.parse("G01/registry/main"), Topic.parse(SEALED), 0)
BLOCK = Received(epoch_id=fixed("epoch"), counter=0, hash=fixed("envelope"))
LINK = Link(log=fixed("log", 16), number=7, hash=fixed("line"))


def receipt_of(party: Party, world: World, **changes: object) -> Receipt:
    """What a reader says of the first block; change what the test is about."""
    receipt = Receipt(
        reader=party.host.spiffe(TRUST_DOMAIN),
        result_id=party.result.id,
        suite="classic",
        stream=STREAM,
        after=ZERO,
        upto=Sequence(1, 100, 3),
        blocks=(BLOCK,),
        applied=world.now,
        policy_version=7,
    )
    return replace(receipt, **changes)  # type: ignore[arg-type]  # tests name real fields


def record_of(party: Party, receipt: Receipt, key: bytes | None = None) -> tuple[bytes, bytes]:
    """Key and value of a receipt, signed by the party."""
    return key or receipt_key(party.host, receipt.stream), write_receipt(receipt, party.signers)


def attest_hybrid(
    world: World,
    host: str = "G02/health/b1",
    algs: Sequence[Alg] = (Alg.ED25519, Alg.ML_DSA_65),
) -> tuple[Result, list[SigningKey]]:
    """Give a host of the world a result whose keys may sign heads."""
    signers = [SigningKey.generate(alg) for alg in algs]
    result = replace(
        world.b.result,
        id=fixed(f"{host} hybrid", 16),
        host=HostId.parse(host),
        keys=tuple(signer.public for signer in signers),
    )
    since = world.now + timedelta(seconds=1)
    for topic, key, value in world.records_of(result, since=since):
        world.members.feed(topic, key, value)
    return result, signers


def head_of(component: str, world: World, **changes: object) -> Head:
    """A head signed now; change what the test is about."""
    head = Head(component=component, link=LINK, at=world.now)
    return replace(head, **changes)  # type: ignore[arg-type]  # tests name real fields
