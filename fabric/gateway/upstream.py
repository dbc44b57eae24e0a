"""Connections to brokers: one per client connection and node, with the gateway's own certificate.

Frames go through raw but for their correlation ids. Of one that had to wait it is asked again
whether it still may go. Answers come in the order of
the requests; one that is late, foreign or missing ends the connection, and every
ticket on it gets `Failed`, `is_unsent` only where no byte of it was handed to a connection.
The next frame connects anew.
"""

import asyncio
import contextlib
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import NamedTuple, TypeAlias

from fabric.gateway.cluster import Address
from fabric.gateway.machine import Answered, Event, Failed, Forward
from fabric.gateway.wire import readdress
from fabric.model.errors import FabricError, Malformed, PeerError, Reason, UnavailableError
from fabric.model.limits import FRAME_BYTES_MAX, HANDSHAKE_S_MAX, REQUEST_S_MAX

Addresses: TypeAlias = Callable[[], Sequence[Address]]
Context: TypeAlias = Callable[[], ssl.SSLContext]
Deliver: TypeAlias = Callable[[Event], Awaitable[None]]
Stands: TypeAlias = Callable[[int], bool]

_SIZE = struct.Struct(">i")
_CORRELATION_MAX = 2**31 - 1
_BUFFER_BYTES = 256 * 1024
_CLOSE_S_MAX = 1.0


class _Awaited(NamedTuple):
    correlation: int
    ticket: int
    deadline: float


class Link:
    """One client connection's way to one node.

    Args:
        addresses: where the node is now, in order of preference.
        deliver: takes what became of each ticket; nothing is read on before it has.
        stands: whether a ticket's frame, which has waited, may still be sent; a FabricError of
            it is a no.
    """

    def __init__(
        self, addresses: Addresses, context: Context, *, deliver: Deliver, stands: Stands
    ) -> None:
        self._addresses = addresses
        self._context = context
        self._deliver = deliver
        self._stands = stands
        # The machine has a bounded number of requests in flight, and so has this queue.
        self._queue: asyncio.Queue[tuple[Forward, float]] = asyncio.Queue()
        self._awaited: deque[_Awaited] = deque()
        self._correlation = 0
        self._limit: asyncio.Timeout | None = None
        self._writer: asyncio.StreamWriter | None = None

    def put(self, forward: Forward) -> None:
        """Send a frame, or queue it behind others; its time runs from now."""
        deadline = asyncio.get_running_loop().time() + forward.timeout_s
        writer = self._writer
        if writer is None or self._queue.qsize() or writer.transport.get_write_buffer_size():
            self._queue.put_nowait((forward, deadline))
        else:
            self._write(writer, forward, deadline)

    async def run(self) -> None:
        """Connect when there is something to send, for ever."""
        while True:
            forward, deadline = await self._queue.get()
            try:
                reader, writer = await connect(self._addresses(), self._context(), deadline)
            except UnavailableError:
                await self._deliver(Failed(forward.ticket, is_unsent=True))
                continue
            await self._converse(reader, writer, (forward, deadline))

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: tuple[Forward, float],
    ) -> None:
        awaited = self._awaited
        ended = asyncio.Event()
        try:
            # The two tell their end by an event: a TaskGroup that is cancelled while one
            # of its tasks fails hides the cancellation, and `run` would go on for ever.
            async with asyncio.TaskGroup() as group:
                tasks = (
                    group.create_task(_until_broken(self._receive(reader), ended)),
                    group.create_task(_until_broken(self._send(writer, first), ended)),
                )
                await ended.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._writer = None
            writer.close()
        while awaited:
            await self._deliver(Failed(awaited.popleft().ticket))

    async def _send(self, writer: asyncio.StreamWriter, first: tuple[Forward, float]) -> None:
        """Send what could not be sent at once."""
        forward, deadline = first
        while True:
            is_late = deadline <= asyncio.get_running_loop().time()  # nobody waits for it any more
            if is_late or not self._may_go(forward.ticket):
                await self._deliver(Failed(forward.ticket, is_unsent=True))
            else:
                self._write(writer, forward, deadline)
                await writer.drain()
            self._writer = writer
            forward, deadline = await self._queue.get()

    def _may_go(self, ticket: int) -> bool:
        try:
            return self._stands(ticket)
        except FabricError:  # the clock, for one, may say no time
            return False

    def _write(self, writer: asyncio.StreamWriter, forward: Forward, deadline: float) -> None:
        self._correlation = self._correlation % _CORRELATION_MAX + 1
        self._awaited.append(_Awaited(self._correlation, forward.ticket, deadline))
        if len(self._awaited) == 1:
            self._hurry(deadline)
        # In one go: every write is a TLS record, a system call and a broker that wakes up.
        writer.write(readdress(forward.frame, self._correlation))

    def _hurry(self, deadline: float) -> None:
        """Nothing was awaited and now something is: the reading gets a deadline."""
        if self._limit is not None:
            with contextlib.suppress(RuntimeError):  # the reading has just ended
                self._limit.reschedule(deadline)

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        awaited = self._awaited
        while True:
            deadline = awaited[0].deadline if awaited else None
            async with asyncio.timeout_at(deadline) as self._limit:
                frame = await read_frame(reader)
            if not awaited or frame[:4] != awaited[0].correlation.to_bytes(4):
                raise Malformed("answer is to no request of ours")
            # It stays awaited until then: if this ends before, it has failed like the others.
            await self._deliver(Answered(awaited[0].ticket, frame))
            awaited.popleft()


