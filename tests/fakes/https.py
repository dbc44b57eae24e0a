"""A small HTTPS server on loopback that answers as a test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from fabric.authority.pki import Ca, issue_platform, make_ca
from fabric.tls import client_context, server_context

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A CA file, and a certificate and key below it for `localhost`."""

    ca: Path
    cert: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """A client's context with the certificate."""
        return client_context(self.cert, self.key, self.ca)


def make_files(folder: Path, ca: Ca | None = None) -> Files:
    """Write a PKI into `folder`."""
    ca = ca or make_ca("test")
    cert, key = issue_platform(ca, "gateway", hosts=["localhost"], days=1)
    names = ("ca.pem", "part.pem", "part.key")
    for name, data in zip(names, (ca.cert_pem, cert, key), strict=True):
        (folder / name).write_bytes(data)
    return Files(ca=folder / names[0], cert=folder / names[1], key=folder / names[2])


@asynccontextmanager
async def https(files: Files, answer: Answer, *, demand: bool = True) -> AsyncIterator[str]:
    """Serve every path by `answer`, mTLS unless no certificate is demanded; yields the base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    context = server_context(files.cert, files.key, files.ca, demand=demand)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """A port that accepts and never answers; yields its base URL."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
