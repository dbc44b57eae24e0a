"""A reader against a log that someone else may write."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fabric.agent import grant_book, reading
from fabric.agent import read_machine as m
from fabric.agent.reading import SealedReader
from fabric.agent.sinks import SinkHolder
from fabric.attest import kept
from fabric.model.block import Block
from fabric.model.errors import Reason
from fabric.model.names import Stream, grants_topic
from fabric.policy.types import Policy
from fabric.seal import envelope as form
from fabric.seal import opening
from fabric.seal.epoch import parse_start
from fabric.seal.verify import VerifiedEnvelope
from tests.fakes.platform import ORIGIN, SECRET, A, Platform, TestHost, dataset
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemorySink, MemoryStore


def notes(first: int, count: int) -> list[dict[str, object]]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]


async def publish(platform: Platform, a: TestHost, database: MemoryDatabase) -> None:
    """Publish everything the database holds, then end."""
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)


class Watched:
    """A reader of B's that holds A's one block, which is carried by now."""

    def __init__(self, platform: Platform, a: TestHost, b: TestHost) -> None:
        holder = SinkHolder({SECRET: "notes"}, lambda: MemorySink(MemoryStore()), b.host.view)
        self.reader = SealedReader(b.host, dataset(SECRET), 0, sink=holder, part="apply")  # type: ignore[arg-type]
        self.machine = self.reader._machine = m.ReadMachine(m.Log(cluster="", topic_id=""), {})
        self.sender = A.spiffe(b.host.view.trust_domain)
        self.carry(platform, a, b, b"a" * 32)

    def carry(self, platform: Platform, a: TestHost, b: TestHost, digest: bytes) -> None:
        """Let a result carry a hash, and hold the block that has it."""
        a.attest(heads=[digest])
        record = platform.log.records["fabric.results", 0][-1]
        b.host.view.take("fabric.results", record.key, record.value)
        stream = Stream(ORIGIN, SECRET, 0)
        self.machine.held[stream] = m.Held(offset=4, seen=[(self.sender, digest)])  # type: ignore[index]


@pytest.fixture
def watched(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> Watched:
    monkeypatch.setattr(reading, "_BACK_S", 0.01)
    return Watched(platform, a, b)


async def test_a_holding_that_ends_while_its_anchor_is_noticed_needs_no_way_back(
    watched: Watched,
) -> None:
    reader = watched.reader
    async with asyncio.TaskGroup() as tasks:
        async with reader._handling:  # a fresh block is in hand
            task = tasks.create_task(reader._watch_held())
            await asyncio.sleep(0.05)
            watched.machine.held.clear()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()


async def test_between_the_decision_to_go_back_and_going_nothing_is_handled(
    watched: Watched,
) -> None:
    with pytest.raises(reading._GoBack):
        await watched.reader._watch_held()
    assert watched.reader._handling.locked()
    assert watched.machine.release() == 4


async def test_what_was_gone_back_for_is_kept_in_mind_only_while_it_is_held(
    watched: Watched, platform: Platform, a: TestHost, b: TestHost
) -> None:
    for number in range(3):
        watched.carry(platform, a, b, bytes([number]) * 32)
        watched.reader._handling = asyncio.Lock()
        with pytest.raises(reading._GoBack):
            await watched.reader._watch_held()
    assert watched.reader._acted_on == {(watched.sender, bytes([2]) * 32)}


async def test_garbage_in_the_log_is_dropped_counted_and_audited(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    topic = str(SECRET)
    platform.log.put(topic, 0, None, b"\x00\x00\x00\x00\x05 a plain record")
    platform.log.put(topic, 0, None, None)
    await publish(platform, a, database)
    forged = bytearray(platform.log.values(topic)[-1])
    forged[-10] ^= 1
    platform.log.put(topic, 0, None, bytes(forged))
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: b.metric("fabric_rejected_records_total", level="secret",
                                     reason="bad_signature") == 1)  # fmt: skip
    assert b.metric("fabric_rejected_records_total", level="secret", reason="not_sealed") == 2
    assert b.metric("fabric_rejected_rows_total") == 0  # nobody knows what an unverified one holds
    applied_blocks = b.metric("fabric_applied_blocks_total", outcome="applied")
    assert applied_blocks == b.metric("fabric_apply_duration_seconds_count") > 0
    assert [e for e, _ in b.audit.events] == ["record_dropped"] * 3
    assert b.board.parts["apply secret.G01.notes:0"] is None


async def test_an_envelope_replayed_inside_the_log_is_counted_and_harmless(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    for value in platform.log.values(str(SECRET)):
        platform.log.put(str(SECRET), 0, None, value)
    count = len(platform.log.values(str(SECRET))) // 2
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(
            lambda: (
                b.metric("fabric_applied_records_total", level="secret", outcome="duplicate")
                == count
            )
        )
        assert b.metric("fabric_applied_blocks_total", outcome="duplicate") == count
    assert store.rows(SECRET) == database.held(table())


async def test_a_lost_envelope_stops_its_stream_by_name(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    records = platform.log.records[str(SECRET), 0]
    kept = [record for record in records if record.offset != 1]
    platform.log.records[str(SECRET), 0] = kept
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        stream = "stream G01/registry/main@secret.G01.notes:0"
        await until(lambda: Reason.GAP.value in b.board.problems.get(stream, ""))
    assert [e for e, _ in b.audit.events] == ["stream_stopped"]
    assert len(store.rows(SECRET)) < 60


async def test_blocks_behind_a_stop_are_not_opened_and_one_that_begins_anew_is(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 200))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    place = str(SECRET), 0
    records = platform.log.records[place]
    platform.log.records[place] = [record for record in records if record.offset != 1]
    database.forget()
    database.upsert(table(), notes(200, 1))
    await publish(platform, a, database)
    opened: list[int] = []

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(verified: VerifiedEnvelope, *rest: Any) -> Any:
            opened.append(verified.envelope.header.upto.generation)
            return real(verified, *rest)

        return counted

    for name in ("open_", "open_quickly"):
        monkeypatch.setattr(reading, name, counting(getattr(reading, name)))
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    behind = len(records) - 2
    ahead = 2 + reading._AHEAD_MAX  # one in hand, those in the queue, one that waits for it
    assert opened.count(min(opened)) <= 1 + ahead < behind
    assert [e for e, _ in b.audit.events][:2] == ["stream_stopped", "stream_resumed"]


async def test_a_short_envelope_is_decoded_on_the_event_loop_only_if_it_does_not_expand(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    mixed = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(60))
    decoded: list[tuple[int, bool]] = []
    real = opening.unpack

    def watched(*args: Any, **more: Any) -> Block:
        block = real(*args, **more)
        decoded.append((len(args[0]), threading.current_thread() is threading.main_thread()))
        return block

    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        database.upsert(table(), [{"id": 0, "text": "its secret is unwrapped now"}])
        await until(lambda: store.rows(SECRET) == database.held(table()))
        monkeypatch.setattr(opening, "unpack", watched)
        for number, text in enumerate(("a few words", mixed + "a" * 200_000)):
            database.upsert(table(), [{"id": number, "text": text}])
            await until(lambda: store.rows(SECRET) == database.held(table()))
    assert max(len(value or b"") for value in platform.log.values(str(SECRET))) < 16 * 1024
    assert {at_once for size, at_once in decoded if size < 1_000} == {True}
    assert [at_once for size, at_once in decoded if size > 200_000] == [False]


async def test_a_missing_grant_pauses_and_its_coming_resumes(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.GRANT_MISSING.value in b.board.problems.get(part, ""))
        assert not store.rows(SECRET)
        b.attest()
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: b.board.parts[part] is None)


async def test_what_was_sealed_after_our_policys_end_waits_for_its_renewal_and_is_no_gap(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """MUST-9.40."""
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 60))
    a.attest()
    b.attest()
    ended = replace(platform.policy, expires=platform.clock.now())
    await publish(platform, a, database)
    b.host.view.take_policy(ended)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.POLICY_EXPIRED.value in b.board.problems.get(part, ""))
        assert not store.rows(SECRET)
        b.host.view.take_policy(platform.policy)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert b.audit.events == []


async def test_what_was_sealed_under_a_newer_policy_asks_for_it(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    newer = replace(platform.policy, version=platform.policy.version + 1)
    a.host.view.take_policy(newer)
    platform.policy = newer
    await publish(platform, a, database)
    async with running() as parts:
        await parts.view(b, SECRET)
        assert not b.host.view.policy_wanted.is_set()
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.POLICY_NEWER.value in b.board.problems.get(part, ""))
        assert b.host.view.policy_wanted.is_set()
        b.host.view.take_policy(newer)
        await until(lambda: store.rows(SECRET) == database.held(table()))


async def test_a_missing_epoch_start_pauses(platform: Platform, a: TestHost, b: TestHost) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    grants = platform.log.records.pop((grants_topic(SECRET), 0))
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.EPOCH_START_MISSING.value in b.board.problems.get(part, ""))
        for record in grants:
            platform.log.put(grants_topic(SECRET), 0, record.key, record.value)
        await until(lambda: store.rows(SECRET) == database.held(table()))


async def test_a_reader_whose_epoch_start_had_to_go_says_so_and_goes_on_with_what_is_read_anew(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is more starts of one sender back than a view keeps."""
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 2))
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    for number in range(4):  # each life opens an epoch
        database.upsert(table(), notes(number, 1))
        await publish(platform, a, database)
    assert len(platform.log.values(grants_topic(SECRET))) == 4
    part = f"stream {Stream(ORIGIN, SECRET, 0)}"
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: b.board.reasons().get(part) is Reason.EPOCH_START_MISSING)
        assert "apply secret.G01.notes:0" not in b.board.problems
        database.forget()
        a.host.identity.state.forget_source("main", [SECRET])
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: part not in b.board.problems)
    assert [e for e, _ in b.audit.events if "stream" in e] == ["stream_stopped", "stream_resumed"]


