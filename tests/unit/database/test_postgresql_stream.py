"""fabric.database.postgresql_stream"""

import asyncio
import os
import socket
import time
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from fabric.database import postgresql_stream as streams
from fabric.database.postgresql_stream import ReplicationStream
from fabric.database.postgresql_wire import Begin, Commit, Keepalive, parse_frame
from fabric.demo.postgresql import Postgres
from fabric.model.errors import ConfigInvalid, UnavailableError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS_DDL, item, new_source, reading
from tests.contract.postgresql_world import Application

database = postgresql_world.database
pytestmark = pytest.mark.integration


async def test_a_server_says_who_it_is(database: str) -> None:
    stream = await ReplicationStream.connect(database)
    system, timeline = await stream.identify()
    assert int(system) > 0
    assert timeline == 1
    with pytest.raises(UnavailableError, match="42704"):
        await stream.start("no_such_slot", "p", lsn=1, binary=True, timeout_s=0)
    await stream.close()


async def test_a_server_that_is_away_is_unavailable_and_a_bad_url_is_not() -> None:
    with pytest.raises(UnavailableError):
        await ReplicationStream.connect("postgresql://postgres@127.0.0.1:1/x")
    with pytest.raises(ConfigInvalid):
        await ReplicationStream.connect("postgresql://h/x?no_such_option=1")


async def test_a_consumer_that_does_nothing_keeps_its_connection(
    database: str, postgres: Postgres
) -> None:
    """The feedback has a timer of its own: the server's patience is 2 s here."""
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run(
        f"ALTER ROLE postgres IN DATABASE {database.rpartition('/')[2]}"
        " SET wal_sender_timeout = '2s'"
    )
    async with reading(new_source(database)) as read:
        await read.until_ended()
        await application.run(
            "INSERT INTO items SELECT i, repeat('x', 500), null FROM generate_series(1, 20000) i"
        )
        await asyncio.sleep(5)
        await read.until(lambda: len(read.rows()) == 20_000)
    assert postgres.pid


async def test_others_transactions_do_not_wake_the_consumer(database: str) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE others (id int)")
    await application.run("CREATE PUBLICATION quiet FOR TABLE items")
    await application.run("SELECT pg_create_logical_replication_slot('quiet', 'pgoutput')")
    stream = await ReplicationStream.connect(database)
    await stream.start("quiet", "quiet", lsn=1, binary=True, timeout_s=0)
    await stream.wait(0.3, alive_at=inf)  # what the server says at the start
    heard = stream.heard
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(stream.wait(10, alive_at=inf))
        for number in range(20):
            await application.run(f"INSERT INTO others VALUES ({number})")
        await asyncio.sleep(0.2)
        assert stream.heard > heard
        assert not waiting.done()
        await application.run("INSERT INTO items VALUES (1, 'n')")
        await asyncio.wait_for(waiting, 5)
    frame = stream.frame()
    assert frame is not None
    assert isinstance(parse_frame(frame), Begin)
    while frame is None or not isinstance(parse_frame(frame), Commit):
        frame = stream.frame()
        if frame is None:
            await stream.wait(5, alive_at=inf)
    await application.run("INSERT INTO others VALUES (0)")
    await stream.wait(5, alive_at=0)  # who asks for keepalives, gets them
    frame = stream.frame()
    assert frame is not None
    assert isinstance(parse_frame(frame), Keepalive)
    await stream.close()


async def test_a_server_that_ends_while_its_consumer_waits_is_unavailable(database: str) -> None:
    application = Application(database)
    await application.run("CREATE PUBLICATION e")
    await application.run("SELECT pg_create_logical_replication_slot('e', 'pgoutput')")
    stream = await ReplicationStream.connect(database)
    await stream.start("e", "e", lsn=1, binary=True, timeout_s=0)

    async def end() -> None:
        await asyncio.sleep(0.2)
        await application.run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

    async with asyncio.TaskGroup() as group:
        group.create_task(end())
        with pytest.raises(UnavailableError):
            await stream.wait(10, alive_at=inf)
    await stream.close()


async def test_a_connection_that_broke_beside_the_reader_is_unavailable(database: str) -> None:
    """A status update meets the end first: the reader's next wait has no socket any more."""
    stream = await ReplicationStream.connect(database)
    stream._pq.finish()
    with pytest.raises(UnavailableError):
        await stream.wait(10, alive_at=inf)


