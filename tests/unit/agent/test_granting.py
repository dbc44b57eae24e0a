"""Starts and grants on their way to the grants topic."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.agent.granting import Asked, append, keep_from, send_grants
from fabric.attest.keys import PublicKey
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError
from fabric.model.limits import RECIPIENTS_MAX, TICK_GRANTS_S_MAX
from fabric.model.names import HostId, grants_topic
from fabric.seal.epoch import parse_start, start_epoch, verify_start
from fabric.seal.grant import parse_grant, unwrap_secret, verify_grant
from fabric.seal.suites import suite_of
from tests.fakes.platform import SECRET, B, Platform, TestHost, dataset
from tests.fakes.running import running
from tests.fakes.sealing import NOW, Party

GRANTS = grants_topic(SECRET)


class Answers:
    """Answers each append from a list, then admits."""

    def __init__(self, platform: Platform, *errors: FabricError | None) -> None:
        self.values: list[bytes] = []
        self._errors = [*errors]
        platform.log.judge = self

    def __call__(
        self, topic: str, partition: int, key: bytes | None, value: bytes
    ) -> FabricError | None:
        self.values.append(value)
        return self._errors.pop(0) if self._errors else None


async def test_the_same_bytes_are_sent_until_they_are_acknowledged(
    platform: Platform, a: TestHost
) -> None:
    busy = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway answers")
    answers = Answers(platform, busy, None, busy)
    async with asyncio.timeout(10):
        await append(a.host, SECRET, b"key", [b"one", b"two"])
    assert answers.values == [b"one", b"one", b"two", b"two"]
    assert platform.log.values(GRANTS) == [b"one", b"two"]


async def test_a_final_refusal_ends_the_sending(platform: Platform, a: TestHost) -> None:
    Answers(platform, None, DeniedError(Reason.TOO_OLD, "revoked meanwhile"))
    with pytest.raises(DeniedError):
        await append(a.host, SECRET, b"key", [b"one", b"two", b"three"])
    assert platform.log.values(GRANTS) == [b"one"]


async def granted(
    platform: Platform, a: TestHost, keys: dict[HostId, PublicKey]
) -> frozenset[tuple[HostId, bytes]]:
    result = a.attest()
    me = Party.make(str(a.id))
    signers = a.host.identity.keyring.signers(result, suite_of("classic"))
    own = (a.id, me.key.public)
    draft = me.draft(result_id=result.id, topic=SECRET)
    made = start_epoch(draft, me.secret(), [own], signers=signers)
    started = verify_start(parse_start(made.value), result, platform.verifier.trust.trust_domain)
    async with running() as parts, asyncio.timeout(20):
        await parts.view(a)
        asked = Asked.of(a.host.view, a.host.view.policy.datasets[str(SECRET)])
        pairs = await send_grants(
            a.host, result, started, secret=me.secret(), keys=keys, asked=asked
        )
    for value in platform.log.values(GRANTS):
        verify_grant(parse_grant(value), result, started)
    if platform.log.values(GRANTS):
        last = verify_grant(parse_grant(platform.log.values(GRANTS)[-1]), result, started)
        host = next(iter(last.wraps))
        assert unwrap_secret(last, host, [Party.make("G02/health/b1").key]) == me.secret()
    return pairs


async def test_more_recipients_than_a_manifest_names_get_several_grants(
    platform: Platform, a: TestHost
) -> None:
    platform.log.judge = None
    key = Party.make("G02/health/b1").key.public
    keys = {HostId("G02", "health", f"h{n}"): key for n in range(RECIPIENTS_MAX + 1)}
    pairs = await granted(platform, a, keys)
    assert {host for host, _ in pairs} == keys.keys()
    grants = [parse_grant(value).grant for value in platform.log.values(GRANTS)]
    assert {len(grant.recipients) for grant in grants} == {RECIPIENTS_MAX, 1}


async def test_a_grant_that_is_refused_served_nobody(platform: Platform, a: TestHost) -> None:
    platform.log.judge = lambda *_: DeniedError(Reason.TOO_OLD, "revoked meanwhile")
    assert await granted(platform, a, {B: Party.make("G02/health/b1").key.public}) == frozenset()


async def test_recipients_that_were_chosen_by_another_policy_or_list_or_long_ago_get_nothing(
    platform: Platform, a: TestHost
) -> None:
    a.attest()
    async with running() as parts:
        await parts.view(a)
        view, now = a.host.view, platform.clock.now()
        found = view.policy.datasets[str(SECRET)]
        asked = Asked.of(view, found)
        asked.check(view, now)
        for other in (
            replace(asked, revocation_number=asked.revocation_number + 1),
            replace(asked, policy_version=asked.policy_version - 1),
            replace(asked, dataset=replace(found, consumers=())),
        ):
            with pytest.raises(DeniedError) as caught:
                other.check(view, now)
            assert caught.value.reason is Reason.TOO_OLD
        with pytest.raises(DeniedError) as caught:
            asked.check(view, now + timedelta(seconds=TICK_GRANTS_S_MAX + 1))
        assert caught.value.reason is Reason.MEMBERS_STALE


def test_secrets_outlive_the_data_by_the_age_of_an_epoch() -> None:
    kept = keep_from(dataset(SECRET, retention_s=3600), NOW)
    assert NOW - kept == timedelta(hours=25)
