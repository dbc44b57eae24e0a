"""The shell of the door: sockets and TLS in, the machine's commands out.

It accepts by itself, so that connections in their handshake count too. Every
wait has a limit: handshake, frame, idle time, queue. What it does not know how to
handle ends one connection, never the gateway. Decisions are the machine's.
"""

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from fabric.config_fields import Address
from fabric.gateway.cluster import Address as Pair
from fabric.gateway.identity import Identity, identify
from fabric.gateway.machine import (
    Answered,
    Close,
    Command,
    Connection,
    Event,
    Expired,
    Forward,
    Judging,
    Note,
    Pass,
    Received,
    Reply,
)
from fabric.gateway.parts import Parts
from fabric.gateway.quota import Quota, Quotas
from fabric.gateway.upstream import Link, close
from fabric.model.crowd import Crowd
from fabric.model.errors import ConfigInvalid, FabricError, Malformed, PeerError, Reason
from fabric.model.limits import (
    CONNECTIONS_MAX,
    FRAME_BYTES_MAX,
    FRAME_S_MAX,
    HANDSHAKE_S_MAX,
    HANDSHAKES_MAX,
    HANDSHAKES_PER_ADDRESS_MAX,
    IDLE_S_MAX,
    REQUEST_S_MAX,
    REQUESTS_IN_FLIGHT_MAX,
)
from fabric.model.network import share_of
from fabric.trace import trace

_log = logging.getLogger(__name__)
_SIZE = struct.Struct(">i")
_BUFFER_BYTES = 256 * 1024
_BACKLOG = 256
_SHUTDOWN_S_MAX = 1.0
_ACCEPT_PAUSE_S = 0.1
_QUEUE_S_MAX = 3 * REQUEST_S_MAX


class _Over(Exception):
    """The session has ended as it should."""


class Door:
    """The listening side.

    Args:
        hurry: called when a client knows a newer policy than we.
    """

    def __init__(self, parts: Parts, *, hurry: Callable[[], None] = lambda: None) -> None:
        self._parts = parts
        self._hurry = hurry
        self._quotas = Quotas()
        self._open = 0
        self._shaking: Crowd[asyncio.Task[None]] = Crowd()

    async def serve(self, listen: Address, started: Callable[[int], None]) -> None:
        """Accept clients for ever.

        Args:
            started: called with the bound port.

        Raises:
            ConfigInvalid: the address cannot be bound.
        """
        try:
            family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
            listener = socket.create_server(listen, family=family, backlog=_BACKLOG)
        except OSError as exc:
            raise ConfigInvalid(
                f"gateway.listen: {listen} cannot be bound ({exc.strerror}); choose a free address"
            ) from exc
        listener.setblocking(False)
        with listener:
            started(int(listener.getsockname()[1]))
            async with asyncio.TaskGroup() as group:
                while True:
                    accepted = await self._accept(listener)
                    if accepted is not None:
                        client, share = accepted
                        self._shake(group.create_task(self._client(client)), share)

    async def _accept(self, listener: socket.socket) -> tuple[socket.socket, str] | None:
        try:
            client, address = await asyncio.get_running_loop().sock_accept(listener)
            await asyncio.sleep(0)  # accept() of a waiting client gives nobody else a turn
        except OSError:  # out of descriptors, or the client is gone already
            await asyncio.sleep(_ACCEPT_PAUSE_S)
            return None
        if self._open >= CONNECTIONS_MAX:
            self._parts.metrics.cut("connections")
            client.close()
            return None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, share_of(str(address[0]))

    def _shake(self, task: "asyncio.Task[None]", share: str) -> None:
        """Half-open connections crowd out their own, and nobody who comes to the end."""
        self._shaking.add(task, share)
        task.add_done_callback(self._shaking.drop)
        is_large = self._shaking.held(share) > HANDSHAKES_PER_ADDRESS_MAX  # so none is larger
        if is_large or len(self._shaking) > HANDSHAKES_MAX:
            self._parts.metrics.cut("handshakes")
            self._shaking.give_way().cancel()

    async def _client(self, client: socket.socket) -> None:
        try:
            reader, writer = await self._handshake(client)
            self._count(1)
            try:
                await self._admit(reader, writer)
            finally:
                self._count(-1)
                await close(writer)
        except (OSError, EOFError, TimeoutError) as exc:
            _log.debug("connection ended: %s", type(exc).__name__)
        except FabricError as exc:
            self._parts.metrics.cut(str(exc.reason))
            _log.info("connection cut: %s", exc)
        except Exception as exc:  # noqa: BLE001  # one client's connection must never end the others'
            self._parts.metrics.cut(str(Reason.INTERNAL))
            _log.error("connection cut by a fault of ours: %s", trace(exc))

    def _count(self, change: int) -> None:
        self._open += change
        self._parts.metrics.connections(self._open)

    async def _handshake(
        self, client: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_BUFFER_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._parts.context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=_SHUTDOWN_S_MAX,
            )
        except OSError:
            self._parts.metrics.cut("handshake")
            raise
        task = asyncio.current_task()
        assert task is not None
        self._shaking.drop(task)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trust_domain = self._parts.trust_domain
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if trust_domain is None or certificate is None:
            raise PeerError(Reason.NOT_READY, "no policy yet")
        identity = identify(certificate, trust_domain)
        quota = self._quotas.enter(identity.name)
        try:
            session = Session(self._parts, identity, quota, streams=(reader, writer))
            session.hurry = self._hurry
            await session.run()
        finally:
            self._quotas.leave(identity.name)