async def test_a_killed_walsender_is_unavailable_and_the_source_goes_on_after_it(
    database: str,
) -> None:
    application = Application(database)
    await application.run(ITEMS_DDL)
    source = new_source(database)
    async with reading(source) as read:
        await read.until_ended()
        resume = read.reached.resume
        await application.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE pid IN"
            " (SELECT active_pid FROM pg_replication_slots WHERE database = current_database())"
        )
        with pytest.raises(UnavailableError):
            await read.forever()
    await application.run("INSERT INTO items VALUES (1, 'n')")
    async with reading(source, resume) as read:
        await read.until(lambda: read.rows() == {1: item(1)})


async def test_the_server_stops_at_once_when_everything_is_released(server_folder: object) -> None:
    from pathlib import Path

    assert isinstance(server_folder, Path)
    server = Postgres(server_folder / "stopping").create().start()
    url = server.create_database("d")
    await Application(url).run(ITEMS_DDL)
    source = new_source(url, silence_s=5.0)
    async with reading(source) as read:
        await read.until_ended()
        await source.release(read.reached.position)
        stopping = asyncio.get_running_loop().run_in_executor(None, server.stop)
        with pytest.raises(UnavailableError):
            await read.forever(releasing=True)
        await stopping


async def test_a_close_that_is_cancelled_leaves_no_connection_that_would_hold_the_slot(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, ending = await ReplicationStream.connect(database), asyncio.Event()
    stream._timer = asyncio.get_running_loop().call_later(60, ending.set)  # as while it streams

    async def end_for_ever() -> None:
        ending.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(stream, "_send_status", lambda: None)
    monkeypatch.setattr(stream, "_end_copy", end_for_ever)
    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(stream.close())
        await ending.wait()
        closing.cancel()
    assert stream._connection.closed


async def test_a_server_is_gone_after_a_long_silence_and_not_after_long_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    nothing: Any = SimpleNamespace(pgconn=None)
    stream = ReplicationStream(nothing)

    async def silent(timeout_s: float, _alive_at: float) -> None:
        nonlocal now
        now += timeout_s

    monkeypatch.setattr(stream, "_wait", silent)
    now += 500
    for _ in range(60):
        await stream.wait(5.0, alive_at=now)
    with pytest.raises(UnavailableError, match="has sent nothing for 300 s"):
        await stream.wait(5.0, alive_at=now)


async def test_a_server_that_works_in_silence_is_asked_and_lives(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decodes what nobody published; our updates keep it from asking by itself."""
    monkeypatch.setattr(streams, "_STATUS_S_MAX", 0.1)
    monkeypatch.setattr(streams, "_ASK_S", 0.2, raising=False)
    monkeypatch.setattr(streams, "_DEAF_S", 2.0)
    application = Application(database)
    await application.run(ITEMS_DDL)
    await application.run("CREATE TABLE others (id int)")
    await application.run("CREATE PUBLICATION busy FOR TABLE items")
    await application.run("SELECT pg_create_logical_replication_slot('busy', 'pgoutput')")
    for _ in range(8):  # its walk through one transaction is silent; through eight, eight times
        await application.run("INSERT INTO others SELECT generate_series(1, 125000)")
    await application.run("INSERT INTO items VALUES (1, 'n')")
    stream = await ReplicationStream.connect(database)
    await stream.start("busy", "busy", lsn=1, binary=True, timeout_s=0)
    async with asyncio.timeout(60):
        while (frame := stream.frame()) is None or isinstance(parse_frame(frame), Keepalive):
            await stream.wait(0.1, alive_at=inf)
    assert isinstance(parse_frame(frame), Begin)
    await stream.close()


async def test_a_host_that_acknowledges_nothing_is_noticed_by_the_kernel(database: str) -> None:
    stream = await ReplicationStream.connect(database)
    with socket.socket(fileno=os.dup(stream._pq.socket)) as watched:
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    await stream.close()


async def test_a_server_is_given_longer_than_its_own_patience(database: str) -> None:
    application = Application(database)
    await application.run("CREATE PUBLICATION p")
    await application.run("SELECT pg_create_logical_replication_slot('p', 'pgoutput')")
    stream = await ReplicationStream.connect(database)
    await stream.start("p", "p", lsn=1, binary=True, timeout_s=600)
    assert stream._deaf_s == 1200
    await stream.close()
