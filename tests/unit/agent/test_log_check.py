"""A log that has forgotten what it acknowledged."""

import pytest

from fabric.agent.log_check import lost
from fabric.model.errors import DeniedError, Reason
from tests.fakes.platform import SECRET, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.unit.agent.test_reading import notes, publish


async def sent(platform: Platform, a: TestHost, b: TestHost) -> MemoryDatabase:
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    assert await gone(a) == 0
    return database


async def gone(a: TestHost) -> int:
    return len(await lost(a.platform.log, a.host.identity.state.heads(SECRET)))


async def test_a_cut_log_a_rewritten_one_and_another_one_are_noticed(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    await sent(platform, a, b)
    records = platform.log.records[str(SECRET), 0]
    platform.log.records[str(SECRET), 0] = records[:-1]
    assert await gone(a) == 1
    platform.log.put(str(SECRET), 0, None, records[0].value)
    assert await gone(a) == 1
    platform.log.put(str(SECRET), 0, None, b"garbage")
    assert await gone(a) == 1
    platform.log.records[str(SECRET), 0] = records
    assert await gone(a) == 0
    platform.log.cluster = "restored"
    assert await gone(a) == 1


async def test_what_retention_removed_or_a_host_may_not_read_is_not_lost(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sent(platform, a, b)
    end = len(platform.log.records[str(SECRET), 0])

    async def bounds(topic: str, partition: int) -> tuple[int, int]:
        return end, end

    with monkeypatch.context() as patch:
        patch.setattr(platform.log, "bounds", bounds)
        assert await gone(a) == 0
    platform.log.fail(DeniedError(Reason.NOT_A_CONSUMER, "no right"))

    async def whole(topic: str, partition: int) -> tuple[int, int]:
        return 0, end

    monkeypatch.setattr(platform.log, "bounds", whole)
    assert await gone(a) == 0


async def test_a_sender_whose_blocks_are_gone_begins_a_new_generation_and_loses_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = await sent(platform, a, b), MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    platform.log.records[str(SECRET), 0] = platform.log.records[str(SECRET), 0][:1]
    database.upsert(table(), notes(60, 5))
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert ("log_went_back", {"stream": "G01/registry/main@secret.G01.notes:0"}) in a.audit.events
    assert a.metric("fabric_refused_blocks_total", reason="log_went_back") == 1
