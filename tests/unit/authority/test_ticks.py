"""Ticks: what they name, and what whoever asks over HTTPS gets. MUST-9.31, MUST-9.34."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.attest.catchup import Catchup
from fabric.attest.members import Members, NoticeKind
from fabric.authority import ledger_rows
from fabric.authority.ledger import Ledger
from fabric.authority.ticks import Ticks
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import NOTICES_PER_ANSWER_MAX, REQUEST_BYTES_MAX, RESULT_HEADS_MAX
from fabric.model.names import MEMBERS
from tests.fakes.authority_site import SENDER, AuthoritySite, free
from tests.fakes.verifier import CountedKey, a_beat


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    site.ticks.open()
    yield site
    site.close()


async def give(site: AuthoritySite, count: int, heads: int = 0) -> None:
    now = site.clock.now()
    for _ in range(count):
        await site.ledger.do(
            lambda ledger: ledger.notice(
                SENDER,
                NoticeKind.SUSPENSION,
                approval=ledger.last_number() + 1,
                why=Reason.STATE_REFUSED,
                now=now,
                heads=[bytes([n % 256]) * 32 for n in range(heads)],
            )
        )


async def feed(site: AuthoritySite, members: Members) -> int:
    answer = Catchup.decode(await site.ticks.catch_up(members.revocation_number, free))
    for key, value in answer.records:
        members.feed(MEMBERS, key, value)
    return len(answer.records)


async def test_beat_names_the_list_up_to_its_number(site: AuthoritySite) -> None:
    await give(site, 3)
    notices = await site.ledger.do(lambda ledger: ledger.notices_after(0, 10))
    now = site.clock.now()
    assert await site.ticks.beat(3) == a_beat(3, now, notices)
    assert await site.ticks.beat(1) == a_beat(1, now, notices)
    assert await site.ticks.beat(0) == a_beat(0, now)


async def test_beat_beyond_the_ledger_is_not_made(site: AuthoritySite) -> None:
    with pytest.raises(UnavailableError):
        await site.ticks.beat(1)


async def test_nothing_is_told_before_ledger_and_log_agree(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    with pytest.raises(UnavailableError) as waits:
        await site.ticks.catch_up(0, free)
    assert waits.value.reason is Reason.NOT_READY
    site.close()


async def test_a_view_that_lacks_notices_becomes_whole_with_one_answer(site: AuthoritySite) -> None:
    await give(site, 3)
    members = Members(site.policy.trust)
    assert await feed(site, members) == 4
    members.check_fresh(site.clock.now(), 1.0)
    assert members.revocation_number == 3


async def test_a_view_far_behind_asks_until_it_is_whole(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "NOTICES_PER_ANSWER_MAX", 2)
    await give(site, 5)
    members = Members(site.policy.trust)
    assert [await feed(site, members) for _ in range(3)] == [3, 3, 2]
    assert not members.is_behind


async def test_an_answer_stays_below_what_a_client_takes(site: AuthoritySite) -> None:
    await give(site, 8, heads=RESULT_HEADS_MAX)
    data = await site.ticks.catch_up(0, free)
    assert len(data) < REQUEST_BYTES_MAX
    assert len(Catchup.decode(data).records) > 2


async def test_a_tick_is_signed_once_a_second_however_many_ask(site: AuthoritySite) -> None:
    first = await site.ticks.catch_up(0, free)
    assert await site.ticks.catch_up(0, free) == first
    site.clock.advance(1)
    assert await site.ticks.catch_up(0, free) != first
    await give(site, 1)
    members = Members(site.policy.trust)
    await feed(site, members)
    assert members.revocation_number == 1


async def test_an_answer_that_hides_the_last_notice_leaves_the_view_behind(
    site: AuthoritySite,
) -> None:
    await give(site, 2)
    members = Members(site.policy.trust)
    answer = Catchup.decode(await site.ticks.catch_up(0, free))
    for key, value in (answer.records[0], answer.records[2]):
        members.feed(MEMBERS, key, value)
    assert members.is_behind
    with pytest.raises(DeniedError):
        members.check_fresh(site.clock.now(), 1.0)


async def walk(ticks: Ticks, last: int) -> int:
    """Read every notice up to the last one, page by page; how many pages there were."""
    after = pages = 0
    while after < last:
        after += len(Catchup.decode(await ticks.catch_up(after, free)).records) - 1
        pages += 1
    return pages


async def test_whoever_reads_a_long_list_again_costs_no_signatures(site: AuthoritySite) -> None:
    count, now = 1_100, site.clock.now()

    def suspend_all(ledger: Ledger) -> None:
        for n in range(count):
            host = replace(SENDER, host=f"h{n}")
            ledger.notice(
                host, NoticeKind.SUSPENSION, approval=1, why=Reason.HOST_SUSPENDED, now=now
            )

    await site.ledger.do(suspend_all)
    key = CountedKey()
    ticks = Ticks(site.ledger, [key], now=site.clock.now, interval_s=60)
    ticks.open()
    assert await walk(ticks, count) > count // NOTICES_PER_ANSWER_MAX
    assert len(key.threads) == count + 1
    await walk(ticks, count)
    assert len(key.threads) == count + 1
