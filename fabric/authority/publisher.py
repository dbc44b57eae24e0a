"""Write the authority's statements through the gateway: notices, host states, heartbeats.

Notices go out in the order of their numbers, each until the gateway has acknowledged
it, before the heartbeat that names it. What a request needs at once (results, host
states) is appended beside that, with a deadline, by `append`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from fabric.attest.keys import Signer
from fabric.attest.members import (
    Heartbeat,
    HostState,
    Notice,
    heartbeat_record,
    host_record,
    result_record,
)
from fabric.attest.notices import read_member
from fabric.attest.result import Result
from fabric.authority.attest_machine import noticed_state
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.ledger_rows import KeyValue, Signed
from fabric.authority.signed import SignedNotices
from fabric.authority.ticks import Ticks
from fabric.kafka.single import record_at
from fabric.model.errors import FabricError, PeerError, Reason, UnavailableError, UsageError
from fabric.model.limits import PUBLISH_S_MAX, REQUEST_S_MAX, RETRY_S_MIN
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.policy.types import Trust
from fabric.ports import Log, Record
from fabric.store.clock import SigningClock

_log = logging.getLogger(__name__)
_RETRY_S_MAX = 2.0
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Time of a heartbeat that is older than every view: it only asks brokers for their clock."""
_BATCH = 12
"""Notices in one append: up to 50 KiB each with their heads and host states."""


