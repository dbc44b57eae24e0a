"""Acknowledgements on their way to the disk."""

import asyncio
from dataclasses import replace

from fabric.agent import progress
from fabric.agent.progress import Progress
from fabric.model.change import Sequence
from fabric.model.limits import HEADS_REMEMBERED
from fabric.model.names import Stream
from fabric.seal.epoch import Head
from fabric.store.state import SourceState, StreamHead
from tests.fakes.platform import ORIGIN, SECRET, TestHost

STREAM = Stream(ORIGIN, SECRET, 0)


def head(counter: int) -> StreamHead:
    link = Head(origin=ORIGIN, partition=0, epoch=b"e" * 32, counter=counter, hash=b"h" * 32)
    return StreamHead(stream=STREAM, head=link, upto=Sequence(1, counter, 1))


async def begun(host: TestHost) -> Progress:
    """Progress whose stream has had its first acknowledgement, `head(0)`."""
    it = Progress("main", host.host.identity)
    await it.note(head(0))
    return it


async def test_a_streams_first_head_is_on_disk_at_once(a: TestHost) -> None:
    """Lives that end soon would else all start from one head, until no reader remembers it."""
    state, it = a.host.identity.state, Progress("main", a.host.identity)
    saved, synced = state.save_heads, list[bool]()

    def seen(heads: list[StreamHead], *, durable: bool = False) -> None:
        synced.append(durable)
        saved(heads, durable=durable)

    state.save_heads = seen  # type: ignore[assignment, method-assign]
    other = replace(head(0), stream=replace(STREAM, partition=1))
    for first in (head(0), other):
        await it.note(first)
        assert state.heads(SECRET)[first.stream].upto == first.upto
    assert synced == [True, True]


async def test_heads_wait_for_each_other(a: TestHost) -> None:
    state, it = a.host.identity.state, await begun(a)
    await it.note(head(1))
    await it.note(head(2))
    assert state.heads(SECRET) == {STREAM: head(0)}
    await it.flush()
    assert state.heads(SECRET) == {STREAM: head(2)}
    assert it.unwritten == {}


async def test_never_more_than_a_reader_remembers(a: TestHost) -> None:
    state, it = a.host.identity.state, Progress("main", a.host.identity)
    for counter in range(80):
        await it.note(head(counter))
        kept = state.heads(SECRET).get(STREAM)
        known = kept.head.counter if kept and kept.head else -1
        assert counter - known < 64


async def test_what_comes_while_heads_are_written_stays_within_what_a_reader_remembers(
    a: TestHost,
) -> None:
    """A block is on its way when the process is killed, on top of what is acknowledged."""
    state, it = a.host.identity.state, await begun(a)
    saved, loop, waits = state.save_heads, asyncio.get_running_loop(), asyncio.Event()
    for counter in range(progress._UNWRITTEN_MAX - 1):
        await it.note(head(counter))

    async def come() -> None:
        for counter in range(progress._UNWRITTEN_MAX - 1, 1000):
            noting = tasks.create_task(it.note(head(counter)))
            done, _ = await asyncio.wait([noting], timeout=0.2)
            if not done:
                ahead.append(counter + 1)
                waits.set()
                return

    def meanwhile(heads: list[StreamHead], *, durable: bool = False) -> None:
        state.save_heads = saved  # type: ignore[method-assign]
        asyncio.run_coroutine_threadsafe(come(), loop).result(20)
        saved(heads, durable=durable)

    ahead = list[int]()
    state.save_heads = meanwhile  # type: ignore[assignment, method-assign]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(it.flush())
        await waits.wait()
    assert ahead[0] < HEADS_REMEMBERED


async def test_a_power_cut_costs_no_more_heads_than_a_reader_remembers(a: TestHost) -> None:
    state, it = a.host.identity.state, await begun(a)
    saved, synced = state.save_heads, list[bool]()

    def seen(heads: list[StreamHead], *, durable: bool = False) -> None:
        synced.append(durable)
        saved(heads, durable=durable)

    async def write(first: int) -> None:
        for counter in range(first, first + progress._UNWRITTEN_MANY):
            await it.note(head(counter))
        await it.flush()

    state.save_heads = seen  # type: ignore[assignment, method-assign]
    assert 2 * progress._UNWRITTEN_MANY < HEADS_REMEMBERED
    for turn in range(4):
        await write(turn * progress._UNWRITTEN_MANY)
    assert synced == [False, True, False, True]
    await it.note(head(100))
    await it.advance(SourceState(generation=1, position=5, resume="token"))  # synced, too
    await write(101)
    assert synced[-1] is False


async def test_the_resume_token_is_never_before_the_heads(a: TestHost) -> None:
    state, it = a.host.identity.state, Progress("main", a.host.identity)
    await it.note(head(5))
    saved, known = state.save_source, []

    def seen(source: str, token: SourceState) -> None:
        known.append(state.heads(SECRET))
        saved(source, token)

    state.save_source = seen  # type: ignore[method-assign]
    await it.advance(SourceState(generation=1, position=5, resume="token"))
    assert state.heads(SECRET) == {STREAM: head(5)}
    found = state.source("main")
    assert found is not None
    assert found.resume == "token"
    assert known == [{STREAM: head(5)}]


async def test_an_acknowledgement_during_a_write_is_not_lost(a: TestHost) -> None:
    it = await begun(a)
    await it.note(head(1))
    saved = a.host.identity.state.save_heads

    def meanwhile(heads: list[StreamHead], *, durable: bool = False) -> None:
        it._unwritten[STREAM] = head(2)
        saved(heads, durable=durable)

    a.host.identity.state.save_heads = meanwhile  # type: ignore[assignment, method-assign]
    await it.flush()
    assert it.unwritten == {STREAM: head(2)}


async def test_a_write_is_due_long_before_a_block_waits_for_it(a: TestHost) -> None:
    state, it, first = a.host.identity.state, await begun(a), head(0)
    many = progress._UNWRITTEN_MANY
    for counter in range(many):
        assert not it.due.is_set()
        await it.note(head(counter))
    assert it.due.is_set()
    assert state.heads(SECRET) == {STREAM: first}
    saved = state.save_heads

    def meanwhile(heads: list[StreamHead], *, durable: bool = False) -> None:
        asyncio.run_coroutine_threadsafe(it.note(head(many)), loop).result(5)
        saved(heads, durable=durable)

    loop = asyncio.get_running_loop()
    state.save_heads = meanwhile  # type: ignore[assignment, method-assign]
    await it.flush()
    state.save_heads = saved  # type: ignore[method-assign]
    for counter in range(many + 1, 2 * many - 1):  # one came meanwhile; one is left
        await it.note(head(counter))
    assert not it.due.is_set()
    await it.note(head(2 * many - 1))
    assert it.due.is_set()
    assert it.unwritten == {STREAM: head(2 * many - 1)}
