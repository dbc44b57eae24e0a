"""The replication connection: libpq through psycopg's `pq` layer, woken by the event loop.

libpq keeps TLS, authentication and the buffer; nothing but one frame is read ahead of the
consumer, so the socket is the only queue. Status updates go out on a timer of their own,
whatever the consumer does: a slow consumer never costs the connection. A server sends a
keepalive each time anybody's transaction ends; those are taken note of without waking the
consumer. One that decodes what nobody published says nothing by itself for as long as that
takes, because our updates tell it that we live: so it is asked for a sign of life.
"""

import asyncio
import contextlib
import time
from typing import Any

import psycopg
from psycopg import pq

from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_connect import CONNECT_S_MAX
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError

_ANSWER_S_MAX = 20.0
"""Deadline of an answer to a replication command."""
_CLOSE_S_MAX = 1.0
_STATUS_S_MAX = 10.0
_STATUS_SOON_S = 0.1
_ASK_S = 20.0
"""After so long a silence each status update asks for an answer."""
_DEAF_S = 300.0
"""A server from which so long a wait hears nothing, answers included, is gone.

A walsender reads what it is asked between two records, and while it goes through one large
transaction only every half of wal_sender_timeout; to begin anew would only repeat the work.
A host or a network that is gone is noticed earlier, by `_UNACKNOWLEDGED_S_MAX`.
"""
_UNACKNOWLEDGED_S_MAX = 60
"""The kernel ends a connection whose updates no host acknowledges for so long."""
_OPTIONS = (
    "-c DateStyle=ISO -c TimeZone=UTC -c bytea_output=hex -c IntervalStyle=postgres"
    " -c extra_float_digits=1"
)


