"""A dataset moves from one suite to another by policy: old blocks open, new ones are new."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from fabric.agent.keyring import plan_for
from fabric.attest.keys import Alg, Kem
from fabric.model.errors import Reason
from fabric.model.names import grants_topic
from fabric.policy.types import Policy, SuiteRule
from fabric.seal import envelope
from fabric.seal.epoch import parse_start
from fabric.seal.grant import KIND as GRANT
from fabric.seal.record import kind_of
from tests.fakes.platform import SECRET, C, Platform, TestHost, dataset
from tests.fakes.running import Running, running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore

BOTH = ("classic", "hybrid-top")
PART = "apply secret.G01.notes:0"


def notes(first: int, count: int) -> list[dict[str, object]]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]


def policy(platform: Platform, old: SuiteRule, suite: str, **changes: object) -> Policy:
    """The next policy: `old` stands for classic, and the dataset uses `suite`."""
    before = platform.policy
    rules = {**before.rules, "secret": replace(before.rules["secret"], suites=BOTH)}
    top = SuiteRule(id="hybrid-top", status="approved")
    return replace(
        before,
        version=before.version + 1,
        rules=rules,
        suites={"classic": old, "hybrid-top": top},
        datasets={str(SECRET): dataset(SECRET, suite=suite, **changes)},
    )


def deprecated(at: datetime) -> SuiteRule:
    return SuiteRule(id="classic", status="deprecated", until=at)


def take(platform: Platform, new: Policy, *hosts: TestHost) -> None:
    """Every host takes the policy, makes the keys it asks for, and attests with them."""
    platform.policy = new
    for host in hosts:
        host.host.view.take_policy(new)
        host.plan = plan_for(BOTH)
        host.keys = host.host.identity.keys(platform.clock.now(), host.plan)
        host.attest()


def suites_sent(platform: Platform) -> list[str]:
    return [envelope.parse(v).header.suite for v in platform.log.values(str(SECRET))]


async def send(parts: Running, a: TestHost, database: MemoryDatabase, first: int) -> None:
    database.upsert(table(), notes(first, 10))
    await until(lambda: database.released == database.position)


async def test_a_dataset_moves_and_nobody_loses_anything(
    platform: Platform, a: TestHost, b: TestHost, tmp_path: Path
) -> None:
    database, store, late = MemoryDatabase([table()]), MemoryStore(), MemoryStore()
    a.attest()
    b.attest()
    c = TestHost(platform, C, tmp_path / "c")
    async with running() as parts:
        await parts.view(a)
        await parts.view(b, SECRET)
        parts.capture(a, database)
        parts.apply(b, store)
        await send(parts, a, database, 0)
        old = len(suites_sent(platform))
        assert set(suites_sent(platform)) == {"classic"}

        consumers = ("G02/health", "G03/statistics")
        at = platform.clock.now()
        new = policy(platform, deprecated(at), "hybrid-top", consumers=consumers)
        take(platform, new, a, b)
        await send(parts, a, database, 10)
        assert suites_sent(platform)[:old] == ["classic"] * old
        assert set(suites_sent(platform)[old:]) == {"hybrid-top"}
        await until(lambda: store.rows(SECRET) == database.held(table()))

        c.open()
        c.host.view.take_policy(new)
        c.plan = plan_for(BOTH)
        c.keys = c.host.identity.keys(platform.clock.now(), c.plan)
        c.attest()
        await parts.view(c, SECRET)
        parts.apply(c, late)
        await until(lambda: late.rows(SECRET) == database.held(table()))
    values = platform.log.values(grants_topic(SECRET))
    starts = [parse_start(value).start for value in values if kind_of(value) != GRANT]
    assert [start.suite for start in starts] == ["classic", "hybrid-top"]
    assert {key.alg for key in a.keys.bound} >= {Alg.ED25519, Alg.ML_DSA_87, Kem.X25519}


async def test_a_refused_suite_opens_nothing_and_says_so(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await send(parts, a, database, 0)
    refused = SuiteRule(id="classic", status="refused")
    async with running() as parts:
        take(platform, policy(platform, refused, "hybrid-top"), b)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(
            lambda: (
                b.metric("fabric_rejected_records_total", reason="suite_refused") > 0
                or Reason.SUITE_REFUSED.value in str({**b.board.problems})
            )
        )
    assert not store.rows(SECRET)


async def test_a_suite_seals_nothing_after_its_date_whatever_the_senders_policy(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    """The door knows the new policy, the sender still the old one."""
    database = MemoryDatabase([table()])
    a.attest()
    platform.policy = policy(platform, deprecated(platform.clock.now()), "hybrid-top")
    database.upsert(table(), notes(0, 5))
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await until(lambda: Reason.SUITE_REFUSED.value in str({**a.board.problems}))
    assert not suites_sent(platform)
    assert not platform.log.values(grants_topic(SECRET))


async def test_what_was_sealed_after_the_date_is_not_opened_though_a_door_let_it_in(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    database, store = MemoryDatabase([table()]), MemoryStore()
    a.attest()
    b.attest()
    async with running() as parts:
        await parts.view(a)
        parts.capture(a, database)
        await send(parts, a, database, 0)
        before = deprecated(platform.clock.now() - timedelta(minutes=1))
        take(platform, policy(platform, before, "hybrid-top"), b)
        await parts.view(b, SECRET)
        parts.apply(b, store)
        await until(
            lambda: (
                b.metric("fabric_rejected_records_total", reason="suite_refused") > 0
                or Reason.SUITE_REFUSED.value in str({**b.board.problems})
            )
        )
    assert not store.rows(SECRET)