async def test_a_row_the_table_refuses_goes_to_quarantine_and_is_said(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    store.refuses = lambda row: row["id"] == 3
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: len(store.rows(SECRET)) == 9)
    assert b.metric("fabric_applied_records_total", level="secret", outcome="quarantined") == 1
    assert [e for e, _ in b.audit.events] == ["change_quarantined"]


async def test_a_reader_goes_on_from_its_hint_and_not_from_the_start(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 40))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    for _ in range(2):
        async with running() as parts:
            await parts.view(b, SECRET)
            parts.apply(b, store)
            await until(lambda: store.rows(SECRET) == database.held(table()))
            await asyncio.sleep(0.05)
    assert b.metric("fabric_applied_records_total", level="secret", outcome="duplicate") == 0
    platform.log.cluster = "restored from a backup"
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(
            lambda: (
                b.metric("fabric_applied_records_total", level="secret", outcome="duplicate") > 0
            )
        )
    assert store.rows(SECRET) == database.held(table())


async def test_under_from_join_a_newly_named_consumer_begins_at_its_first_epoch_incomplete(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """MUST-7.9, MUST-7.11: it skips what is not for it, and has all that came since."""
    unnamed = dataset(SECRET, history="from_join", consumers=())
    platform.policy = replace(platform.policy, datasets={str(SECRET): unnamed})
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.open().attest()
    await publish(platform, a, database)
    sets = {str(SECRET): replace(unnamed, consumers=("G02/health",))}
    platform.policy = replace(platform.policy, version=8, datasets=sets)
    a.host.view.take_policy(platform.policy)
    b.open().attest()
    part = "apply secret.G01.notes:0"
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: Reason.GRANT_MISSING.value in b.board.problems.get(part, ""))
        await until(lambda: len(platform.log.values(grants_topic(SECRET))) > 1)
        start = parse_start(platform.log.values(grants_topic(SECRET))[-1]).start
        assert b.id in {recipient.host for recipient in start.recipients}
        database.upsert(table(), notes(100, 10))
        await until(lambda: len(store.rows(SECRET)) >= 10)
    assert {row["id"] for row in store.rows(SECRET).values()} == {*range(100, 110)}
    assert b.metric("fabric_dataset_incomplete", level="secret") == 1
    assert not [name for name in b.board.problems if name.startswith("stream")]


