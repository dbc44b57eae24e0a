"""A view that a broker holds back: the authority tells the rest, or it ends closed."""

from datetime import timedelta

import pytest

from fabric.agent.ticking import Ticking
from fabric.attest.catchup import Catchup
from fabric.attest.members import heartbeat_record, notice_record
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import MEMBERS
from tests.fakes.platform import A, B, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.fakes.verifier import Verifier, a_beat


class Desk:
    """The authority as HTTPS shows it; `broken` for one that does not answer."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.broken = False
        self.asked: list[int] = []
        self.pen: Verifier = platform.verifier
        self.only: Catchup | None = None

    async def notices(self, after: int) -> Catchup:
        self.asked.append(after)
        if self.broken:
            raise UnavailableError(Reason.AUTHORITY_UNAVAILABLE, "away")
        if self.only is not None:
            return self.only
        told, now = self.platform.given, self.platform.clock.now()
        missing = [n for n in told if n.number > after]
        beat = heartbeat_record(a_beat(len(told), now, told), self.pen.signers)
        records = [notice_record(notice, self.pen.signers) for notice in missing]
        return Catchup(records=(*records, beat))


def ticking(host: TestHost, desk: Desk) -> Ticking:
    return Ticking(
        host.host.view,
        desk,
        host.platform.clock,
        show=lambda *told: host.board.show("ticks", *told),
    )


def see(host: TestHost, *, but: tuple[str, ...] = ()) -> None:
    """The broker shows what the log holds, except for records under these keys."""
    for topic in ("fabric.results", MEMBERS):
        for record in host.platform.log.records.get((topic, 0), []):
            if not any(text in (record.key or b"").decode() for text in but):
                host.host.view.take(topic, record.key, record.value)


async def test_a_hidden_revocation_is_noticed_with_the_next_tick_and_fetched(
    platform: Platform, b: TestHost, a: TestHost
) -> None:
    a.attest()
    platform.suspend(A)
    platform.tick()
    see(b, but=("/revocation/", "/host/"))
    members, desk = b.host.view.members, Desk(platform)
    assert members.is_behind
    await ticking(b, desk).look()
    assert desk.asked == [0]
    assert not members.is_behind
    assert b.board.parts["ticks"] is None


async def test_a_broker_that_shows_nothing_any_more_is_asked_around_after_three_seconds(
    platform: Platform, b: TestHost
) -> None:
    platform.tick()
    see(b)
    desk = Desk(platform)
    part = ticking(b, desk)
    await part.look()
    assert desk.asked == []
    platform.clock.ahead += timedelta(seconds=3.5)
    await part.look()
    assert desk.asked == [0]
    assert b.board.parts["ticks"] is None


async def test_a_whole_view_of_an_old_log_is_no_fresh_one(platform: Platform, b: TestHost) -> None:
    """A broker that plays an old log at its old pace. MUST-9.33."""
    platform.clock.ahead -= timedelta(seconds=100)
    platform.tick()
    platform.clock.ahead += timedelta(seconds=100)
    see(b)
    desk = Desk(platform)
    await ticking(b, desk).look()
    assert desk.asked == [0]


async def test_a_stopped_authority_is_shown(platform: Platform, b: TestHost) -> None:
    platform.tick()
    see(b)
    desk = Desk(platform)
    desk.broken = True
    platform.clock.ahead += timedelta(seconds=4)
    await ticking(b, desk).look()
    assert Reason.MEMBERS_STALE.value in b.board.problems["ticks"]


async def test_ticks_of_a_wrong_clock_stop_nothing_for_longer_than_they_come(
    platform: Platform, b: TestHost
) -> None:
    """MUST-9.42."""
    platform.clock.ahead += timedelta(hours=1)
    platform.tick()
    desk = Desk(platform)
    beat = heartbeat_record(a_beat(0, platform.clock.now(), []), desk.pen.signers)
    platform.clock.ahead -= timedelta(hours=1)
    desk.only = Catchup(records=(beat,))
    see(b)
    part = ticking(b, desk)
    await part.look()
    assert b.host.view.members.whole_at is None
    assert Reason.CLOCK_WENT_BACK.value in b.board.problems["ticks"]
    assert "3600 s ahead of this machine's clock" in b.board.problems["ticks"]
    desk.only = None
    platform.tick()
    see(b)
    await part.look()
    assert b.board.parts["ticks"] is None


async def test_an_answer_by_somebody_else_changes_nothing(platform: Platform, b: TestHost) -> None:
    desk = Desk(platform)
    desk.pen = Verifier()
    await ticking(b, desk).look()
    assert b.host.view.members.whole_at is None
    assert [event for event, _ in b.audit.events] == ["control_record_dropped"]


async def test_without_ticks_keys_end_after_half_a_minute_and_rows_with_a_result(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest(life_s=10_000)
    b.attest(life_s=10_000)
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, table().topic)
        parts.capture(a, database)
        parts.apply(b, store)
        database.upsert(table(), [{"id": 1, "text": "one"}])
        await until(lambda: len(store.rows(table().topic)) == 1)
        platform.is_ticking = False
        platform.clock.ahead += timedelta(seconds=40)
        dataset = a.host.view.dataset(table().topic)
        assert dataset is not None
        with pytest.raises(DeniedError):
            a.host.view.check_grants(dataset, platform.clock.now())
        database.upsert(table(), [{"id": 2, "text": "two"}])
        await until(lambda: len(store.rows(table().topic)) == 2)
        platform.clock.ahead += timedelta(seconds=600)
        database.upsert(table(), [{"id": 3, "text": "three"}])
        publish = f"publish {table().topic}"
        await until(lambda: Reason.MEMBERS_STALE.value in a.board.problems.get(publish, ""))
        assert len(store.rows(table().topic)) == 2
        platform.is_ticking = True
        await until(lambda: len(store.rows(table().topic)) == 3)


__all__ = ["B"]