class Session:
    """One client connection: its machine, its quota, its links to brokers.

    Attributes:
        hurry: called when the client knows a newer policy than we.
    """

    def __init__(
        self,
        parts: Parts,
        identity: Identity,
        quota: Quota,
        *,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._parts = parts
        self._identity = identity
        self._quota = quota
        self._reader, self._writer = streams
        self._machine = Connection(identity, parts.judge, parts.directory)
        self._slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        self._begun: deque[tuple[float, int]] = deque()
        self._links: dict[int | None, Link] = {}
        self.hurry: Callable[[], None] = lambda: None
        self._group = asyncio.TaskGroup()
        self._ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until the client or the machine ends it; nothing unforwarded outlives it.

        Raises:
            FabricError: why the client was cut.
        """
        failures: list[BaseException] = []
        try:
            async with self._group:
                self._group.create_task(self._read())
                self._group.create_task(self._watch())
        except* _Over:
            pass
        except* (OSError, EOFError):  # the client is gone or too slow: there is nobody to tell
            pass
        except* FabricError as found:
            failures.extend(found.exceptions)
        finally:
            while self._begun:
                self._quota.give(self._begun.popleft()[1])
        for failure in failures:
            raise failure

    async def _watch(self) -> None:
        raise await self._ended

    async def _read(self) -> None:
        while True:
            await self._slots.acquire()
            frame = await self._frame()
            if frame is None:
                self._step(Expired())
                await asyncio.sleep(_QUEUE_S_MAX)  # what is in flight ends the session
                raise _Over
            await self._take(Received(frame))
            while self._machine.is_judging:
                await asyncio.sleep(0)
                await self._take(Judging())
            async with asyncio.timeout(FRAME_S_MAX):
                await self._writer.drain()

    async def _frame(self) -> bytes | None:
        """The next request; None when it is time to end."""
        size = await self._size()
        if size is None:
            return None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_QUEUE_S_MAX):
            await self._quota.take(size)
        self._begun.append((loop.time(), size))
        try:
            async with asyncio.timeout(FRAME_S_MAX):
                return await self._reader.readexactly(size)
        except TimeoutError:
            self._parts.metrics.cut("frame_time")
            raise

    async def _size(self) -> int | None:
        """Length of the next frame, or None after the idle time or the certificate's end."""
        while True:
            left = (self._identity.not_after - self._parts.clock.now()).total_seconds()
            try:
                async with asyncio.timeout(max(0.0, min(left, IDLE_S_MAX))):
                    (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
                break
            except TimeoutError:
                if left <= IDLE_S_MAX or not self._machine.in_flight:
                    return None
        if not _SIZE.size <= size <= FRAME_BYTES_MAX:
            raise Malformed("frame has an impossible length")
        return int(size)

    async def _take(self, event: Event) -> None:
        """A step that may judge, and that therefore waits for the identity's turn."""
        async with asyncio.timeout(_QUEUE_S_MAX):
            await self._quota.turn(lambda: self._step(event))

    def _step(self, event: Event) -> None:
        for command in self._machine.step(event, self._parts.clock.now()):
            self._run_command(command)

    async def _deliver(self, event: Event) -> None:
        """What a link has; its errors must not look like those of the way to the broker."""
        try:
            self._step(event)
        except (_Over, FabricError) as exc:
            self._end(exc)

    async def _deliver_in_turn(self, event: Event) -> None:
        """An answer about topics: a few bytes ask for all of them, and reading them takes long.

        Whoever asks often waits for itself, and rests after every one.
        """
        if not isinstance(event, Answered):
            await self._deliver(event)
            return
        try:
            async with asyncio.timeout(_QUEUE_S_MAX):
                await self._quota.turn(lambda: self._step(event), free_s=0)
        except (_Over, FabricError, TimeoutError) as exc:
            self._end(exc)

    def _end(self, why: Exception) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    def _run_command(self, command: Command) -> None:
        match command:
            case Forward():
                self._link(command.node).put(command)
            case Reply():
                self._reply(command)
            case Pass():
                self._parts.metrics.admitted(self._level(command.topic), command.records)
            case Note():
                self._note(command)
            case Close():
                if command.reason is not None:
                    raise PeerError(command.reason, "connection is closed by the gateway")
                raise _Over

    def _reply(self, reply: Reply) -> None:
        begun, size = self._begun.popleft()
        self._quota.give(size)
        self._slots.release()
        seconds = asyncio.get_running_loop().time() - begun
        self._parts.metrics.request(reply.api.name.lower(), is_ok=reply.is_ok, seconds=seconds)
        if reply.frame is not None:
            self._writer.write(_SIZE.pack(len(reply.frame)) + reply.frame)

    def _note(self, note: Note) -> None:
        self._parts.metrics.denied(self._level(note.topic), note.reason)
        if note.reason is Reason.POLICY_NEWER:
            self.hurry()
        _log.info(
            "refused: %s, identity %s, topic %r, partition %d",
            note.reason,
            self._identity.name,
            note.topic,
            note.partition,
        )
        self._parts.audit.refused(
            self._identity.name,
            note.topic,
            note.partition,
            digest=note.digest,
            reason=note.reason,
        )
        if note.digest is not None:
            self._parts.refusals.note(
                self._identity.name,
                note.topic,
                note.partition,
                digest=note.digest,
                reason=note.reason,
            )

    def _level(self, topic: str) -> str:
        """Level of a topic of the policy, else empty: labels must stay a closed set."""
        view = self._parts.judge.view
        dataset = view.policy.datasets.get(topic) if view else None
        return dataset.topic.level if dataset else ""

    def _link(self, node: int | None) -> Link:
        link = self._links.get(node)
        if link is None:
            deliver = self._deliver_in_turn if node is None else self._deliver
            link = Link(
                lambda: self._addresses(node),
                self._parts.upstream,
                deliver=deliver,
                stands=lambda ticket: self._machine.stands(ticket, self._parts.clock.now()),
            )
            self._links[node] = link
            self._group.create_task(link.run())
        return link

    def _addresses(self, node: int | None) -> Sequence[Pair]:
        if node is None:
            return self._parts.bootstrap
        address = self._parts.directory.address(node)
        return () if address is None else (address,)