async def test_a_block_whose_result_a_full_view_let_go_is_waited_for_and_not_dropped(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MUST-9.39: it would be a loss."""
    monkeypatch.setattr(kept, "RESULTS_KEPT_MAX", 2)
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    for _ in range(2):
        platform.clock.ahead += timedelta(seconds=11)
        a.attest()
        b.attest()
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.RESULT_UNKNOWN.value in b.board.problems.get(part, ""))
        await asyncio.sleep(0.1)
    assert b.audit.events == []


def forged(platform: Platform) -> bytes:
    """An envelope that names a result which nobody ever issued."""
    value = bytearray(platform.log.values(str(SECRET))[-1])
    result_id = form.parse(bytes(value)).header.result_id
    at = value.index(result_id)
    value[at : at + 16] = bytes(16)
    return bytes(value)


async def test_a_result_that_nobody_has_heard_of_is_waited_for_but_not_for_ever(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """MUST-9.39."""
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    platform.log.put(str(SECRET), 0, None, forged(platform))
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.RESULT_UNKNOWN.value in b.board.problems.get(part, ""))
        platform.clock.ahead += timedelta(seconds=11)
        await until(lambda: b.metric("fabric_rejected_records_total", reason="not_attested") == 1)
        parts.capture(a, database)
        database.upsert(table(), notes(10, 5))
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert [e for e, _ in b.audit.events] == ["record_dropped"]


def stricter(platform: Platform) -> Policy:
    """The platform's next policy, which demands more of the hosts of secret datasets."""
    rules = {**platform.policy.rules}
    rules["secret"] = replace(rules["secret"], host_level_min=5)
    return replace(platform.policy, version=8, rules=rules)


async def test_a_reader_that_is_behind_a_stricter_policy_says_which_blocks_it_refuses(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    async with running() as parts:
        await parts.view(b, SECRET)
        b.host.view.take_policy(stricter(platform))
        parts.apply(b, store)
        part = f"stream {Stream(ORIGIN, SECRET, 0)}"
        await until(lambda: part in b.board.problems)
    assert b.board.problems[part].startswith("history_refused: policy version 8 refuses blocks")
    assert store.rows(SECRET) == {}


async def test_a_refused_block_that_the_target_has_already_is_no_loss(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.attest()
    b.attest()
    await publish(platform, a, database)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    platform.log.cluster = "another"  # so that it is read from its beginning
    async with running() as parts:
        await parts.view(b, SECRET)
        b.host.view.take_policy(stricter(platform))
        parts.apply(b, store)
        rejected = "fabric_rejected_records_total"
        await until(lambda: b.metric(rejected, reason="level_too_low") >= 1)
    assert not [part for part in b.board.problems if part.startswith("stream ")]
