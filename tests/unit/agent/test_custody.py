"""A custodian hands on what a sender that is away has sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.agent.custody import Custody
from fabric.attest.members import notice_record
from fabric.model.errors import Reason
from fabric.model.limits import CUSTODY_AFTER_S
from fabric.model.names import MEMBERS, HostId, grants_topic
from fabric.policy.types import Policy
from fabric.seal.grant import KIND as GRANT
from fabric.seal.grant import Grant, parse_grant
from fabric.seal.record import kind_of
from tests.fakes.approvals import an_approval, approved
from tests.fakes.platform import SECRET, A, B, C, Platform, TestHost, dataset
from tests.fakes.running import Running, running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.fakes.verifier import unfit

CONSUMERS = ("G02/health", "G03/statistics")
STREAM = "stream G01/registry/main@secret.G01.notes:0"


@pytest.fixture
def c(platform: Platform, tmp_path: Path) -> TestHost:
    return TestHost(platform, C, tmp_path / "c")


def declare(platform: Platform, *custodians: str, **changes: object) -> None:
    found = dataset(SECRET, consumers=CONSUMERS, custodians=custodians, **changes)
    platform.policy = replace(platform.policy, datasets={str(SECRET): found})


def notes(first: int, count: int) -> list[dict[str, object]]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]


async def publish(platform: Platform, a: TestHost, database: MemoryDatabase) -> None:
    """Publish everything the database holds, let a result vouch for it, then end."""
    a.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: database.released == database.position)
    heads = a.host.identity.state.heads(SECRET).values()
    a.attest(heads=[item.head.hash for item in heads if item.head])


@asynccontextmanager
async def custodian(host: TestHost) -> AsyncIterator[tuple[Running, Custody]]:
    """The custodian's view, and its custody to be asked by hand."""
    host.platform.admit(host.id)
    async with running() as parts, asyncio.timeout(20):
        await parts.view(host, SECRET)
        yield parts, Custody(host.host, SECRET)


async def pass_by(platform: Platform, host: TestHost, seconds: float) -> None:
    """Let time pass, and the host hear of it: it grants nothing by an old view."""
    platform.clock.ahead += timedelta(seconds=seconds)
    now = platform.clock.now()
    platform.tick()
    await until(lambda: (host.host.view.members.whole_at or now - timedelta(1)) >= now)


def grants(platform: Platform) -> list[Grant]:
    values = platform.log.values(grants_topic(SECRET))
    return [parse_grant(value).grant for value in values if kind_of(value) == GRANT]


async def test_a_late_reader_opens_what_a_sender_that_is_away_has_sent(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G02/health")
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 30))
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)  # the sender's result ends, and nobody renews it
    c.open().attest()
    async with custodian(b) as (parts, custody):
        await parts.view(c, SECRET)
        parts.apply(c, store)
        part = "apply secret.G01.notes:0"
        await until(lambda: Reason.GRANT_MISSING.value in c.board.problems.get(part, ""))
        assert await custody.look() == 0
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 1
        await until(lambda: store.rows(SECRET) == database.held(table()))
        await until(lambda: len(custody._book._good) + len(custody._book._grants) >= 1)
        assert await custody.look() == 0
    assert [(grant.granter, [r.host for r in grant.recipients]) for grant in grants(platform)] == [
        (B, [C])
    ]


