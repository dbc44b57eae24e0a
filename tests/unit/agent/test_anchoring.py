"""Late readers take only what its sender could not have made up later. MUST-9.38."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fabric.admit.reader import admit_read
from fabric.admit.view import Place
from fabric.agent import anchoring
from fabric.agent.anchor_machine import Cover
from fabric.agent.anchoring import AnchorSearch
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import Stored
from fabric.seal import envelope as form
from tests.fakes.approvals import approved
from tests.fakes.platform import SECRET, A, B, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.unit.agent.test_reading import notes, publish

STREAM = "anchor G01/registry/main@secret.G01.notes:0"


def hashes(platform: Platform) -> list[bytes]:
    return [form.parse(value).hash for value in platform.log.values(str(SECRET))]


def pass_time(platform: Platform, seconds: float) -> None:
    platform.clock.ahead += timedelta(seconds=seconds)


async def sent(platform: Platform, a: TestHost, b: TestHost, rows: int = 60) -> MemoryDatabase:
    """Several blocks of A's in the log, and A's and B's results over."""
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, rows))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    assert len(hashes(platform)) > 2
    pass_time(platform, 700)
    b.attest()
    return database


async def test_blocks_of_a_lapsed_sender_wait_and_are_taken_when_its_next_result_carries_them(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """MUST-9.36."""
    database, store = await sent(platform, a, b), MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: Reason.UNANCHORED.value in b.board.problems.get(STREAM, ""))
        assert store.rows(SECRET) == {}
        a.attest(heads=[hashes(platform)[-1]])
        await until(lambda: store.rows(SECRET) == database.held(table()))
        assert STREAM not in b.board.parts
    assert [e for e, _ in b.audit.events] == ["stream_unanchored", "stream_anchored"]
    assert b.metric("fabric_rejected_records_total", reason="unanchored") > 0
    assert b.metric("fabric_rejected_rows_total", reason="unanchored") > 0


async def test_a_reader_that_is_started_again_while_a_stream_waits_says_when_it_goes_on(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = await sent(platform, a, b), MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        first = parts.apply(b, store)
        await until(lambda: STREAM in b.board.problems)
        first.cancel()
        await asyncio.wait([first])
        a.attest(heads=[hashes(platform)[-1]])  # while nobody reads
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: STREAM not in b.board.parts)
    assert [e for e, _ in b.audit.events] == ["stream_unanchored", "stream_anchored"]


async def test_a_stream_that_waits_still_after_its_reader_was_started_again_is_told_of_once(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    await sent(platform, a, b)
    a.attest(heads=[hashes(platform)[0]])
    store = MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        first = parts.apply(b, store)
        await until(lambda: STREAM in b.board.problems)
        first.cancel()
        await asyncio.wait([first])
        unanchored = b.metric("fabric_rejected_records_total", reason="unanchored")
        parts.apply(b, store)
        await until(
            lambda: b.metric("fabric_rejected_records_total", reason="unanchored") > unanchored
        )
        assert STREAM in b.board.problems
    assert [e for e, _ in b.audit.events] == ["stream_unanchored"]


async def test_blocks_after_the_last_carried_head_are_not_applied(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """MUST-9.36."""
    await sent(platform, a, b)
    a.attest(heads=[hashes(platform)[0]])
    store = MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: Reason.UNANCHORED.value in b.board.problems.get(STREAM, ""))
        await asyncio.sleep(0.1)
    assert len(store.rows(SECRET)) == 19  # and a mark: the first block of twenty changes


async def test_a_copy_of_an_old_carried_head_drops_nothing_that_waits(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = await sent(platform, a, b), MemoryStore()
    a.attest(heads=[hashes(platform)[0]])
    platform.log.put(str(SECRET), 0, None, platform.log.values(str(SECRET))[0])
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: Reason.UNANCHORED.value in b.board.problems.get(STREAM, ""))
        a.attest(heads=[hashes(platform)[-2]])
        await until(lambda: store.rows(SECRET) == database.held(table()))
    dropped = {fields["reason"] for event, fields in b.audit.events if event == "record_dropped"}
    assert dropped == {"too_old"}  # the copy itself


async def test_a_suspension_vouches_for_what_was_sent_before_it(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    platform.suspend(A, heads=[hashes(platform)[-1]])
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))