class ReplicationStream:
    """One walsender of the server, from connect to close; make it with `connect`."""

    def __init__(self, connection: "psycopg.AsyncConnection[Any]") -> None:
        self._connection = connection
        self._pq = connection.pgconn
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._interval_s = _STATUS_S_MAX
        self._flushed = 0
        self._received = 0
        self._held: bytes | None = None
        self.heard = time.monotonic()
        self._silent_s = 0.0
        self._deaf_s = _DEAF_S

    @classmethod
    async def connect(cls, url: str) -> "ReplicationStream":
        """Open a replication connection.

        Raises:
            ConfigInvalid: the URL does not parse.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(CONNECT_S_MAX + 1):
                connection = await psycopg.AsyncConnection.connect(
                    url,
                    autocommit=True,
                    replication="database",
                    application_name="fabric",
                    client_encoding="utf8",
                    connect_timeout=int(CONNECT_S_MAX),
                    tcp_user_timeout=_UNACKNOWLEDGED_S_MAX * 1000,
                    options=_OPTIONS,
                )
        except psycopg.ProgrammingError as exc:
            raise ConfigInvalid("url: not a PostgreSQL connection URL") from exc
        except (psycopg.Error, OSError, TimeoutError) as exc:
            raise _unavailable("open a replication connection", exc) from None
        return cls(connection)

    async def identify(self) -> tuple[str, int]:
        """System identifier and timeline of the cluster."""
        result = await self._command("IDENTIFY_SYSTEM")
        system, timeline = result.get_value(0, 0), result.get_value(0, 1)
        if system is None or timeline is None:
            raise _unavailable("identify the server", None)
        return bytes(system).decode(), int(timeline)

    async def start(
        self, slot: str, publication: str, *, lsn: int, binary: bool, timeout_s: float
    ) -> None:
        """Start the stream at `lsn`.

        Args:
            slot: name of `a-z0-9_`.
            binary: ask for binary values.
            timeout_s: the server's wal_sender_timeout, 0 for none.

        Raises:
            UnavailableError: the slot is in use, or the server cannot start.
        """
        quoted = publication.replace('"', '""').replace("'", "''")
        await self._command(
            f'START_REPLICATION SLOT "{slot}" LOGICAL {wire.format_lsn(lsn)} ('
            f"proto_version '1', publication_names '\"{quoted}\"', messages 'true',"
            f" binary '{'true' if binary else 'false'}')"
        )
        self._flushed = self._received = lsn
        self._interval_s = min(timeout_s / 3, _STATUS_S_MAX) if timeout_s else _STATUS_S_MAX
        self._deaf_s = max(_DEAF_S, 2 * timeout_s)
        self._tick()

    async def _command(self, sql: str) -> "pq.abc.PGresult":
        """Send one replication command and wait for its first result."""
        try:
            self._pq.send_query(sql.encode())
            async with asyncio.timeout(_ANSWER_S_MAX):
                while self._pq.flush():
                    await self._ready(_ANSWER_S_MAX)
                while self._pq.is_busy():
                    await self._ready(_ANSWER_S_MAX)
                    self._pq.consume_input()
                result = self._pq.get_result()
                while result is not None and result.status == pq.ExecStatus.TUPLES_OK:
                    while self._pq.is_busy():
                        await self._ready(_ANSWER_S_MAX)
                        self._pq.consume_input()
                    if self._pq.get_result() is None:
                        break
        except (psycopg.Error, OSError, TimeoutError) as exc:
            raise _unavailable(sql.split(" ", 1)[0], exc) from None
        if result is None or result.status not in _GOOD:
            raise _refused(sql.split(" ", 1)[0], result)
        return result

    def frame(self) -> bytes | None:
        """The next frame, or None when none has arrived whole.

        Raises:
            UnavailableError: the stream has ended.
        """
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            size, data = self._pq.get_copy_data(1)
            if size > 0:
                return bytes(data)
            if size == 0:
                return None
            result = self._pq.get_result()
        except psycopg.Error as exc:
            raise _unavailable("read the replication stream", exc) from None
        raise _refused("read the replication stream", result)

    async def wait(self, timeout_s: float, *, alive_at: float) -> None:
        """Wait until the server has sent something for the consumer, at most `timeout_s`.

        Args:
            alive_at: from this time on (of `time.monotonic`) a keepalive is for it, too.

        Raises:
            UnavailableError: the stream has ended, or is silent for too long.
        """
        began = time.monotonic()
        try:
            await self._wait(timeout_s, alive_at)
        except (psycopg.Error, OSError, ValueError) as exc:
            raise _unavailable("read the replication stream", exc) from None
        # Only who listens can tell that nothing is said: what else we do may take long.
        waited_s = time.monotonic() - began
        self._silent_s = self._silent_s + waited_s if self.heard < began else 0.0
        if self._silent_s > self._deaf_s:
            why = f"the server has sent nothing for {self._deaf_s:.0f} s"
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, why)

    async def _wait(self, timeout_s: float, alive_at: float) -> None:
        loop = asyncio.get_running_loop()
        socket, done = self._pq.socket, loop.create_future()

        def readable() -> None:
            # What libpq closes must not stay watched: its number may be another's soon.
            try:
                if not self._take_in(alive_at):
                    return
            except Exception as exc:  # noqa: BLE001  # it belongs to who waits
                loop.remove_reader(socket)
                _give(done, exc)
            else:
                loop.remove_reader(socket)
                _give(done, None)

        loop.add_reader(socket, readable)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await done
        finally:
            loop.remove_reader(socket)

    def _take_in(self, alive_at: float) -> bool:
        """Read what has arrived; whether there is something for the consumer."""
        self._pq.consume_input()
        self.heard = time.monotonic()
        while (frame := self.frame()) is not None:
            if time.monotonic() >= alive_at or not self._is_quiet(frame):
                self._held = frame
                return True
        return False

    def _is_quiet(self, frame: bytes) -> bool:
        """Take note of a keepalive that nobody needs to see."""
        if not frame.startswith(wire.KEEPALIVE):
            return False
        message = wire.parse_frame(frame)
        if not isinstance(message, wire.Keepalive) or message.wants_reply:
            return False
        self.keepalive(message)
        return True

    async def _ready(self, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        socket = self._pq.socket
        loop.add_reader(socket, _give, readable, None)
        try:
            async with asyncio.timeout(timeout_s):
                await readable
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(socket)
        return True

    def keepalive(self, message: wire.Keepalive) -> None:
        """Take note of a keepalive and answer it."""
        self._received = max(self._received, message.end_lsn)
        if message.wants_reply:
            self._send_status()

    def release(self, lsn: int) -> None:
        """Let the slot forget what lies before `lsn`; it never goes back."""
        if lsn <= self._flushed:
            return
        self._flushed = lsn
        self._received = max(self._received, lsn)
        if self._soon is None and self._timer is not None:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(_STATUS_SOON_S, self._send_status)

    def _tick(self) -> None:
        self._send_status()
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _send_status(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        now_us, asks = time.time_ns() // 1000, time.monotonic() - self.heard >= _ASK_S
        update = wire.status_update(self._flushed, self._received, now_us, asks=asks)
        try:
            self._pq.put_copy_data(update)
            self._pq.flush()
        except psycopg.Error:
            return  # the reader meets the same broken connection and says so

    async def close(self) -> None:
        """End the stream, so that the slot is free at once, and close the connection."""
        streaming, self._timer = self._timer, None
        try:
            if streaming is not None:
                streaming.cancel()
                self._send_status()
                await self._end_copy()
        finally:
            await self._connection.close()

    async def _end_copy(self) -> None:
        try:
            self._pq.put_copy_end()
            async with asyncio.timeout(_CLOSE_S_MAX):
                while True:
                    self._pq.flush()
                    size, _ = self._pq.get_copy_data(1)
                    if size == -1:
                        break
                    if size == 0:
                        await self._ready(_CLOSE_S_MAX)
                        self._pq.consume_input()
        except (psycopg.Error, OSError, TimeoutError, ValueError):
            return  # the server frees the slot when it sees the closed socket


_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COPY_BOTH, pq.ExecStatus.COMMAND_OK)


def _give(done: "asyncio.Future[None]", exc: Exception | None) -> None:
    if done.done():
        return
    if exc is None:
        done.set_result(None)
    else:
        done.set_exception(exc)


def _refused(doing: str, result: "pq.abc.PGresult | None") -> UnavailableError:
    """The server's refusal: its code, and for a busy slot its words, which hold the PID."""
    if result is None or not result.error_field(pq.DiagnosticField.SQLSTATE):
        return UnavailableError(Reason.DATABASE_UNAVAILABLE, f"cannot {doing}: the stream ended")
    code = bytes(result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    why = f"error {code}"
    if code == "55006":
        text = bytes(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"")
        why = text.decode(errors="replace")
    return UnavailableError(Reason.DATABASE_UNAVAILABLE, f"cannot {doing}: {why}")


def _unavailable(doing: str, exc: BaseException | None) -> UnavailableError:
    code = getattr(exc, "sqlstate", None)
    why = f"{type(exc).__name__} {code or ''}".rstrip() if exc else "no answer"
    return UnavailableError(Reason.DATABASE_UNAVAILABLE, f"cannot {doing}: {why}")
