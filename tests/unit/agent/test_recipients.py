"""Who may read a topic, and why others may not."""

from dataclasses import replace
from pathlib import Path

import pytest

from fabric.agent.recipients import choose
from fabric.attest.keys import Kem
from fabric.model.errors import Reason
from fabric.model.label import Label
from fabric.model.names import HostId
from tests.fakes.approvals import an_approval, approved
from tests.fakes.platform import SECRET, A, B, C, Platform, TestHost, dataset
from tests.fakes.verifier import unfit


def chosen(platform: Platform, **changes: object) -> tuple[set[HostId], dict[HostId, Reason]]:
    found = dataset(SECRET, consumers=("G02/health", "G03/statistics"), **changes)
    wanted, keys = choose(platform.policy, found, platform.members, me=A, now=platform.clock.now())
    assert set(wanted.hosts) == set(keys)
    return set(keys), dict(wanted.refused)


def test_named_cleared_attested_hosts_and_the_sender_itself(
    platform: Platform, a: TestHost, b: TestHost, tmp_path: Path
) -> None:
    c = TestHost(platform, C, tmp_path / "c").open()
    a.attest()
    b.attest()
    c.attest(clearance=Label.parse("internal"))
    assert chosen(platform) == ({A, B}, {C: Reason.CLEARANCE_TOO_LOW})


def test_a_suspended_host_is_refused_as_suspended(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    platform.suspend(B)
    assert chosen(platform)[1] == {B: Reason.HOST_SUSPENDED}


def test_a_host_that_the_policy_approves_no_more_gets_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    platform.policy = replace(platform.policy, approvals=approved(A))
    assert chosen(platform) == ({A}, {B: Reason.NOT_APPROVED})
    lower = an_approval(B, clearance=Label.parse("internal"))
    platform.policy = replace(platform.policy, approvals={**approved(A), B: lower})
    assert chosen(platform) == ({A}, {B: Reason.CLEARANCE_TOO_LOW})


def test_a_lapsed_host_is_refused_as_lapsed(platform: Platform, a: TestHost, b: TestHost) -> None:
    from datetime import timedelta

    b.attest(life_s=1)
    platform.clock.ahead += timedelta(seconds=3)
    a.attest()
    assert chosen(platform) == ({A}, {B: Reason.RESULT_EXPIRED})


def test_a_host_that_is_not_named_gets_nothing(
    platform: Platform, a: TestHost, b: TestHost
) -> None:
    a.attest()
    b.attest()
    wanted, keys = choose(
        platform.policy,
        dataset(SECRET, consumers=()),
        platform.members,
        me=A,
        now=platform.clock.now(),
    )
    assert set(keys) == {A}
    assert wanted.refused == {B: Reason.NOT_A_CONSUMER}


def test_the_key_is_of_the_suites_kind(platform: Platform, a: TestHost, b: TestHost) -> None:
    a.attest()
    b.attest()
    for suite, kem in (("classic", Kem.X25519), ("hybrid", Kem.MLKEM768_X25519)):
        found = replace(dataset(SECRET), suite=suite)
        _, keys = choose(platform.policy, found, platform.members, me=A, now=platform.clock.now())
        assert {key.alg for key in keys.values()} == {kem}


@pytest.mark.parametrize("me", [A, None])
def test_a_key_that_takes_no_wrap_costs_its_own_host_the_dataset_and_nobody_else(
    platform: Platform, a: TestHost, b: TestHost, tmp_path: Path, me: HostId | None
) -> None:
    c = TestHost(platform, C, tmp_path / "c").open()
    a.attest()
    b.attest(bound=unfit(b.keys.bound))
    c.attest()
    found = dataset(SECRET, consumers=("G01/registry", "G02/health", "G03/statistics"))
    wanted, keys = choose(platform.policy, found, platform.members, me=me, now=platform.clock.now())
    assert {*keys} == {*wanted.hosts} == {A, C}
    assert wanted.refused == {B: Reason.MALFORMED}