class Publisher:
    """The authority's side of the members and results topics.

    Args:
        clock: what the ticks are dated by.
        interval_s: time between two heartbeats, seconds.
    """

    def __init__(
        self,
        log: Log,
        ledger: LedgerThread,
        signers: Sequence[Signer],
        *,
        ticks: Ticks,
        clock: SigningClock,
        interval_s: float,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._ticks = ticks
        self._clock = clock
        self._signers = signers
        self._notices = SignedNotices(ledger, signers)
        self._interval_s = interval_s
        self._wake = asyncio.Event()
        self._sent = asyncio.Condition()
        self._sent_number = -1
        self.last_beat: datetime | None = None
        """When the last heartbeat was acknowledged."""
        self._failure: str | None = "has not reached the gateway yet"

    @property
    def why_not_ready(self) -> str | None:
        """Why the last heartbeat did not pass, or None when it did."""
        return self._failure

    async def run(self, trust: Trust) -> None:
        """Make ledger and log agree, then publish for ever."""
        await self._patiently(lambda: self._reconcile(trust))
        while True:
            self._wake.clear()
            await self._patiently(self._beat)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def published(self, number: int) -> None:
        """Send what waits now, and wait until notice `number` is in the log.

        Raises:
            UnavailableError: GATEWAY_UNAVAILABLE; it goes out as soon as a gateway answers.
        """
        self._wake.set()
        try:
            async with asyncio.timeout(PUBLISH_S_MAX), self._sent:
                await self._sent.wait_for(lambda: self._sent_number >= number)
        except TimeoutError as exc:
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE, f"notice {number} is not published yet, but kept"
            ) from exc

    async def attested(self, result: Result, state: HostState, trust_domain: str) -> bytes:
        """Publish a result, then the host state that makes it current; the result's bytes.

        Raises:
            UnavailableError: GATEWAY_UNAVAILABLE; the same may be published again.
        """
        key, value = result_record(result, trust_domain, self._signers)
        try:
            async with asyncio.timeout(PUBLISH_S_MAX):
                await self._append(RESULTS, [(key, value)])
                await self._append(MEMBERS, [host_record(state, self._signers)])
        except TimeoutError as exc:
            raise UnavailableError(
                Reason.GATEWAY_UNAVAILABLE, "no gateway takes the result now; attest again"
            ) from exc
        await self._ledger.do(partial(Ledger.in_log, state=state))
        return value

    async def _append(self, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Append until it is acknowledged; the caller's deadline ends it."""
        delay = RETRY_S_MIN
        while True:
            try:
                await self._log.append(topic, 0, records)
                return
            except FabricError as exc:
                # Our own record is refused only by a gateway whose policy is not ours yet.
                _log.warning("append to %s failed: %s", topic, exc)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_S_MAX)

    async def _patiently(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step until it succeeds; UsageError (our own fault) ends the process."""
        delay = RETRY_S_MIN
        while True:
            try:
                await step()
            except UsageError:
                raise
            except FabricError as exc:
                self._failure = str(exc)
                _log.warning("publishing waits: %s", exc)
            else:
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_S_MAX)

    async def _reconcile(self, trust: Trust) -> None:
        """Take in notices that only the log has; mark those it lacks for publication."""
        found: list[int] = []
        states: dict[HostId, HostState] = {}
        heartbeat = 0
        async for statement in self._statements(trust):
            if isinstance(statement, Notice):
                await self._ledger.do(partial(Ledger.adopt, notice=statement))
                found.append(statement.number)
            elif isinstance(statement, Heartbeat):
                heartbeat = max(heartbeat, statement.number)
            else:
                states[statement.host] = statement
                await self._check_tally(statement)
        await self._ledger.do(partial(Ledger.unpublish, but=found))
        await self._ledger.do(partial(Ledger.all_in_log, states=[*states.values()]))
        if heartbeat > await self._ledger.do(Ledger.last_number):
            raise UsageError(
                Reason.FORK,
                f"a heartbeat names notice {heartbeat}, which neither ledger nor log has;"
                " restore the newest copy of the authority's folder",
            )

    async def _agree(self, last: int) -> None:
        """Hold our clock against that of the brokers, before a time of it is signed.

        What they are asked to store is a heartbeat of no time: nobody can use it, whichever
        clock is wrong, and every gateway takes it. Brokers that lie gain a stand-still.
        """
        beat = await self._ticks.beat(last, NO_TIME)
        asked, since = heartbeat_record(beat, self._signers), self._clock.wall()
        offset = (await self._log.append(MEMBERS, 0, [asked])).offset
        stored = await record_at(self._log, MEMBERS, 0, offset)
        if stored is None or (stored.key, stored.value) != asked:
            raise UnavailableError(
                Reason.BROKER_UNAVAILABLE, "brokers do not show the record that they took"
            )
        self._clock.compare(stored.timestamp, since=since)
        self._ticks.open()

    async def _check_tally(self, state: HostState) -> None:
        if await self._ledger.do(partial(Ledger.is_behind, state=state)):
            _log.warning(
                "%s attested after this ledger was copied: its tally begins anew", state.host
            )

    async def _statements(self, trust: Trust) -> AsyncIterator[HostState | Notice | Heartbeat]:
        """What is in the members log now and signed by us; other records are passed over."""
        position, end = await self._log.bounds(MEMBERS, 0)
        if position >= end:
            return
        async with contextlib.aclosing(_batches(self._log, position)) as batches:
            async for batch in batches:
                for record in batch:
                    position = record.offset + 1
                    statement = _statement(record, trust)
                    if statement is not None:
                        yield statement
                if position >= end:
                    return

    async def _beat(self) -> None:
        """Send the notices that wait, then a heartbeat that names the last one."""
        waiting, last = await self._ledger.do(lambda ledger: ledger.unpublished_and_last())
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            signed = self._notices.sign(batch)
            await self._log.append(MEMBERS, 0, self._records(batch, signed))
            await self._notices.published(signed)
        async with self._sent:
            self._sent_number = last
            self._sent.notify_all()
        if self._clock.is_in_doubt:
            await self._agree(last)
        beat = await self._ticks.beat(last)
        asked, since = heartbeat_record(beat, self._signers), self._clock.wall()
        stored = await self._log.append(MEMBERS, 0, [asked])
        self._failure, self.last_beat = None, beat.at
        self._clock.heed(stored.at, since=since)
        if self._clock.is_in_doubt:  # no second tick before the brokers themselves have spoken
            await self._agree(last)

    def _records(self, notices: Sequence[Notice], signed: Signed) -> Sequence[KeyValue]:
        return [
            record
            for notice in notices
            for record in (
                signed.records[notice.number],
                host_record(noticed_state(notice), self._signers),
            )
        ]


def _statement(record: Record, trust: Trust) -> HostState | Notice | Heartbeat | None:
    """Read one record of the members log; None when it is not ours, whoever put it there."""
    try:
        return read_member(record.key or b"", record.value or b"", trust)
    except PeerError as exc:
        _log.warning("members log holds a foreign record at offset %d: %s", record.offset, exc)
        return None


async def _batches(log: Log, position: int) -> AsyncGenerator[Sequence[Record], None]:
    """Batches of the members log; a reader that stands still is an error, not a wait."""
    batches = aiter(log.read(MEMBERS, 0, position))
    try:
        while True:
            async with asyncio.timeout(REQUEST_S_MAX):
                batch = await anext(batches)
            yield batch
    except TimeoutError as exc:
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, "members log does not arrive") from exc
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()  # the reader's connection goes with it
