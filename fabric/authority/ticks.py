"""The tick of every second: time, last notice's number, hash of the list of all notices.

It goes to the members topic with the publisher, and over HTTPS to whoever asks with
the notices that he lacks, so that no broker can hide a notice for longer than it
takes to ask. The answer needs no secrecy and no trust in who hands it on: every
record in it is signed.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from fabric.attest.catchup import Catchup
from fabric.attest.keys import Signer
from fabric.attest.members import Heartbeat, heartbeat_record
from fabric.attest.notices import NO_NOTICES, listed_with
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.signed import Charge, SignedNotices
from fabric.model.errors import Reason, UnavailableError
from fabric.model.limits import PUBLISH_S_MAX

_READ_MAX = 1_000


class Ticks:
    """Makes ticks of what the ledger holds.

    Args:
        now: aware UTC.
        interval_s: a tick is given out over HTTPS for so long before a new one is signed.
    """

    def __init__(
        self,
        ledger: LedgerThread,
        signers: Sequence[Signer],
        *,
        now: Callable[[], datetime],
        interval_s: float,
    ) -> None:
        self._ledger = ledger
        self._signers = signers
        self._now = now
        self._interval = timedelta(seconds=interval_s)
        self._listed = [NO_NOTICES]
        self._lock = asyncio.Lock()
        self._open = asyncio.Event()
        self._signed: tuple[Heartbeat, tuple[bytes, bytes]] | None = None
        self._notices = SignedNotices(ledger, signers)

    def open(self) -> None:
        """Ledger and log agree, and so do the clocks: what is told now is never taken back."""
        self._open.set()

    async def opened(self) -> None:
        """Wait for `open`; raises UnavailableError NOT_READY."""
        try:
            async with asyncio.timeout(PUBLISH_S_MAX):
                await self._open.wait()
        except TimeoutError as exc:
            raise UnavailableError(
                Reason.NOT_READY,
                "authority has not read the members log and compared clocks yet",
            ) from exc

    async def beat(self, number: int, at: datetime | None = None) -> Heartbeat:
        """A heartbeat that names notice `number`, which the ledger holds; of now without `at`."""
        async with self._lock:
            await self._list_up_to(number)
        return Heartbeat(number=number, listed=self._listed[number], at=at or self._now())

    async def _list_up_to(self, number: int) -> None:
        while len(self._listed) <= number:
            after = len(self._listed) - 1
            found = await self._ledger.do(
                partial(Ledger.notices_after, number=after, count=_READ_MAX)
            )
            if not found:  # the caller names what the ledger does not hold
                raise UnavailableError(Reason.NOT_READY, f"notice {after + 1} is not in the ledger")
            for notice in found:
                self._listed.append(listed_with(self._listed[-1], notice))

    async def catch_up(self, after: int, charge: Charge) -> bytes:
        """What a view that holds every notice up to `after` lacks, and a tick.

        A bounded part of it: the tick names the last notice of all, so whoever still
        lacks some asks again.

        Args:
            charge: pays for notices that nobody has asked for yet.

        Raises:
            UnavailableError: NOT_READY, before ledger and log agree; what `charge` raises.
        """
        if not self._open.is_set():
            raise UnavailableError(Reason.NOT_READY, "authority does not know its notices yet")
        notices = await self._notices.after(after, charge)
        return Catchup(records=(*notices, await self._tick())).encode()

    async def _tick(self) -> tuple[bytes, bytes]:
        """The last tick, or a new one: questions cost at most one signature a second each."""
        last = await self._ledger.do(Ledger.last_number)
        known = self._signed
        if (
            known is None
            or known[0].number != last
            or not timedelta(0) <= self._now() - known[0].at < self._interval
        ):
            beat = await self.beat(last)
            known = self._signed = (beat, heartbeat_record(beat, self._signers))
        return known[1]
