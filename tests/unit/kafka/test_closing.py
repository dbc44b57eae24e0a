"""Closing must not lose a cancellation, whatever the library swallows."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

from fabric.kafka.closing import close_within


async def swallow() -> None:
    """What aiokafka does in several close methods."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


async def test_a_cancellation_that_a_step_swallowed_is_raised_again() -> None:
    task = asyncio.get_running_loop().create_task(close_within(60, swallow))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_while_cancelled_still_closes() -> None:
    closed = []

    async def step() -> None:
        await asyncio.sleep(0)
        closed.append(1)

    async def cancelled() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await close_within(1, step)

    task = asyncio.get_running_loop().create_task(cancelled())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [1]


async def test_a_step_that_hangs_is_left() -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    assert not await close_within(0.01, hang)


async def test_failures_do_not_matter() -> None:
    async def fail() -> None:
        raise KafkaError("already closed")

    async def well() -> None:
        await asyncio.sleep(0)

    assert not await close_within(1, fail)
    assert await close_within(1, well, well)


async def test_a_cancellation_of_the_librarys_own_task_is_not_ours() -> None:
    """aiokafka's fetcher awaits a task that it has just cancelled."""
    closed = []

    async def leak() -> None:
        raise asyncio.CancelledError

    async def step() -> None:
        closed.append(1)

    assert not await close_within(1, leak, step)
    assert closed == [1]


class _Conn:
    """As the library's: closing is asked of the transport, and waits until that is done."""

    def __init__(self, transport: "_Busy") -> None:
        self._writer: SimpleNamespace | None = SimpleNamespace(transport=transport)
        self._done = transport.done

    def close(self) -> "asyncio.Future[None]":
        self._writer = None
        return self._done


class _Busy:
    """A TLS connection whose other side does not say that it has ended."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        self.done.set_result(None)


async def test_a_side_that_does_not_end_its_connection_is_not_waited_for() -> None:
    open_one, closed = _Conn(_Busy()), _Conn(_Busy())
    closed.close()
    closed._done.set_result(None)
    client = SimpleNamespace(_conns={1: open_one, 2: closed})

    async def close() -> None:
        await asyncio.gather(*(conn.close() for conn in client._conns.values()))

    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await close_within(60, close, client=client)
    assert loop.time() - began < 10


async def test_who_closes_in_good_order_is_not_cut_off() -> None:
    busy = _Busy()
    client = SimpleNamespace(_conns={1: _Conn(busy)})

    async def close() -> None:
        client._conns[1].close()

    assert await close_within(60, close, client=client)
    await asyncio.sleep(0.3)
    assert not busy.done.done()
