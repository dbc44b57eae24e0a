"""The listener: every connection is counted, has its share, and ends."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fabric import tls
from fabric.authority.pki import issue_platform, make_ca
from fabric.config_fields import Address
from fabric.model.errors import ConfigInvalid
from fabric.web import listener as module
from fabric.web.listener import Listener
from tests.fakes.authority_site import until

LOCAL = Address("127.0.0.1", 0)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pki")
    ca = make_ca("test")
    (folder / "ca").write_bytes(ca.cert_pem)
    for name, prefix in (("verifier", ""), ("gateway", "client-")):
        certificate, key = issue_platform(ca, name, hosts=["localhost", "127.0.0.1"], days=1)
        (folder / f"{prefix}cert").write_bytes(certificate)
        (folder / f"{prefix}key").write_bytes(key)
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> ssl.SSLContext:
    return tls.client_context(folder / "client-cert", folder / "client-key", folder / "ca")


@pytest.fixture(scope="module")
def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = tls.server_context(folder / "cert", folder / "key", folder / "ca", demand=False)
    return server, tls.client_context(None, None, folder / "ca")


@contextlib.asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()


async def echoes(port: int, context: ssl.SSLContext) -> bool:
    async with asyncio.timeout(5), connected(port, context) as (reader, writer):
        writer.write(b"hello")
        return await reader.readexactly(5) == b"hello"


async def test_a_connection_is_served_and_uncounted_when_it_ends(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen")
    async with listener.listening(LOCAL) as port:
        assert await echoes(port, client)
        await until(lambda: listener.connections == 0)


async def test_half_open_handshakes_are_counted_and_cut(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", handshake_s=0.3)
    async with listener.listening(LOCAL) as port:
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        await until(lambda: listener.connections == 5)
        assert await echoes(port, client)
        await until(lambda: listener.connections == 0)
        for half_open in sockets:
            half_open.close()


async def test_a_silent_connection_ends_at_its_deadline(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", lifetime_s=0.5)
    async with listener.listening(LOCAL) as port, connected(port, client) as (reader, _):
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert await reader.read() == b""
        await until(lambda: listener.connections == 0)


async def test_one_address_has_its_share(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_PER_IDENTITY_MAX", 2)
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen")
    async with (
        listener.listening(LOCAL) as port,
        connected(port, client),
        connected(port, client),
    ):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await echoes(port, client)
        other = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
        await until(lambda: listener.connections == 3)
        other.close()


async def test_a_network_has_its_share_and_not_each_of_its_addresses(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_PER_IDENTITY_MAX", 1)
    monkeypatch.setattr(module, "share_of", lambda address: address.rpartition(".")[0])
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen")
    async with listener.listening(LOCAL) as port, connected(port, client):
        other = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
        other.settimeout(5)
        assert await asyncio.to_thread(other.recv, 1) == b""
        other.close()


async def test_when_all_places_are_taken_the_oldest_connection_goes(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", connections_max=3)
    async with listener.listening(LOCAL) as port:
        half_open = [
            socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{n}", 0))
            for n in range(2, 9)
        ]
        assert await echoes(port, client)
        await until(lambda: listener.connections <= 3)
        for each in half_open:
            each.close()
        await until(lambda: listener.connections == 0)


def half_open(port: int, address: str) -> socket.socket:
    """A connection from an address of loopback that never says a word."""
    return socket.create_connection(("127.0.0.1", port), source_address=(address, 0))


async def is_cut(connection: socket.socket) -> bool:
    """Whether the listener ends a connection."""
    connection.settimeout(5)
    try:
        return await asyncio.to_thread(connection.recv, 1) == b""
    except ConnectionError:
        return True


async def finished(
    port: int, context: ssl.SSLContext, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has come to the end of its handshake."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, local_addr=(address, 0)
    )
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return reader, writer


async def is_served(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether a connection is still open at the listener."""
    reader, writer = streams
    try:
        async with asyncio.timeout(5):
            writer.write(b"again")
            return await reader.readexactly(5) == b"again"
    except (OSError, EOFError):
        return False


async def test_who_only_connects_pushes_out_nobody_whose_request_waits(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", connections_max=8)
    async with listener.listening(LOCAL) as port:
        honest = await finished(port, client, "127.0.0.1")
        crowd = [half_open(port, f"127.0.0.{2 + n % 4}") for n in range(40)]
        assert await is_cut(crowd[31])
        assert await is_served(honest)
        for each in (*crowd, honest[1]):
            each.close()


async def test_the_address_with_most_strangers_gives_way(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", connections_max=4)
    async with listener.listening(LOCAL) as port:
        honest = await finished(port, client, "127.0.0.1")
        crowd = [await finished(port, client, "127.0.0.2") for _ in range(6)]
        assert await is_served(honest)
        assert [await is_served(each) for each in crowd] == [False] * 3 + [True] * 3
        for _, writer in (honest, *crowd):
            writer.close()


async def test_who_shows_a_certificate_goes_last(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], known: ssl.SSLContext
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen", connections_max=4)
    async with listener.listening(LOCAL) as port:
        hosts = [await finished(port, known, "127.0.0.1") for _ in range(3)]
        crowd = [await finished(port, client, f"127.0.0.{n}") for n in range(2, 9)]
        silent = [half_open(port, f"127.0.0.{n}") for n in range(2, 9)]
        assert await is_cut(silent[5])
        assert all([await is_served(each) for each in hosts])
        for each in (*silent, *(writer for _, writer in (*hosts, *crowd))):
            each.close()


async def test_garbage_harms_nobody(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen")
    async with listener.listening(LOCAL) as port:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(5_000), b"\x16\x03\x01" + bytes(50)):
            with socket.create_connection(("127.0.0.1", port)) as garbage:
                garbage.sendall(data)
        assert await echoes(port, client)
        await until(lambda: listener.connections == 0)


async def test_stopping_ends_every_connection(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    listener = Listener(Echo, server, setting="authority.listen")
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(5), listener.listening(LOCAL) as port:
            await stack.enter_async_context(connected(port, client))
            assert listener.connections == 1
        assert listener.connections == 0


async def test_an_address_that_is_taken_is_a_configuration_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigInvalid, match="authority.listen"):
            async with Listener(Echo, contexts[0], setting="authority.listen").listening(address):
                pass


async def test_a_context_that_cannot_be_had_closes_the_connection_and_not_the_next(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    told: list[bool] = []

    def context() -> ssl.SSLContext:
        told.append(True)
        if len(told) == 1:
            raise ConfigInvalid("web.client_ca: is spoilt")
        return server

    listener = Listener(Echo, context, setting="web.listen")
    async with listener.listening(LOCAL) as port:
        with pytest.raises(OSError):  # noqa: PT011  # however the system words a hang-up
            await echoes(port, client)
        assert await echoes(port, client)


async def test_an_error_of_the_block_comes_out_as_it_is(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    listener = Listener(Echo, contexts[0], setting="authority.listen")
    with pytest.raises(ConfigInvalid, match="another setting"):
        async with listener.listening(LOCAL):
            raise ConfigInvalid("another setting")