async def test_a_late_reader_whose_key_takes_no_wrap_stops_no_other(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost, tmp_path: Path
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()
    bent = TestHost(platform, HostId.parse("G03/statistics/c2"), tmp_path / "c2").open()
    bent.attest(bound=unfit(bent.keys.bound))
    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 1
    assert [[r.host for r in grant.recipients] for grant in grants(platform)] == [[C]]
    assert ("recipient_refused", str(bent.id)) in {
        (event, said.get("host")) for event, said in b.audit.events
    }


async def test_a_host_that_policy_does_not_name_grants_nothing(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G03/statistics")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()
    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 0
    assert grants(platform) == []


async def test_a_custodian_that_learns_of_a_notice_in_the_middle_of_a_sweep_ends_it(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    for life in range(2):  # each opens an epoch of its own
        database.upsert(table(), notes(10 * life, 5))
        await publish(platform, a, database)
        a.host.identity.close()
        a.open()
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()

    def judge(*_: object) -> None:
        platform.suspend(C)
        notice = notice_record(platform.given[-1], platform.verifier.signers)
        b.host.view.take(MEMBERS, *notice)

    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        platform.log.judge = judge
        assert await custody.look() == 1
    assert [grant.revocation_number for grant in grants(platform)] == [0]


async def test_a_custodian_cannot_grant_what_it_was_not_granted(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    await publish(platform, a, database)  # before the custodian was attested
    platform.clock.ahead += timedelta(hours=1)
    b.attest()
    c.open().attest()
    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 0


async def test_a_custodian_that_is_not_attested_grants_nothing(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    b.attest()
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()
    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 0


async def test_a_custodian_that_the_policy_approves_no_more_grants_nothing(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()
    async with custodian(b) as (_, custody):
        platform.log.judge = None  # it asks itself, not only the gateway
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        newer = replace(platform.policy, version=8, approvals=approved(A, C))
        b.host.view.take_policy(newer)
        assert await custody.look() == 0
        b.host.view.take_policy(replace(newer, approvals=approved(A, B)))
        assert await custody.look() == 0
        b.host.view.take_policy(replace(newer, approvals=approved(A, B, C)))
        assert await custody.look() == 1


@pytest.mark.parametrize(
    ("who", "under", "granted"),
    [
        (A, 7, 1),
        (A, 9, 0),  # its result is of a newer policy than ours, which may say otherwise
        (HostId.parse("G01/registry/a9"), 7, 0),
    ],
)
async def test_a_sender_that_may_grant_no_more_is_away_though_it_attests(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost, who: HostId, under: int, granted: int
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    for host in (a, b):
        host.open()
    b.attest(life_s=7200)
    await publish(platform, a, database)
    c.open().attest()
    platform.policy = replace(platform.policy, version=under)
    a.attest(life_s=7200)
    async with custodian(b) as (_, custody):
        platform.policy = lowered(platform, who)
        b.host.view.take_policy(platform.policy)
        assert await custody.look() == 0
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == granted


def lowered(platform: Platform, who: HostId) -> Policy:
    """The policy's version 8, with an approval that is below the dataset."""
    low = an_approval(who, security_level=3)
    return replace(platform.policy, version=8, approvals={**platform.policy.approvals, who: low})


async def test_a_custodian_waits_for_no_other_that_may_not_grant(
    platform: Platform, a: TestHost, b: TestHost, c: TestHost, tmp_path: Path
) -> None:
    declare(platform, "G02/health")
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 5))
    first = TestHost(platform, HostId.parse("G02/health/a0"), tmp_path / "a0")
    for host in (a, b, first):
        host.open()
    for host in (b, first):
        host.attest(life_s=7200)
    await publish(platform, a, database)
    platform.clock.ahead += timedelta(hours=1)
    c.open().attest()
    async with custodian(b) as (_, custody):
        await custody.look()
        await pass_by(platform, b, CUSTODY_AFTER_S)
        assert await custody.look() == 0
        platform.policy = lowered(platform, first.id)
        b.host.view.take_policy(platform.policy)
        assert await custody.look() == 1


@pytest.mark.parametrize("history", ["retained", "from_join"])
async def test_a_host_that_was_off_for_a_day_opens_what_was_sent_meanwhile(
    platform: Platform, a: TestHost, b: TestHost, history: str
) -> None:
    """It read, went off, lapsed out of several epochs, made new keys, and misses nothing."""
    declare(platform, history=history)
    database, store = MemoryDatabase([table()]), MemoryStore()
    database.upsert(table(), notes(0, 10))
    a.open()
    b.open().attest()
    await publish(platform, a, database)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    b.host.identity.close()
    for hour in range(3):  # each life of the sender opens an epoch of its own, without b
        platform.clock.ahead += timedelta(hours=9)
        database.upsert(table(), notes(100 * hour, 10))
        a.host.identity.close()
        a.open()
        await publish(platform, a, database)
    b.open()
    assert len(b.host.identity.keyring.hpke) == 4
    b.attest()
    a.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(lambda: store.rows(SECRET) == database.held(table()))
    assert STREAM not in b.board.problems
    assert a.id == A
