"""What a host knows: policy, members, grants, and a bell for changes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fabric.agent import grant_book
from fabric.agent.view import Bell, WorldView
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.names import MEMBERS, grants_topic
from fabric.policy.types import Dataset
from fabric.seal.epoch import parse_start, start_key
from tests.fakes.platform import OPEN, SECRET, A, Platform, TestHost, dataset
from tests.fakes.running import running, table, until
from tests.fakes.sealing import Party
from tests.fakes.source import MemoryDatabase
from tests.unit.agent.test_reading import publish


def view_of(platform: Platform) -> WorldView:
    return WorldView(A, platform.policy, rejected=lambda *_: None, latest=platform.clock.latest)


async def test_a_bell_wakes_everyone_who_waits_and_nobody_later() -> None:
    bell, woken = Bell(), []

    async def wait(name: str) -> None:
        await bell.wait(60)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b"):
            tasks.create_task(wait(name))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        bell.ring()
    assert sorted(woken) == ["a", "b"]
    began = asyncio.get_running_loop().time()
    await bell.wait(0.02)
    assert asyncio.get_running_loop().time() - began >= 0.015


async def test_members_are_followed_and_changes_ring(platform: Platform, a: TestHost) -> None:
    view = a.host.view
    async with running() as parts:
        await parts.view(a)
        with pytest.raises(DeniedError):
            view.current(platform.clock.now())
        before = view.version
        result = a.attest()
        await until(lambda: view.version > before)
        await until(lambda: A in view.members.hosts)
        assert view.current(platform.clock.now()) == result


async def test_bad_control_records_are_counted_and_passed_over(
    platform: Platform, a: TestHost
) -> None:
    platform.log.put(MEMBERS, 0, b"verifier/host/G01/registry/a1", b"forged")
    platform.log.put(MEMBERS, 0, None, b"no key")
    platform.log.put(grants_topic(SECRET), 0, b"k", b"garbage")
    async with running() as parts:
        await parts.view(a, SECRET)
        a.attest()
        await until(lambda: A in a.host.view.members.hosts)
        await until(lambda: len(a.audit.events) == 3)
    assert {event for event, _ in a.audit.events} == {"control_record_dropped"}


async def test_grants_are_told_from_forged_ones_as_they_come(
    platform: Platform, a: TestHost, b: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 1))
    topic = grants_topic(SECRET)
    platform.admit(A)
    a.attest()
    database = MemoryDatabase([table()])
    database.upsert(table(), [{"id": 1, "text": "a note"}])
    await publish(platform, a, database)
    mine = parse_start(platform.log.values(topic)[0])
    forger, genuine = Party.make(str(A)), mine.start
    for number in range(2, 5):
        draft = forger.draft(number, result_id=genuine.result_id, started=genuine.started)
        made = forger.start(draft)
        platform.log.put(topic, 0, start_key(made.start), made.value)
    platform.log.put(topic, 0, b"k", b"garbage")
    async with running() as parts:
        await parts.view(b)
        parts.spawn(b.host.view.follow_grants(platform.log, SECRET))
        await until(lambda: any(e["reason"] == "malformed" for _, e in b.audit.events))
        view = b.host.view
        assert view.book(SECRET).start(mine.hash, view.members) is not None


def test_a_policy_goes_forward_only(platform: Platform) -> None:
    view = view_of(platform)
    view.take_policy(replace(platform.policy, version=9))
    assert view.policy.version == 9
    with pytest.raises(UsageError) as caught:
        view.take_policy(replace(platform.policy, version=8))
    assert caught.value.reason is Reason.POLICY_INVALID
    assert view.policy.version == 9


def test_makers_of_tpms_are_the_authoritys_to_know_and_hold_no_policy_up(
    platform: Platform,
) -> None:
    """Else what comes with a new maker, or without an old one, waits for every restart."""
    view = view_of(platform)
    other = replace(platform.policy.trust, ek_ca_pem=b"other makers")
    view.take_policy(replace(platform.policy, version=8, trust=other))
    assert view.policy.version == 8


def test_other_trust_anchors_outdate_a_view_and_are_not_taken_into_it(platform: Platform) -> None:
    view = view_of(platform)
    view.take_policy(replace(platform.policy, version=8))
    assert not view.outdated.is_set()
    other = replace(platform.policy.trust, verifier_name="another")
    view.take_policy(replace(platform.policy, version=9, trust=other))
    assert view.outdated.is_set()
    assert view.policy.version == 8


async def test_a_dataset_whose_policy_changes_ends_what_runs_on_it(platform: Platform) -> None:
    view = view_of(platform)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_ends(view, [*view.policy.datasets.values()]))
        await asyncio.sleep(0)
        view.take_policy(replace(platform.policy, version=8))
        await asyncio.sleep(0.01)
        assert not task.done()  # the version alone is no change of the dataset
        sets = {str(SECRET): dataset(SECRET, retention_s=1), str(OPEN): dataset(OPEN)}
        view.take_policy(replace(platform.policy, version=9, datasets=sets))
        async with asyncio.timeout(2):
            await task


async def test_a_change_from_before_the_watch_began_counts(platform: Platform) -> None:
    view = view_of(platform)
    before = [*view.policy.datasets.values()]
    view.take_policy(replace(platform.policy, version=8, datasets={str(OPEN): dataset(OPEN)}))
    async with asyncio.timeout(2):
        await _ends(view, before)


async def _ends(view: WorldView, datasets: Sequence[Dataset]) -> None:
    with pytest.raises(UnavailableError) as caught:
        await view.until_changed(*datasets)
    assert caught.value.reason is Reason.NOT_READY
