import asyncio
import time

import pytest

from fabric.gateway.quota import Quota, Quotas
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import (
    BYTES_PER_IDENTITY_MAX,
    CONNECTIONS_PER_IDENTITY_MAX,
    REQUESTS_PER_IDENTITY_MAX,
)


async def test_connections_of_one_identity_are_bounded_and_nobody_elses() -> None:
    quotas = Quotas()
    for _ in range(CONNECTIONS_PER_IDENTITY_MAX):
        quotas.enter("a")
    with pytest.raises(DeniedError) as refused:
        quotas.enter("a")
    assert refused.value.reason is Reason.OVERLOADED
    quotas.enter("b")
    quotas.leave("a")
    assert quotas.enter("a").connections == CONNECTIONS_PER_IDENTITY_MAX


async def test_an_identity_without_connections_is_forgotten() -> None:
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


async def test_long_work_is_followed_by_a_rest_and_short_work_is_not() -> None:
    quota, clock = Quota(), asyncio.get_running_loop().time
    began = clock()
    for _ in range(3):
        await quota.turn(lambda: None)
    assert clock() - began < 0.05
    await quota.turn(lambda: time.sleep(0.1))
    done: list[float] = []
    began = clock()
    await asyncio.gather(*(quota.turn(lambda: done.append(clock())) for _ in range(2)))
    assert done[0] - began > 0.08
    await asyncio.wait_for(Quota().turn(lambda: None), 0.05)


async def test_work_that_is_never_free_is_followed_by_a_rest_however_short() -> None:
    quota, clock = Quota(), asyncio.get_running_loop().time
    began = clock()
    for _ in range(10):
        await quota.turn(lambda: time.sleep(0.01), free_s=0)
    assert clock() - began > 0.18


async def test_work_that_fails_gives_the_turn_away() -> None:
    quota = Quota()
    with pytest.raises(ZeroDivisionError):
        await quota.turn(lambda: divmod(1, 0))
    await asyncio.wait_for(quota.turn(lambda: None), 1)


async def test_to_leave_and_come_back_ends_no_rest() -> None:
    quotas = Quotas()
    quota = quotas.enter("a")
    await quota.turn(lambda: time.sleep(0.1))
    quotas.leave("a")
    assert quotas.enter("a") is quota
    quotas.leave("a")
    await asyncio.sleep(0.15)
    quotas.enter("b")
    assert quotas.enter("a") is not quota
