"""Accept TLS connections with limits, so that none can hold what others need.

asyncio's own server neither counts handshakes nor ends a connection that says nothing:
half-open and slow clients would pile up. Here every connection is counted before its
handshake, each address has its share, and each ends at a deadline, answered or not. When
all places are taken, `Places` says whose connection goes.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

from fabric.config_fields import Address
from fabric.model.errors import ConfigInvalid, FabricError
from fabric.model.limits import (
    CONNECTION_S_MAX,
    CONNECTIONS_PER_IDENTITY_MAX,
    HANDSHAKE_S_MAX,
    HTTPS_CONNECTIONS_MAX,
)
from fabric.model.network import share_of
from fabric.trace import trace
from fabric.web.places import Places

_log = logging.getLogger(__name__)
_BACKLOG = 256
_PAUSE_S = 0.1
"""Rest after accept() failed, for example for want of file descriptors."""


class Listener:
    """Serves one protocol on one address.

    Args:
        protocol: makes the application's protocol for a connection.
        context: of every connection, or what gives the next one's; when that raises an error
            of ours, the connection is closed.
        setting: key of the address in the settings, for errors.
        connections_max: places; when all are taken, one connection ends for the next one.
        lifetime_s: deadline of every connection, from accept to close, seconds.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | Callable[[], ssl.SSLContext],
        *,
        setting: str,
        connections_max: int = HTTPS_CONNECTIONS_MAX,
        handshake_s: float = HANDSHAKE_S_MAX,
        lifetime_s: float = CONNECTION_S_MAX,
    ) -> None:
        self._protocol = protocol
        self._context = context if callable(context) else lambda: context
        self._setting = setting
        self._handshake_s = handshake_s
        self._lifetime_s = lifetime_s
        self._open: Counter[str] = Counter()
        self._places: Places[asyncio.Task[None]] = Places(connections_max)

    @property
    def connections(self) -> int:
        """Connections that are open or in their handshake."""
        return self._open.total()

    @contextlib.asynccontextmanager
    async def listening(self, address: Address) -> AsyncIterator[int]:
        """Listen while the block runs; yields the bound port. Raises ConfigInvalid."""
        failure: Exception | None = None
        with _bound(address, self._setting) as server:
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(server))
                try:
                    yield int(server.getsockname()[1])
                except Exception as exc:  # noqa: BLE001  # the block's own: no group around it
                    failure = exc
                finally:
                    accepting.cancel()
        if failure is not None:
            raise failure

    async def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, address = await loop.sock_accept(server)
                except OSError as exc:
                    _log.warning("accept failed: %s", exc)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                await asyncio.sleep(0)  # accept() of a waiting client gives nobody else a turn
                peer = share_of(str(address[0]))
                if self._open[peer] >= CONNECTIONS_PER_IDENTITY_MAX:
                    connection.close()
                    continue
                self._open[peer] += 1
                task = group.create_task(self._serve(connection, peer))
                task.add_done_callback(functools.partial(self._ended, peer=peer))
                gone = self._places.add(task, peer)
                if gone is not None:
                    gone.cancel()

    def _ended(self, task: "asyncio.Task[None]", *, peer: str) -> None:
        self._places.drop(task)
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]

    async def _serve(self, connection: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        try:
            async with asyncio.timeout(self._lifetime_s):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: _Watched(self._protocol(), closed),
                    connection,
                    ssl=self._context(),
                    ssl_handshake_timeout=self._handshake_s,
                    ssl_shutdown_timeout=self._handshake_s,
                )
                self._finished(transport)
                try:
                    await asyncio.shield(closed)
                finally:
                    if not closed.done():  # what is closed already, Python 3.11.2 cannot abort
                        transport.abort()
        except (OSError, TimeoutError) as exc:  # the peer's fault, and its own loss
            _log.debug("connection of %s ended: %s", peer, exc)
        except FabricError as exc:
            _log.debug("connection of %s closed: %s", peer, exc)
            connection.close()
        except Exception as exc:  # noqa: BLE001  # one connection must never end the others'
            _log.error("connection cut by a fault of ours: %s", trace(exc))

    def _finished(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over: a certificate that was shown holds, or there were no end."""
        task, tls = asyncio.current_task(), transport.get_extra_info("ssl_object")
        assert task is not None
        self._places.finished(task, is_known=tls.getpeercert(binary_form=True) is not None)


class _Watched(asyncio.Protocol):
    """Passes everything to the application's protocol, and tells when the connection is gone."""

    def __init__(self, inner: asyncio.Protocol, closed: "asyncio.Future[None]") -> None:
        self._inner = inner
        self._closed = closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
        self._inner.connection_lost(exc)


@contextlib.contextmanager
def _bound(address: Address, setting: str) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        server = socket.create_server(
            (address.host, address.port), family=family, backlog=_BACKLOG, reuse_port=False
        )
    except OSError as exc:
        raise ConfigInvalid(
            f"{setting}: {address} cannot be bound ({exc.strerror}); choose a free address"
        ) from exc
    with server:
        server.setblocking(False)
        yield server
