"""A log that has forgotten what it acknowledged."""

from dataclasses import replace

import pytest

from fabric.agent import parts as parts_of_agent
from fabric.agent import supervisor
from fabric.agent.log_check import is_accepted, lost, starts_at
from fabric.agent.read_machine import BEGINNING, Log, ReadMachine
from fabric.model.change import ZERO, Sequence
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import Origin, Stream
from fabric.ports import Record, StreamState
from fabric.seal import envelope
from tests.fakes.platform import OPEN, SECRET, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.sealing import NOW, TOPIC, Party, block
from tests.fakes.sealing import STREAM as NOTES
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.unit.agent.test_reading import notes, publish

STREAM = "G01/registry/main@secret.G01.notes:0"


async def sent(platform: Platform, a: TestHost, b: TestHost) -> MemoryDatabase:
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    assert await gone(a) == 0
    return database


def read_anew(host: TestHost) -> list[object]:
    """Topics that a host's readers began anew."""
    return [fields["topic"] for event, fields in host.audit.events if event == "read_anew"]


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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for people, nor for an authority that is not there."""
    monkeypatch.setattr(supervisor, "_HOLD_S", 0.05)
    monkeypatch.setattr(parts_of_agent, "_ATTEST_S_MAX", 0.05)


async def test_a_new_generation_is_sealed_under_a_result_that_the_log_has(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_of_agent, "_ATTEST_S_MAX", 10)
    database = await sent(platform, a, b)
    del platform.log.records[str(SECRET), 0][1:]

    async def attest() -> None:
        await a.host.view.changed_policy.wait(10)
        a.attest()

    async with running() as parts:
        await parts.view(a)
        old = a.host.view.current(platform.clock.now()).id
        parts.spawn(attest())
        parts.capture(a, database)
        await until(lambda: len(platform.log.values(str(SECRET))) > 1)
    sealed = [envelope.parse(value).header for value in platform.log.values(str(SECRET))]
    assert sealed[0].result_id == old
    assert all(header.result_id != old for header in sealed[1:])


async def test_a_sender_that_runs_while_its_log_goes_back_notices_at_its_next_block(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = await sent(platform, a, b), MemoryStore()
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        before = [*platform.log.records[str(SECRET), 0]]
        platform.log.records[str(SECRET), 0] = before[:1]
        platform.log.fail(UnavailableError(Reason.BROKER_UNAVAILABLE, "restored"))
        platform.log.fail(None)
        database.upsert(table(), notes(60, 5))
        await until(lambda: ("log_went_back", {"stream": STREAM}) in a.audit.events)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: a.board.is_ready and b.board.is_ready)


async def test_a_reader_begins_anew_where_a_log_has_grown_again_over_its_hint(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = await sent(platform, a, b), MemoryStore()
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    end = len(platform.log.records[str(SECRET), 0])
    del platform.log.records[str(SECRET), 0][1:]
    database.upsert(table(), notes(60, 60))
    await publish(platform, a, database)
    assert len(platform.log.records[str(SECRET), 0]) > end
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        assert b.board.is_ready
    assert read_anew(b) == [str(SECRET)]


async def test_a_reader_of_an_open_dataset_begins_anew_alike(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table(OPEN)]), MemoryStore()
    database.upsert(table(OPEN), notes(0, 30))
    for host in (a, b):
        host.attest()
    for grown in (False, True):
        if grown:
            end = len(platform.log.records[str(OPEN), 0])
            del platform.log.records[str(OPEN), 0][5:]
            database.upsert(table(OPEN), notes(30, 60))
        async with running() as parts:
            await parts.view(a)
            parts.capture(a, database, OPEN)
            await until(lambda: database.released == database.position)
        if grown:
            assert len(platform.log.records[str(OPEN), 0]) > end
        async with running() as parts:
            await parts.view(b)
            parts.apply(b, store, OPEN)
            await until(lambda: store.rows(OPEN) == database.held(table(OPEN)))
        assert read_anew(b) == [str(OPEN)] * grown


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
    assert ("log_went_back", {"stream": STREAM}) in a.audit.events
    assert a.metric("fabric_refused_blocks_total", reason="log_went_back") == 1


@pytest.mark.parametrize(
    ("offset", "first", "known", "start"),
    [
        (BEGINNING, 0, None, (0, True)),  # nothing of it was ever removed
        (BEGINNING, 4, True, (4, True)),
        (BEGINNING, 4, None, (4, False)),
        (BEGINNING, 4, False, (4, False)),
        (BEGINNING, 9, True, (9, False)),  # no record is left to tell
        (7, 4, None, (7, True)),
        (7, 4, False, (4, False)),
        (4, 4, False, (4, True)),
        (3, 4, True, (4, False)),
    ],
)
async def test_a_log_that_lost_its_beginning_is_sure_only_by_a_record_that_is_known(
    platform: Platform, offset: int, first: int, known: bool | None, start: tuple[int, bool]
) -> None:
    async def bounds(topic: str, partition: int) -> tuple[int, int]:
        return first, 9

    for _ in range(9):
        platform.log.put(str(TOPIC), 0, None, b"x")
    platform.log.bounds = bounds  # type: ignore[method-assign]
    states = {NOTES: stood(offset=offset)}
    machine = ReadMachine(Log(cluster="cluster", topic_id=f"id of {TOPIC}"), states)
    found = await starts_at(
        platform.log, machine, states, place=(str(TOPIC), 0), is_known=lambda *_: known
    )
    assert found == start


def stood(*, offset: int = 0, high: Sequence = ZERO) -> StreamState:
    return StreamState(
        high=high,
        chain=b"",
        offset=offset,
        cluster="cluster",
        topic_id=f"id of {TOPIC}",
        incomplete=False,
    )


@pytest.mark.parametrize(
    ("stream", "high", "known"),
    [
        (NOTES, Sequence(1, 50, 9), True),
        (NOTES, Sequence(1, 50, 8), False),
        (Stream(Origin.parse("G01/registry/other"), TOPIC, 0), Sequence(1, 50, 9), None),
    ],
)
def test_without_a_chain_a_sealed_record_is_known_if_it_leaves_no_hole(
    stream: Stream, high: Sequence, known: bool | None
) -> None:
    sender = Party.make()
    sealed = sender.seal(block(after=Sequence(1, 50, 9)), sender.start(sender.draft()))
    record = Record(
        topic=str(TOPIC), partition=0, offset=4, timestamp=NOW, key=None, value=sealed.data
    )
    assert is_accepted(stream, stood(high=high), record) is known
    assert is_accepted(stream, stood(high=high), replace(record, value=b"garbage")) is None
