"""Links to brokers: order, deadlines, reconnection."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fabric.gateway import requests
from fabric.gateway.machine import Answered, Event, Failed, Forward
from fabric.gateway.upstream import Exchange, Link
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from tests.fakes.gateway_doors import Pki, TlsBroker, until
from tests.fakes.kafka_frames import Broker

QUESTION = requests.ask_metadata(())


class Bench:
    """One link to one broker."""

    def __init__(self, pki: Pki, broker: TlsBroker) -> None:
        self.broker = broker
        self.pki = pki
        self.context = pki.client(pki.platform("gateway"))
        self.events: list[Event] = []
        self.fallen: set[int] = set()
        self.link = Link(
            self.addresses,
            lambda: self.context,
            deliver=self.deliver,
            stands=lambda ticket: ticket not in self.fallen,
        )
        self.free = asyncio.Event()
        self.free.set()
        self.is_delivering = False

    async def deliver(self, event: Event) -> None:
        self.is_delivering = True
        if isinstance(event, Answered):
            await self.free.wait()
        self.events.append(event)

    def addresses(self) -> list[tuple[str, int]]:
        return [("localhost", self.broker.port)]

    async def got(self, count: int) -> list[tuple[str, int]]:
        await until(lambda: len(self.events) == count, f"{count} events")
        return [
            (type(event).__name__, event.ticket)
            for event in self.events
            if isinstance(event, Answered | Failed)
        ]

    def put(self, ticket: int, timeout_s: float = 5) -> None:
        self.link.put(Forward(ticket, None, QUESTION, timeout_s))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    pki = Pki(tmp_path)
    broker = TlsBroker(Broker(), pki.server(pki.platform("broker")))
    await broker.start()
    found = Bench(pki, broker)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.link.run())
        yield found
        task.cancel()
    await broker.stop()


async def test_answers_come_in_order_on_one_connection(bench: Bench) -> None:
    for ticket in range(20):
        bench.put(ticket)
    assert await bench.got(20) == [("Answered", ticket) for ticket in range(20)]
    assert bench.broker.connections == 1


async def test_a_late_answer_fails_everything_on_the_connection_and_the_next_connects_anew(
    bench: Bench,
) -> None:
    bench.broker.is_mute = True
    bench.put(1, 0.2)
    bench.put(2, 5)
    assert await bench.got(2) == [("Failed", 1), ("Failed", 2)]
    bench.broker.is_mute = False
    bench.put(3)
    assert (await bench.got(3))[-1] == ("Answered", 3)
    assert bench.broker.connections == 2


async def test_an_answer_that_waits_for_its_turn_fails_when_the_connection_ends(
    bench: Bench,
) -> None:
    bench.free.clear()
    bench.put(1)
    await until(lambda: bench.is_delivering, "the answer to wait for its turn")
    writer = bench.link._writer
    assert writer is not None
    await bench.broker.stop()
    await until(writer.transport.is_closing, "the connection to end")
    deadline = asyncio.get_running_loop().time() + 5
    bench.link._queue.put_nowait((Forward(2, None, QUESTION, 5), deadline))
    assert await bench.got(2) == [("Failed", 1), ("Failed", 2)]


async def test_what_waited_past_its_deadline_is_not_sent_and_holds_nobody_up(bench: Bench) -> None:
    bench.put(1)
    bench.put(2, 0)
    bench.put(3)
    assert sorted(await bench.got(3)) == [("Answered", 1), ("Answered", 3), ("Failed", 2)]
    assert bench.broker.connections == 1


async def test_what_was_certainly_not_written_is_told_from_what_may_have_been(
    bench: Bench,
) -> None:
    """Replay marks of the first may go; a broker may have stored the second."""
    bench.broker.is_mute = True
    bench.put(1, 0.2)
    bench.put(2, 0)
    await bench.got(2)
    assert {*bench.events} == {Failed(1), Failed(2, is_unsent=True)}
    await bench.broker.stop()
    bench.put(3)
    await bench.got(3)
    assert bench.events[-1] == Failed(3, is_unsent=True)


@pytest.mark.parametrize("is_connected", [False, True])
async def test_what_waited_is_sent_only_if_it_still_stands(
    bench: Bench, is_connected: bool
) -> None:
    """A host may be revoked while a frame waits for a connection, or behind others."""
    if is_connected:
        bench.put(0)
        await bench.got(1)
        bench.events.clear()
    seen = len(bench.broker.broker.asked)
    for ticket in (1, 2, 3):
        forward = Forward(ticket, None, QUESTION, 5)
        deadline = asyncio.get_running_loop().time() + 5
        bench.link._queue.put_nowait((forward, deadline))
    bench.fallen = {1, 2}
    assert sorted(await bench.got(3)) == [("Answered", 3), ("Failed", 1), ("Failed", 2)]
    assert {Failed(1, is_unsent=True), Failed(2, is_unsent=True)} <= {*bench.events}
    assert len(bench.broker.broker.asked) == seen + 1


async def test_a_frame_of_which_nobody_can_say_whether_it_stands_is_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock may say no time, and the link goes on once it does."""

    def unsure(ticket: int) -> bool:
        raise DeniedError(Reason.CLOCK_WENT_BACK, "the clock went back")

    with monkeypatch.context() as patched:
        patched.setattr(bench.link, "_stands", unsure)
        bench.put(1)
        await bench.got(1)
    bench.put(2)
    assert await bench.got(2) == [("Failed", 1), ("Answered", 2)]
    assert bench.events[0] == Failed(1, is_unsent=True)


