"""The publisher: order, repetition after loss, and heartbeats that name what was sent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fabric.attest.appraise import Counters
from fabric.attest.catchup import Catchup
from fabric.attest.members import (
    Heartbeat,
    HostState,
    Notice,
    NoticeKind,
    heartbeat_record,
    host_record,
    notice_record,
)
from fabric.attest.notices import read_member
from fabric.authority.attest_machine import Verdict, attested_state
from fabric.authority.ledger import Ledger
from fabric.authority.publisher import NO_TIME
from fabric.model.errors import PeerError, Reason, UnavailableError, UsageError
from fabric.model.names import MEMBERS, RESULTS
from fabric.ports import Stored
from tests.fakes.authority_site import SENDER, AuthoritySite, free, until
from tests.fakes.verifier import Verifier, a_beat, a_notice, a_result

AWAY = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    site.clock.set_wall(site.clock.now().replace(microsecond=0))
    yield site
    site.close()


@contextlib.asynccontextmanager
async def publishing(site: AuthoritySite) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(site.publisher.run(site.policy.trust))
        try:
            yield
        finally:
            task.cancel()


async def give(site: AuthoritySite, count: int = 1) -> None:
    """Notices of rising approvals, kept and not sent."""
    now = site.clock.now()
    for _ in range(count):
        last = await site.ledger.do(Ledger.last_number)
        await site.ledger.do(
            lambda ledger, approval=last + 1: ledger.notice(
                SENDER, NoticeKind.SUSPENSION, approval=approval, why=Reason.STATE_REFUSED, now=now
            )
        )


def statements(site: AuthoritySite) -> list[object]:
    return [
        read_member(record.key or b"", record.value or b"", site.policy.trust)
        for record in site.log.records.get((MEMBERS, 0), [])
    ]


def numbers(site: AuthoritySite) -> list[int]:
    return [s.number for s in statements(site) if isinstance(s, Notice)]


async def test_heartbeats_are_sent_again_and_again(site: AuthoritySite) -> None:
    assert site.publisher.why_not_ready is not None
    async with publishing(site):
        await until(lambda: len(statements(site)) >= 3)
    assert site.publisher.why_not_ready is None
    assert all(s == a_beat(0, s.at) for s in statements(site))


def times(site: AuthoritySite) -> list[datetime]:
    return [s.at for s in statements(site) if isinstance(s, Heartbeat)]


@pytest.mark.parametrize("behind_s", [31, -31])
async def test_nothing_is_signed_while_the_brokers_gainsay_the_clock(
    site: AuthoritySite, behind_s: int
) -> None:
    """MUST-9.43."""
    site.brokers_behind = timedelta(seconds=behind_s)
    async with publishing(site):
        await until(lambda: "the brokers' clock" in (site.publisher.why_not_ready or ""))
        await give(site)
        await site.publisher.published(1)  # takes away, so it waits for no clock
        with pytest.raises(UnavailableError):
            await site.ticks.catch_up(0, free)
        assert {*times(site)} == {NO_TIME}
        site.brokers_behind = timedelta(seconds=29)
        await until(lambda: site.publisher.why_not_ready is None)
    assert times(site)[-1] == site.clock.now()
    assert await site.ticks.catch_up(0, free)


async def test_what_is_published_costs_whoever_asks_for_it_nothing(site: AuthoritySite) -> None:
    await give(site, 30)
    paid: list[int] = []
    async with publishing(site):
        await site.publisher.published(30)
        await site.ticks.opened()
    answer = Catchup.decode(await site.ticks.catch_up(0, paid.append)).records
    assert [(record.key, record.value) for record in site.log.records[MEMBERS, 0]][:60:2] == [
        *answer[:30]
    ]
    assert not paid


async def test_a_pause_that_nobody_counted_ends_by_itself_once_the_brokers_confirm_it(
    site: AuthoritySite,
) -> None:
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        site.clock.set_wall(site.clock.now() + timedelta(hours=1))
        await until(lambda: site.clock.now() in times(site))
        assert site.publisher.why_not_ready is None


async def test_a_jump_that_the_brokers_gainsay_stops_the_ticks(site: AuthoritySite) -> None:
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        before = site.clock.now()
        site.brokers_behind = timedelta(hours=1)
        site.clock.set_wall(before + site.brokers_behind)
        await until(lambda: times(site)[-1] == NO_TIME)
        assert max(times(site)) == before


async def test_a_clock_that_creeps_ahead_of_the_brokers_stops_what_is_signed(
    site: AuthoritySite,
) -> None:
    """MUST-9.44: slewed, it runs with the monotonic clock, and nothing on the machine sees it."""
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        site.brokers_behind = timedelta(seconds=31)
        await until(lambda: "31 s ahead of the brokers' clock" in _why(site))
        with pytest.raises(UnavailableError, match="31 s ahead of the brokers' clock") as caught:
            site.signing.now()  # which `clock` on /readyz shows
        assert caught.value.reason is Reason.NOT_READY
        with pytest.raises(UnavailableError, match="31 s ahead"):
            await site.ticks.catch_up(0, free)
        with pytest.raises(UnavailableError, match="31 s ahead"):
            site.signing.confirmed()
        last = max(times(site))
        site.clock.advance(10)
        await give(site)
        await site.publisher.published(1)  # takes away, so it waits for no clock
        assert max(times(site)) == last
        site.brokers_behind = timedelta(seconds=29)
        await until(lambda: site.publisher.why_not_ready is None)
    assert times(site)[-1] == site.clock.now()
    assert await site.ticks.catch_up(0, free)


def _why(site: AuthoritySite) -> str:
    return site.publisher.why_not_ready or ""


async def test_a_clock_that_falls_behind_signs_nothing_of_the_future_and_goes_on(
    site: AuthoritySite,
) -> None:
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        site.brokers_behind = -timedelta(seconds=31)
        count = len(times(site))
        await until(lambda: len(times(site)) >= count + 3)
    assert times(site).count(NO_TIME) == 1


async def test_brokers_that_do_not_answer_say_nothing_of_the_clock(site: AuthoritySite) -> None:
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        site.log.fail(AWAY)
        await until(lambda: "no gateway" in _why(site))
        site.clock.advance(3_600)
        assert site.signing.confirmed() == site.clock.now()
        assert await site.ticks.catch_up(0, free)
        site.log.fail(None)
        await until(lambda: site.clock.now() in times(site))
    assert times(site).count(NO_TIME) == 1


async def test_the_first_tick_after_a_silence_is_the_last_of_a_clock_that_crept_ahead(
    site: AuthoritySite,
) -> None:
    async with publishing(site):
        await until(lambda: len(times(site)) >= 3)
        site.log.fail(AWAY)
        await until(lambda: "no gateway" in _why(site))
        before, site.brokers_behind = len(times(site)), timedelta(minutes=5)
        site.log.fail(None)
        await until(lambda: "300 s ahead of the brokers' clock" in _why(site))
        await until(lambda: len(times(site)) >= before + 3)
    assert {*times(site)[before + 1 :]} == {NO_TIME}


async def test_a_tick_that_was_stored_without_a_time_is_followed_by_a_comparison(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = site.log.append

    async def silent(*batch: Any) -> Stored:
        return Stored(offset=(await append(*batch)).offset, at=None)

    monkeypatch.setattr(site.log, "append", silent)
    async with publishing(site):
        await until(lambda: len(times(site)) >= 8)
    assert all(NO_TIME in pair for pair in zip(times(site)[1:], times(site)[2:], strict=False))


async def test_a_broker_that_shows_another_record_confirms_nothing(site: AuthoritySite) -> None:
    site.log.put(MEMBERS, 0, *notice_record(a_notice(1), site.verifier.signers))
    append = site.log.append

    async def elsewhere(*batch: Any) -> Stored:
        return Stored(offset=0, at=(await append(*batch)).at)

    site.log.append = elsewhere  # type: ignore[method-assign]
    async with publishing(site):
        await until(lambda: "do not show" in (site.publisher.why_not_ready or ""))
    assert {*times(site)} == {NO_TIME}


async def test_no_heartbeat_names_a_notice_that_was_not_sent_before(site: AuthoritySite) -> None:
    await give(site, 3)
    async with publishing(site):
        await site.publisher.published(3)
        await give(site, 2)
        await site.publisher.published(5)
    sent = 0
    for statement in statements(site):
        if isinstance(statement, Notice):
            assert statement.number == sent + 1
            sent = statement.number
        elif isinstance(statement, Heartbeat):
            assert statement.number <= sent
    assert sent == 5


async def test_many_notices_go_out_in_bounded_batches(site: AuthoritySite) -> None:
    await give(site, 120)
    async with publishing(site):
        await site.publisher.published(120)
    assert numbers(site) == list(range(1, 121))


async def test_a_notice_waits_for_a_gateway_and_is_not_lost(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.2)
    site.log.fail(AWAY)
    await give(site)
    async with publishing(site):
        with pytest.raises(UnavailableError) as error:
            await site.publisher.published(1)
        assert error.value.reason is Reason.GATEWAY_UNAVAILABLE
        assert site.publisher.why_not_ready is not None
        site.log.fail(None)
        await until(lambda: numbers(site) == [1])


async def test_a_log_that_lost_notices_gets_them_again(site: AuthoritySite) -> None:
    await give(site, 3)
    async with publishing(site):
        await site.publisher.published(3)
    site.log.records.clear()
    async with publishing(site):
        await until(lambda: numbers(site) == [1, 2, 3])


async def test_a_log_that_has_all_notices_gets_none_again(site: AuthoritySite) -> None:
    await give(site, 2)
    for _ in range(2):
        async with publishing(site):
            await site.publisher.published(2)
    assert numbers(site) == [1, 2]


async def test_notices_that_only_the_log_has_are_taken_in_before_new_numbers(
    site: AuthoritySite,
) -> None:
    for number in (1, 2):
        site.log.put(MEMBERS, 0, *notice_record(a_notice(number), site.verifier.signers))
    async with publishing(site):
        await until(lambda: site.publisher.why_not_ready is None)
        await give(site)
        await site.publisher.published(3)
    assert numbers(site) == [1, 2, 3]


async def test_a_ledger_that_contradicts_the_log_stops_the_process(site: AuthoritySite) -> None:
    await give(site)
    site.log.put(MEMBERS, 0, *notice_record(a_notice(1), site.verifier.signers))
    with pytest.raises(UsageError) as error:
        await site.publisher.run(site.policy.trust)
    assert error.value.reason is Reason.FORK


async def test_a_heartbeat_beyond_all_notices_stops_the_process(site: AuthoritySite) -> None:
    beat = heartbeat_record(a_beat(9, site.clock.now()), site.verifier.signers)
    site.log.put(MEMBERS, 0, *beat)
    with pytest.raises(UsageError, match="names notice 9"):
        await site.publisher.run(site.policy.trust)


async def test_records_that_others_put_into_the_log_are_passed_over(site: AuthoritySite) -> None:
    site.log.put(MEMBERS, 0, b"verifier/revocation/1", b"garbage")
    site.log.put(MEMBERS, 0, None, None)
    site.log.put(MEMBERS, 0, *notice_record(a_notice(1), Verifier().signers))
    async with publishing(site):
        await until(lambda: site.publisher.why_not_ready is None)
    assert await site.ledger.do(Ledger.last_number) == 0


async def test_a_result_is_published_before_its_state(site: AuthoritySite) -> None:
    result = a_result()
    state = attested_state(result, result.issued)
    data = await site.publisher.attested(result, state, "fabric.example")
    assert site.log.values(RESULTS) == [data]
    assert statements(site) == [state]


async def test_a_refusal_of_our_own_record_is_retried_until_the_deadline(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 5.0)
    refusals = [PeerError(Reason.BAD_SIGNATURE, "the gateway's policy is older")]
    site.log.judge = lambda *_: refusals.pop() if refusals else None
    result = a_result()
    await site.publisher.attested(
        result, attested_state(result, site.clock.now()), "fabric.example"
    )
    assert len(site.log.values(RESULTS)) == 1


async def attested_here(site: AuthoritySite) -> HostState:
    """A host attested in the ledger, and nothing of it published."""
    machine, result = site.machines[SENDER], a_result(host=SENDER)
    site.ticks.open()  # in an earlier life, whose clock was confirmed
    await site.enrol(machine)
    known = await site.ledger.do(lambda ledger: ledger.known(SENDER))
    counters = Counters(clock=7, resets=2, restarts=1, safe=True)
    verdict = Verdict(enrolment=known.enrolment, result=result, counters=counters, tally=bytes(32))
    return await site.ledger.do(lambda ledger: ledger.attest(verdict, result.issued))


async def test_a_state_that_the_log_has_already_is_marked_at_the_start(
    site: AuthoritySite,
) -> None:
    state = await attested_here(site)
    site.log.put(MEMBERS, 0, *host_record(state, site.verifier.signers))
    async with publishing(site):
        await until(lambda: site.publisher.why_not_ready is None)
    [(word, _)] = await site.ledger.do(lambda ledger: ledger.shown(state.since))
    assert word == "attested"
