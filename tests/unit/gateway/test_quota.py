import asyncio

import pytest

from fabric.gateway.quota import Quota, Quotas
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import (
    BYTES_PER_IDENTITY_MAX,
    CONNECTIONS_PER_IDENTITY_MAX,
    REQUESTS_PER_IDENTITY_MAX,
)


def test_connections_of_one_identity_are_bounded_and_nobody_elses() -> None:
    quotas = Quotas()
    for _ in range(CONNECTIONS_PER_IDENTITY_MAX):
        quotas.enter("a")
    with pytest.raises(DeniedError) as refused:
        quotas.enter("a")
    assert refused.value.reason is Reason.OVERLOADED
    quotas.enter("b")
    quotas.leave("a")
    assert quotas.enter("a").connections == CONNECTIONS_PER_IDENTITY_MAX


def test_an_identity_without_connections_is_forgotten() -> None:
    quotas = Quotas()
    quotas.enter("a")
    quotas.leave("a")
    assert not quotas._by_name


async def test_bytes_wait_for_room() -> None:
    quota = Quota()
    await quota.take(BYTES_PER_IDENTITY_MAX - 1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(quota.take(2))
        await asyncio.sleep(0)
        assert not waiting.done()
        quota.give(BYTES_PER_IDENTITY_MAX - 1)


async def test_requests_wait_for_room() -> None:
    quota = Quota()
    for _ in range(REQUESTS_PER_IDENTITY_MAX):
        await quota.take(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await quota.take(1)
    quota.give(1)
    await quota.take(1)