async def test_blocks_of_a_sender_that_is_not_approved_any_more_are_taken_as_far_as_carried(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    a.attest(heads=[hashes(platform)[0]])
    b.host.view.take_policy(replace(platform.policy, version=8, approvals=approved(B)))
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: Reason.UNANCHORED.value in b.board.problems.get(STREAM, ""))
        assert len(store.rows(SECRET)) == 19  # and a mark: the first block of twenty changes
        a.attest(heads=[hashes(platform)[-1]])
        await until(lambda: store.rows(SECRET) == database.held(table()))


async def test_a_reader_that_saw_a_block_in_time_takes_it_however_long_it_waits(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.GRANT_MISSING.value in b.board.problems.get(part, ""))
        await until(lambda: database.released == database.position)
        pass_time(platform, 700)
        a.attest()
        b.attest()  # now A grants to B what it sent before
        await until(lambda: store.rows(SECRET) == database.held(table()))


async def test_a_look_ends_at_its_bound_and_goes_on_from_the_next_block(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchoring, "_ENOUGH", 1)
    database, store = await sent(platform, a, b, rows=200), MemoryStore()
    a.attest(heads=hashes(platform)[2::3] + hashes(platform)[-1:])
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))


class Unlucky:
    """A log that stores one data block and says that it did not, then takes none for a while."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        self._append = platform.log.append
        self.mode = "good"
        monkeypatch.setattr(platform.log, "append", self.append)

    async def append(self, topic: str, partition: int, records: Sequence[Any]) -> Stored:
        if topic != str(SECRET) or self.mode == "good":
            return await self._append(topic, partition, records)
        if self.mode == "stores":
            self.mode = "refuses"
            await self._append(topic, partition, records)
        await asyncio.sleep(0)
        raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no answer")


async def test_a_block_that_its_sender_sent_again_in_a_new_epoch_is_not_waited_for(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store, log = MemoryDatabase([table()]), MemoryStore(), Unlucky(platform, monkeypatch)
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        database.upsert(table(), notes(0, 5))
        await until(lambda: database.released == database.position)
        log.mode = "stores"
        database.upsert(table(), notes(5, 5))
        await until(lambda: log.mode == "refuses")
        pass_time(platform, 700)  # the same bytes can never pass now: sealed again, anew
        a.attest()
        log.mode = "good"
        await until(lambda: database.released == database.position)
    pass_time(platform, 700)
    b.attest()
    a.attest(heads=[hashes(platform)[-1]])
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)  # it grants to B
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: not b.board.problems)
    dropped = [fields["reason"] for event, fields in b.audit.events if event == "record_dropped"]
    assert dropped == ["superseded"]
    assert not b.board.problems


async def test_garbage_ahead_vouches_for_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    await sent(platform, a, b)
    for value in (None, b"", b"\xd8\x62garbage"):
        platform.log.put(str(SECRET), 0, None, value)
    see_results(platform, b)
    search = AnchorSearch(b.host, SECRET, 0)
    assert await search.cover(0, first(platform, b)) is Cover.UNKNOWN
    a.attest(heads=[hashes_of_blocks(platform)[-1]])
    see_results(platform, b)
    search.forget()
    assert await search.cover(0, first(platform, b)) is Cover.COVERED


async def test_a_log_that_stands_still_ends_a_look(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchoring, "REQUEST_S_MAX", 0.05)
    await sent(platform, a, b)
    see_results(platform, b)
    envelope = first(platform, b)

    async def bounds(topic: str, partition: int) -> tuple[int, int]:
        return 0, 1_000

    monkeypatch.setattr(platform.log, "bounds", bounds)
    with pytest.raises(UnavailableError):
        await AnchorSearch(b.host, SECRET, 0).cover(0, envelope)


def hashes_of_blocks(platform: Platform) -> list[bytes]:
    return [form.parse(v).hash for v in platform.log.values(str(SECRET)) if len(v) > 100]


def first(platform: Platform, b: TestHost):  # type: ignore[no-untyped-def]
    record = platform.log.records[str(SECRET), 0][0]
    place = Place(str(SECRET), 0)
    return admit_read(record.value or b"", place, b.host.view.door, appended=record.timestamp)


def see_results(platform: Platform, b: TestHost) -> None:
    for topic in ("fabric.results", "fabric.members"):
        for record in platform.log.records.get((topic, 0), []):
            b.host.view.take(topic, record.key, record.value)
