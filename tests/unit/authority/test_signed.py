"""Notices are signed once for each set of keys, by whoever needs them first. MUST-9.34."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fabric.attest.keys import Signer
from fabric.attest.members import Notice, NoticeKind
from fabric.attest.notices import read_member
from fabric.authority import ledger_rows
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.ledger_rows import KeyValue
from fabric.authority.signed import SignedNotices
from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.model.limits import NOTICES_PER_ANSWER_MAX, REQUESTS_BURST_MAX
from fabric.policy.types import Trust
from tests.fakes.authority_site import free
from tests.fakes.verifier import HOST, NOW, CountedKey


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerThread]:
    ledger = LedgerThread(Ledger(tmp_path / "ledger.db"))
    yield ledger
    ledger.close()


def one_more(ledger: Ledger) -> Notice:
    found = ledger.notice(
        HOST,
        NoticeKind.SUSPENSION,
        approval=ledger.last_number() + 1,
        why=Reason.STATE_REFUSED,
        now=NOW,
    )
    assert found is not None
    return found


async def give(ledger: LedgerThread, count: int) -> Sequence[Notice]:
    return [await ledger.do(one_more) for _ in range(count)]


def trust_of(key: Signer) -> Trust:
    return Trust(
        trust_domain="fabric.example",
        verifier_name="verifier",
        verifier_keys=((key.public.alg, key.public.data),),
        ca_pem=b"",
        ek_ca_pem=b"",
    )


def read(records: Sequence[KeyValue], key: Signer) -> list[object]:
    return [read_member(*record, trust_of(key)) for record in records]


async def test_what_is_asked_for_is_signed_once_for_all_who_ask(ledger: LedgerThread) -> None:
    notices, key = await give(ledger, 5), CountedKey()
    signed = SignedNotices(ledger, [key])
    answers = await asyncio.gather(*(signed.after(0, free) for _ in range(10)))
    assert [read(answer, key) for answer in answers] == [notices] * 10
    assert read(await signed.after(3, free), key) == notices[3:]
    assert len(key.threads) == 5


async def test_nothing_is_signed_on_the_event_loop_for_whoever_asks(ledger: LedgerThread) -> None:
    key = CountedKey()
    await give(ledger, 3)
    await SignedNotices(ledger, [key]).after(0, free)
    assert threading.get_ident() not in key.threads


async def test_what_was_published_costs_whoever_asks_no_signature(ledger: LedgerThread) -> None:
    notices, key = await give(ledger, 3), CountedKey()
    publisher = SignedNotices(ledger, [key])
    await publisher.published(publisher.sign(notices))
    assert read(await SignedNotices(ledger, [key]).after(0, free), key) == notices
    assert len(key.threads) == 3
    assert await ledger.do(Ledger.unpublished_and_last) == ([], 3)


async def test_what_was_signed_survives_a_restart(tmp_path: Path) -> None:
    key, found = CountedKey(), []
    for _ in range(2):
        ledger = LedgerThread(Ledger(tmp_path / "ledger.db"))
        if not found:
            await give(ledger, 2)
        found.append(await SignedNotices(ledger, [key]).after(0, free))
        ledger.close()
    assert found[0] == found[1]
    assert len(key.threads) == 2


async def test_what_other_keys_have_signed_is_signed_anew_and_told_no_more(
    ledger: LedgerThread,
) -> None:
    notices, old, new = await give(ledger, 3), CountedKey(), CountedKey()
    before = await SignedNotices(ledger, [old]).after(0, free)
    with pytest.raises(PeerError) as refused:
        read(before, new)
    assert refused.value.reason is Reason.BAD_SIGNATURE
    for _ in range(2):
        assert read(await SignedNotices(ledger, [new]).after(0, free), new) == notices
    assert len(new.threads) == 3


async def test_whoever_asks_pays_for_what_is_signed_and_for_nothing_else(
    ledger: LedgerThread,
) -> None:
    paid: list[int] = []
    signed = SignedNotices(ledger, [CountedKey()])
    await give(ledger, 3)
    await signed.after(1, paid.append)
    await signed.after(0, paid.append)
    await signed.after(0, paid.append)
    await signed.after(3, paid.append)
    assert paid == [2, 1]


async def test_whoever_cannot_pay_costs_no_signature(ledger: LedgerThread) -> None:
    key = CountedKey()
    signed = SignedNotices(ledger, [key])
    await give(ledger, 3)

    def charge(_count: int) -> None:
        raise UnavailableError(Reason.OVERLOADED, "too many requests; slow down")

    with pytest.raises(UnavailableError):
        await signed.after(0, charge)
    assert not key.threads
    assert len(await signed.after(0, free)) == 3


def test_whoever_has_asked_nothing_yet_can_pay_for_a_whole_answer() -> None:
    assert NOTICES_PER_ANSWER_MAX < REQUESTS_BURST_MAX


async def test_an_answer_ends_before_what_came_while_it_was_signed(ledger: LedgerThread) -> None:
    key = CountedKey()
    notices = await give(ledger, 2)
    key.before = lambda: one_more(ledger._ledger)
    signed = SignedNotices(ledger, [key])
    assert read(await signed.after(0, free), key) == notices


async def test_an_answer_is_bounded_in_bytes(
    ledger: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = SignedNotices(ledger, [CountedKey()])
    await give(ledger, 5)
    (first, second, *_) = await signed.after(0, free)
    size = sum(map(len, first + second))
    monkeypatch.setattr(ledger_rows, "NOTICES_ANSWER_BYTES_MAX", size)
    assert await signed.after(0, free) == [first, second]
    monkeypatch.setattr(ledger_rows, "NOTICES_ANSWER_BYTES_MAX", 1)
    assert await signed.after(0, free) == [first]