async def _until_broken(work: Coroutine[None, None, None], ended: asyncio.Event) -> None:
    try:
        await work
    except (OSError, EOFError, PeerError):  # TimeoutError among them: whatever ended it
        ended.set()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One frame without its length; raises Malformed or EOFError."""
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    if not 4 <= size <= FRAME_BYTES_MAX:
        raise Malformed("frame has an impossible length")
    return await reader.readexactly(size)


async def connect(
    addresses: Sequence[Address], context: ssl.SSLContext, deadline: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers; raises UnavailableError by `deadline`."""
    for host, port in addresses:
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.open_connection(
                    host,
                    port,
                    ssl=context,
                    limit=_BUFFER_BYTES,
                    ssl_handshake_timeout=HANDSHAKE_S_MAX,
                    ssl_shutdown_timeout=_CLOSE_S_MAX,
                )
        except (OSError, TimeoutError):
            continue
    raise UnavailableError(Reason.BROKER_UNAVAILABLE, "no broker answers")


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection within a second."""
    writer.close()
    try:
        async with asyncio.timeout(_CLOSE_S_MAX):
            await writer.wait_closed()
    except OSError:  # TimeoutError among them
        with contextlib.suppress(AttributeError):  # closed already: Python 3.11.2 cannot abort it
            writer.transport.abort()


class Exchange:
    """The gateway's own questions to a broker, one at a time, on a connection that is kept.

    A TLS handshake for each would cost broker and gateway milliseconds beside every block.
    """

    def __init__(self, addresses: Sequence[Address], context: Context) -> None:
        self._addresses = addresses
        self._context = context
        self._made_with: ssl.SSLContext | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, frame: bytes) -> bytes:
        """The answer to one request; a failure ends the connection.

        A kept connection that has ended says nothing of the cluster: its broker may have
        been restarted, and another answers. So it is asked once more, on a new one.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
            PeerError: the answer is no frame.
        """
        context = self._context()
        if context is not self._made_with:  # certificates have changed
            await self.close()
        deadline = asyncio.get_running_loop().time() + REQUEST_S_MAX
        is_kept = self._streams is not None
        try:
            try:
                return await self._ask(frame, context, deadline)
            except (OSError, EOFError) as exc:
                if not is_kept or isinstance(exc, TimeoutError):
                    raise
                return await self._ask(frame, context, deadline)
        except (OSError, EOFError) as exc:  # TimeoutError among them
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, "broker does not answer") from exc

    async def _ask(self, frame: bytes, context: ssl.SSLContext, deadline: float) -> bytes:
        if self._streams is None:
            self._streams = await connect(self._addresses, context, deadline)
            self._made_with = context
        reader, writer = self._streams
        is_whole = False
        try:
            async with asyncio.timeout_at(deadline):
                writer.write(_SIZE.pack(len(frame)) + frame)
                await writer.drain()
                answer = await read_frame(reader)
            is_whole = True
            return answer
        finally:
            if not is_whole:
                await self.close()

    async def close(self) -> None:
        """End the connection; the next question makes another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            await close(streams[1])
