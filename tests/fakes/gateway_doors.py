"""A door and a broker on loopback, in this very loop, with real TLS between all of them."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fabric.attest.keys import Alg, SigningKey, Use
from fabric.authority.pki import issue_platform, issue_svid, make_ca
from fabric.config_fields import Address
from fabric.gateway.audit import RefusalAudit
from fabric.gateway.cluster import Directory
from fabric.gateway.parts import Parts
from fabric.gateway.refusals import RefusalLog
from fabric.gateway.server import Door
from fabric.metrics import GatewayMetrics
from fabric.model.names import HostId
from fabric.store.clock import SystemClock
from fabric.tls import client_context, server_context
from tests.fakes.audit import MemoryAudit
from tests.fakes.gateway import OPEN, SEALED, World
from tests.fakes.kafka_frames import Broker

_SIZE = struct.Struct(">i")


class Pki:
    """Certificates of one test, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._platform = make_ca("platform")
        self._svid = make_ca("verifier")
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._platform.cert_pem + self._svid.cert_pem)

    def _files(self, name: str, certificate: bytes, key: bytes) -> tuple[Path, Path]:
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for path, data in zip(files, (certificate, key), strict=True):
            path.write_bytes(data)
        return files

    def platform(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a platform part."""
        issued = issue_platform(self._platform, name, hosts=["localhost", "127.0.0.1"], days=1)
        return self._files(name, *issued)

    def host(self, host: HostId, domain: str, *, lifetime_s: float = 600) -> tuple[Path, Path]:
        """Certificate and key of a host."""
        key = SigningKey.generate(Alg.ESP256, Use.TLS)
        end = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        certificate = issue_svid(self._svid, host, domain, key.public.data, end)
        private = load_der_private_key(key.private_bytes(), None)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self._files(f"{host.host}-{lifetime_s:.0f}", certificate, pem)

    def client(self, files: tuple[Path, Path]) -> ssl.SSLContext:
        """A client's context."""
        return client_context(*files, self.ca)

    def server(self, files: tuple[Path, Path]) -> ssl.SSLContext:
        """A server's context."""
        return server_context(*files, self.ca)


class TlsBroker:
    """A scripted broker behind TLS.

    Attributes:
        is_mute: take requests and answer none.
    """

    def __init__(self, broker: Broker, context: ssl.SSLContext) -> None:
        self.broker = broker
        self.is_mute = False
        self.port = 0
        self.connections = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut every connection and listen no more."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(EOFError, OSError):
            while True:
                frame = await read(reader)
                if not self.is_mute:
                    write(writer, self.broker.answer(frame))
        writer.close()


async def read(reader: asyncio.StreamReader) -> bytes:
    """One frame."""
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return await reader.readexactly(size)


def write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """One frame."""
    writer.write(_SIZE.pack(len(frame)) + frame)


class House:
    """A door with its broker; use `open_house`."""

    def __init__(self, pki: Pki, broker: TlsBroker) -> None:
        self.pki = pki
        self.broker = broker
        self.world = World(datetime.now(UTC))
        self.port = 0
        self.hurries: list[int] = []
        self.audit = MemoryAudit()
        gateway = pki.client(pki.platform("gateway"))
        self.parts = Parts(
            judge=self.world.judge(),
            directory=Directory([("localhost", 1)]),
            refusals=RefusalLog(),
            metrics=GatewayMetrics(tuple(self.world.policy.rules.values())),
            clock=SystemClock(),
            context=pki.server(pki.platform("gateway")),
            upstream=lambda: gateway,
            audit=RefusalAudit(self.audit),
            bootstrap=(("localhost", broker.port),),
        )
        self.parts.judge._interval_s = 60
        self.domain = self.world.policy.trust.trust_domain

    def papers(self, *, lifetime_s: float = 600) -> ssl.SSLContext:
        """Host a's TLS context."""
        files = self.pki.host(self.world.a.host, self.domain, lifetime_s=lifetime_s)
        return self.pki.client(files)

    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection."""
        context = context or self.papers()
        return await asyncio.open_connection("localhost", self.port, ssl=context)

    async def ask(self, frame: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """One request on a connection of its own."""
        reader, writer = await self.connect(context)
        try:
            async with asyncio.timeout(10):
                write(writer, frame)
                return await read(reader)
        finally:
            writer.close()

    def cut(self, limit: str) -> float:
        """How many connections a limit has cut."""
        name = "fabric_gateway_cut_connections_total"
        return self.parts.metrics.registry.get_sample_value(name, {"limit": limit}) or 0

    def open_connections(self) -> float:
        """Connections of clients now."""
        return self.parts.metrics.registry.get_sample_value("fabric_gateway_connections") or 0


async def until(condition: Callable[[], bool], what: str, wait_s: float = 10) -> None:
    """Wait for something that others in this loop do."""
    end = asyncio.get_running_loop().time() + wait_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    """A serving door; everything ends with the block."""
    pki = Pki(folder)
    scripted = Broker()
    broker = TlsBroker(scripted, pki.server(pki.platform("broker")))
    await broker.start()
    scripted.nodes = {1: ("localhost", broker.port)}
    scripted.leaders = {(topic, n): 1 for topic in (SEALED, OPEN) for n in range(2)}
    house = House(pki, broker)
    bound = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        door = Door(house.parts, hurry=lambda: house.hurries.append(1)).serve(
            Address("127.0.0.1", 0), bound.set_result
        )
        task = group.create_task(door)
        house.port = await bound
        try:
            yield house
        finally:
            task.cancel()
            await broker.stop()
