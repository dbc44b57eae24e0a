"""The keeper: the broker ends up as policy and ledger say, whatever failed on the way."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.attest.appraise import Counters, Enrolment
from fabric.attest.members import NoticeKind
from fabric.authority.attest_machine import Verdict
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError
from fabric.model.names import MEMBERS, RESULTS, HostId
from tests.fakes.authority_site import READER, SENDER, AuthoritySite, until
from tests.fakes.policy_files import TOPIC
from tests.fakes.verifier import a_result

AWAY = UnavailableError(Reason.BROKER_UNAVAILABLE, "away")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    yield site
    site.close()


async def attest(site: AuthoritySite, host: HostId, approval: int = 1) -> None:
    enrolment = Enrolment(host=host, ek_sha256=b"", ek_name=b"", ak_public=b"", ak_name=b"a")
    counters = Counters(clock=1, resets=1, restarts=1, safe=True)
    verdict = Verdict(
        enrolment=enrolment,
        result=a_result(host=host, approval=approval),
        counters=counters,
        tally=bytes(32),
    )
    now = site.clock.now()
    await site.ledger.do(lambda ledger: ledger.enrol(enrolment, now))
    await site.ledger.do(lambda ledger: ledger.attest(verdict, now))


async def suspend(site: AuthoritySite, host: HostId) -> None:
    now = site.clock.now()
    await site.ledger.do(
        lambda ledger: ledger.notice(
            host, NoticeKind.SUSPENSION, approval=1, why=Reason.STATE_REFUSED, now=now
        )
    )


async def test_a_check_makes_topics_and_everybodys_rights(site: AuthoritySite) -> None:
    await attest(site, READER)
    await site.keeper.check()
    assert set(site.admin.topics) >= {MEMBERS, RESULTS, TOPIC, f"fabric.grants.{TOPIC}"}
    assert site.admin.platform == ("gateway", {"verifier": [MEMBERS, RESULTS]})
    assert TOPIC in site.admin.rights[READER.principal]
    assert SENDER.principal not in site.admin.rights


async def test_a_second_check_changes_nothing(site: AuthoritySite) -> None:
    await attest(site, READER)
    await site.keeper.check()
    calls = list(site.admin.calls)
    await site.keeper.check()
    await site.keeper.follow(READER)
    assert site.admin.calls == calls


async def test_a_check_removes_rights_that_nobody_should_have(site: AuthoritySite) -> None:
    stranger = HostId.parse("G09/other/host-x")
    site.admin.rights[stranger.principal] = frozenset({TOPIC})
    site.admin.rights["some-exporter"] = frozenset({"elsewhere"})
    await site.keeper.check()
    assert stranger.principal not in site.admin.rights
    assert site.admin.rights["some-exporter"] == {"elsewhere"}


async def test_a_dataset_that_lost_its_reader_takes_the_rights_along(site: AuthoritySite) -> None:
    await attest(site, READER)
    await site.keeper.check()
    dataset = site.documents["datasets/G01/residents.yaml"]
    dataset["consumers"] = ["G03/statistics/host-c"]
    site.publish()
    await site.keeper.check()
    assert TOPIC not in site.admin.rights[READER.principal]
    assert MEMBERS in site.admin.rights[READER.principal]


async def test_a_suspension_takes_every_right(site: AuthoritySite) -> None:
    await attest(site, READER)
    await site.keeper.check()
    await suspend(site, READER)
    await site.keeper.follow(READER)
    assert READER.principal not in site.admin.rights


async def test_rights_that_could_not_be_taken_are_taken_later(site: AuthoritySite) -> None:
    await attest(site, READER)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(site.keeper.run())
        await site.keeper.is_made.wait()
        site.admin.failure = AWAY
        await suspend(site, READER)
        await site.keeper.follow(READER)
        assert READER.principal in site.admin.rights
        await until(lambda: site.keeper.why_not_ready is not None)
        site.admin.failure = None
        await until(lambda: READER.principal not in site.admin.rights)
        await until(lambda: site.keeper.why_not_ready is None)
        running.cancel()


async def test_a_follow_after_a_failed_one_still_takes_everything(site: AuthoritySite) -> None:
    await attest(site, READER)
    await site.keeper.check()
    await suspend(site, READER)
    site.admin.failure = AWAY
    await site.keeper.follow(READER)
    site.admin.failure = None
    await site.keeper.follow(READER)
    assert READER.principal not in site.admin.rights


async def test_a_broker_that_hangs_does_not_hold_a_request(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.keeper._FOLLOW_S_MAX", 0.1)
    await attest(site, READER)

    async def hang(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(site.admin, "grant_read", hang)
    async with asyncio.timeout(5):
        await site.keeper.follow(READER)


async def test_an_administrator_that_is_forbidden_from_the_start_stops_the_process(
    site: AuthoritySite,
) -> None:
    site.admin.failure = ConfigInvalid("admin.certificate may not")
    with pytest.raises(ConfigInvalid):
        await site.keeper.run()


async def test_an_administrator_that_is_forbidden_for_a_while_stops_nothing(
    site: AuthoritySite,
) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(site.keeper.run())
        await site.keeper.is_made.wait()
        site.admin.failure = ConfigInvalid("admin.certificate may not")
        site.keeper.check_soon()
        await until(lambda: "may not" in (site.keeper.why_not_ready or ""))
        site.admin.failure = None
        await until(lambda: site.keeper.why_not_ready is None)
        running.cancel()


async def test_a_foreign_writer_is_said(
    site: AuthoritySite, caplog: pytest.LogCaptureFixture
) -> None:
    site.admin.foreign = ["User:mirror on *"]
    await site.keeper.check()
    assert "User:mirror on *" in caplog.text


async def test_a_policy_change_is_checked_soon(site: AuthoritySite) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(site.keeper.run())
        await site.keeper.is_made.wait()
        site.documents["datasets/G01/more.yaml"] = {
            **site.documents["datasets/G01/residents.yaml"],
            "schema_id": 9,
        }
        site.documents["floors.yaml"]["floors"]["G01/more"] = "secret"
        site.publish()
        site.keeper.check_soon()
        await until(lambda: "secret.G01.more" in site.admin.topics)
        running.cancel()
