"""Receipts of a reader: after the commit, verified by anyone, and never in the data's way."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fabric.agent import receipting
from fabric.agent.receipting import Receipting
from fabric.attest.keys import Alg
from fabric.config_audit import ReceiptsConfig
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.names import RECEIPTS
from fabric.seal import envelope as form
from fabric.seal.receipt import Receipt, parse_receipt, verify_receipt
from tests.fakes.platform import SECRET, B, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.unit.agent.test_reading import notes, publish

SOON = ReceiptsConfig.model_construct(enabled=True, interval_s=0.02, without=())


def issuing(host: TestHost, receipts: ReceiptsConfig = SOON) -> TestHost:
    host.host = replace(host.host, receipts=receipts)
    host.platform.admit(host.id)
    return host


def receipts_of(platform: Platform) -> Sequence[Receipt]:
    found = []
    for value in platform.log.values(RECEIPTS):
        opened = parse_receipt(value)
        result = platform.members.result(opened.receipt.result_id)
        trust_domain = platform.policy.trust.trust_domain
        found.append(verify_receipt(opened, result, trust_domain))
    return found


def hashes(platform: Platform) -> set[bytes]:
    return {form.parse(value).hash for value in platform.log.values(str(SECRET))}


async def sent(platform: Platform, a: TestHost, count: int = 50) -> MemoryDatabase:
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, count))
    a.attest()
    await publish(platform, a, database)
    return database


def acknowledged(platform: Platform) -> set[bytes]:
    return {block.hash for receipt in receipts_of(platform) for block in receipt.blocks}


async def test_every_applied_block_is_acknowledged_once_and_in_order(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    b.attest()
    database, store = await sent(platform, a), MemoryStore()
    issuing(b)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: acknowledged(platform) == hashes(platform))
    assert store.rows(SECRET) == database.held(table())
    found = receipts_of(platform)
    for before, after in zip(found, found[1:], strict=False):
        assert after.after == before.upto
    names = [block.hash for receipt in found for block in receipt.blocks]
    assert len(names) == len(set(names))
    state = next(iter(store.held.states.values()))
    assert found[-1].upto == state.high
    assert found[-1].reader.endswith(str(B))
    counted = {"topic": str(SECRET), "level": "secret"}
    assert b.metric("fabric_receipts_total", outcome="sent", **counted) == len(found)


async def test_a_restart_says_nothing_twice_unless_it_forgot(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    b.attest()
    await sent(platform, a)
    store = MemoryStore()
    issuing(b)
    for _ in range(2):
        async with running() as parts:
            await parts.view(b, SECRET)
            parts.apply(b, store)
            await until(lambda: acknowledged(platform) == hashes(platform))
            await asyncio.sleep(0.1)
    count = len(receipts_of(platform))
    stream = next(iter(store.held.states))
    b.host.identity.state.remember(receipting._name(stream), b"")
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: len(receipts_of(platform)) == count + 1)
    again = receipts_of(platform)[-1]
    assert {block.hash for block in again.blocks} <= hashes(platform)
    assert again.after == again.upto


async def test_a_gateway_that_takes_none_holds_no_row_back_and_the_next_covers_all(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipting, "RECEIPT_RETRY_S_MAX", 0.05)
    b.attest()
    database, store = await sent(platform, a), MemoryStore()
    issuing(b)
    as_b = platform.log.judge
    platform.admit(a.id)
    as_a, shut = platform.log.judge, [True]
    assert as_a is not None
    assert as_b is not None

    def judge(topic: str, partition: int, key: bytes | None, value: bytes) -> FabricError | None:
        if topic != RECEIPTS:
            return as_a(topic, partition, key, value)
        if shut:
            return UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")
        return as_b(topic, partition, key, value)

    platform.log.judge = judge
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: b.metric("fabric_receipts_total", outcome="lost") > 0)
        assert receipts_of(platform) == []
        shut.clear()
        database.upsert(table(), notes(50, 5))
        await publish(platform, a, database)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        state = next(iter(store.held.states.values()))
        await until(lambda: receipts_of(platform) != [])
        await until(lambda: receipts_of(platform)[-1].upto == state.high)
    assert receipts_of(platform)[0].after.position == 0
    assert ("receipt_lost", {"topic": str(SECRET), "reason": "gateway_unavailable"}) in (
        b.audit.events
    )


async def test_a_final_refusal_is_counted_and_not_repeated(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    b.attest()
    database, store = await sent(platform, a), MemoryStore()
    issuing(b)
    platform.log.judge = lambda *_: DeniedError(Reason.NOT_A_CONSUMER, "no")
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: b.metric("fabric_receipts_total", outcome="lost") > 0)
    lost = [fields for event, fields in b.audit.events if event == "receipt_lost"]
    assert {fields["reason"] for fields in lost} == {"not_a_consumer"}


@pytest.mark.parametrize(
    "settings",
    [
        ReceiptsConfig(enabled=False),
        ReceiptsConfig.model_construct(enabled=True, interval_s=0.02, without=(str(SECRET),)),
    ],
)
async def test_settings_turn_receipts_off(
    platform: Platform, a: TestHost, b: TestHost, settings: ReceiptsConfig
) -> None:
    b.attest()
    database, store = await sent(platform, a), MemoryStore()
    issuing(b, settings)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await asyncio.sleep(0.1)
    assert platform.log.values(RECEIPTS) == []


async def test_the_signatures_are_those_of_the_datasets_suite(b: TestHost) -> None:
    b.attest()
    dataset = replace(b.platform.policy.datasets[str(SECRET)], suite="hybrid")
    b.host.view.take_policy(replace(b.platform.policy, version=8, datasets={str(SECRET): dataset}))
    async with running() as parts:
        await parts.view(b)
        made = Receipting(b.host, dataset, interval_s=0.01)
        b.platform.log.judge = None
        from fabric.agent.receipt_machine import Draft
        from fabric.model.change import ZERO
        from tests.fakes.receipts import BLOCK, STREAM

        now = b.host.clock.now()
        draft = Draft(stream=STREAM, after=ZERO, upto=ZERO, blocks=(BLOCK,), applied=now)
        await made._send(draft)
    opened = parse_receipt(b.platform.log.values(RECEIPTS)[0])
    assert len(opened.signed.signatures) == 2
    assert receipts_of(b.platform)[0].suite == "hybrid"
    with pytest.raises(PeerError):
        verify_receipt(opened, replace(b.attest(), keys=()), "fabric.example")
    assert Alg.ML_DSA_65 in {key.alg for key in b.keys.bound}