async def test_a_later_request_has_its_own_deadline(bench: Bench) -> None:
    bench.put(1)
    await bench.got(1)
    bench.broker.is_mute = True
    bench.put(2, 0.2)
    assert (await bench.got(2))[-1] == ("Failed", 2)


async def test_a_cut_connection_fails_what_was_asked(bench: Bench) -> None:
    bench.broker.is_mute = True
    bench.put(1)
    await until(lambda: bench.broker.connections == 1, "the link to connect")
    await bench.broker.stop()
    bench.put(2, 1)
    assert await bench.got(2) == [("Failed", 1), ("Failed", 2)]
    bench.broker.is_mute = False
    await bench.broker.start()
    bench.put(3)
    assert (await bench.got(3))[-1] == ("Answered", 3)


async def ask(bench: Bench, *addresses: tuple[str, int]) -> bytes:
    broker = Exchange(addresses, lambda: bench.context)
    try:
        return await broker.ask(QUESTION)
    finally:
        await broker.close()


async def test_exchange_asks_one_thing(bench: Bench) -> None:
    assert len(await ask(bench, *bench.addresses())) > 4
    with pytest.raises(UnavailableError):
        await ask(bench, ("localhost", 1))
    with pytest.raises(UnavailableError):
        await ask(bench)


async def test_exchange_keeps_its_connection_until_certificates_change(bench: Bench) -> None:
    contexts = [bench.context]
    broker = Exchange(bench.addresses(), lambda: contexts[-1])
    first, second = await broker.ask(QUESTION), await broker.ask(QUESTION)
    assert first == second
    assert bench.broker.connections == 1
    contexts.append(bench.pki.client(bench.pki.platform("gateway")))
    assert await broker.ask(QUESTION) == first
    assert bench.broker.connections == 2
    await broker.close()


async def test_a_broker_that_was_restarted_between_two_questions_is_no_failure(
    bench: Bench,
) -> None:
    broker = Exchange(bench.addresses(), lambda: bench.context)
    answer = await broker.ask(QUESTION)
    await bench.broker.stop()
    await bench.broker.start()
    assert await broker.ask(QUESTION) == answer
    assert bench.broker.connections == 2
    await broker.close()


async def test_exchange_connects_anew_after_a_failure(bench: Bench) -> None:
    broker = Exchange(bench.addresses(), lambda: bench.context)
    answer = await broker.ask(QUESTION)
    await bench.broker.stop()
    with pytest.raises(UnavailableError):
        await broker.ask(QUESTION)
    await bench.broker.start()
    assert await broker.ask(QUESTION) == answer
    await broker.close()


async def test_the_second_address_is_tried(bench: Bench) -> None:
    assert await ask(bench, ("localhost", 1), *bench.addresses())


async def test_a_foreign_answer_is_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.broker.broker, "answer", lambda frame: b"\0\0\0\x63 foreign")
    bench.put(1)
    assert await bench.got(1) == [("Failed", 1)]
    monkeypatch.setattr(bench.broker.broker, "answer", lambda frame: b"")
    with pytest.raises(PeerError):
        await ask(bench, *bench.addresses())
