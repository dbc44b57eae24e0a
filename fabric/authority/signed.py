"""Signed records of notices, made once for each set of keys and kept in the ledger.

A notice never changes, so its signatures serve for ever: what is published is kept with
that, and whoever asks over HTTPS has it as it is. What a ledger lacks (it is new, was taken
over from the log, or the verifier's keys were changed) is signed when it is first asked for.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256

from fabric.attest.keys import Signer
from fabric.attest.members import Notice, notice_record
from fabric.authority.ledger import Ledger, LedgerThread
from fabric.authority.ledger_rows import KeyValue, Signed

Charge = Callable[[int], None]
"""Takes so many signatures from the asker's share; raises UnavailableError OVERLOADED."""


class SignedNotices:
    """The notices of a ledger, signed by these keys alone, whoever signed them before."""

    def __init__(self, ledger: LedgerThread, signers: Sequence[Signer]) -> None:
        self._ledger = ledger
        self._signers = signers
        self._keys = sha256(b"".join(key.public.thumbprint for key in signers)).digest()
        self._turn = asyncio.Lock()

    def sign(self, notices: Sequence[Notice]) -> Signed:
        """Sign what is about to be published; waits for nobody who asks."""
        return self._signed({each.number: notice_record(each, self._signers) for each in notices})

    async def published(self, signed: Signed) -> None:
        """These are in the log."""
        await self._ledger.do(partial(Ledger.published, numbers=[*signed.records], signed=signed))

    async def after(self, number: int, charge: Charge) -> Sequence[KeyValue]:
        """Records of the notices above `number`, in their order, as many as one answer holds.

        Raises:
            UnavailableError: OVERLOADED, the asker has no share left for what must be signed.
        """
        found = await self._found(number)
        if any(isinstance(each, Notice) for each in found):
            del found  # many may wait
            async with self._turn:
                await self._sign_missing(number, charge)
            found = await self._found(number)
        return _before_a_gap(found)

    async def _found(self, number: int) -> Sequence[KeyValue | Notice]:
        return await self._ledger.do(partial(Ledger.signed_after, number=number, keys=self._keys))

    async def _sign_missing(self, number: int, charge: Charge) -> None:
        """One after another in a thread: nothing else of the authority waits for a signature."""
        missing = [each for each in await self._found(number) if isinstance(each, Notice)]
        if missing:  # whoever had the turn before may have signed them
            charge(len(missing))
            made = {
                each.number: await asyncio.to_thread(notice_record, each, self._signers)
                for each in missing
            }
            await self._ledger.do(partial(Ledger.published, numbers=(), signed=self._signed(made)))

    def _signed(self, records: Mapping[int, KeyValue]) -> Signed:
        return Signed(keys=self._keys, records=records)


def _before_a_gap(found: Sequence[KeyValue | Notice]) -> Sequence[KeyValue]:
    """Records up to the first notice that is still to be signed: one that has just come."""
    records: list[KeyValue] = []
    for each in found:
        if isinstance(each, Notice):
            break
        records.append(each)
    return records
