"""Sign and send the receipts of one partition: after the commit, beside the data, in no hurry.

Nothing here may hold a block back. A receipt is tried for a minute, then given up,
counted and audited; the next one covers what it said. Spec: docs/format.md section 13.
"""

import asyncio
from collections.abc import Mapping

from fabric.agent.host import Host
from fabric.agent.receipt_machine import Draft, Mark, ReceiptMachine
from fabric.model.errors import (
    DeniedError,
    FabricError,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.model.limits import RECEIPT_RETRY_S_MAX, RETRY_S_MAX, RETRY_S_MIN
from fabric.model.names import RECEIPTS, Stream
from fabric.policy.types import Dataset
from fabric.ports import StreamState
from fabric.seal.envelope import Header
from fabric.seal.receipt import Receipt, Received, receipt_key, write_receipt
from fabric.seal.suites import suite_of

_PASSING = frozenset({ReasonClass.WAIT, ReasonClass.RESEAL})
_SOON = frozenset({Reason.NOT_ATTESTED})


class Receipting:
    """The receipts of one partition while it is read.

    Args:
        interval_s: time between two receipts of one stream, seconds.
    """

    def __init__(self, host: Host, dataset: Dataset, *, interval_s: float) -> None:
        self._host = host
        self._dataset = dataset
        self._interval_s = interval_s
        self._machine = ReceiptMachine()
        host.telemetry.receipts_for(dataset.topic)

    async def resume(self, states: Mapping[Stream, StreamState]) -> None:
        """Take over what an earlier life left unsaid."""
        marks: dict[Stream, Mark] = {}
        for stream in states:
            data = await asyncio.to_thread(self._host.identity.state.get, _name(stream))
            mark = Mark.decode(data)
            if mark is not None:
                marks[stream] = mark
        self._machine.resume(states, marks, self._host.clock.now())

    def applied(self, header: Header, digest: bytes) -> None:
        """The block of this header is in the target."""
        self._machine.applied(
            Stream(header.origin, header.topic, header.partition),
            Received(epoch_id=header.epoch_id, counter=header.counter, hash=digest),
            after=header.after,
            upto=header.upto,
            now=self._host.clock.now(),
        )

    async def run(self) -> None:
        """Issue what is due, for ever."""
        while True:
            await asyncio.sleep(self._interval_s)
            for stream in self._machine.waiting:
                await self._issue(self._machine.take(stream))

    async def _issue(self, draft: Draft) -> None:
        why = await self._patiently(draft)
        topic = draft.stream.topic
        if why is not None:
            self._machine.lost(draft)
            self._host.telemetry.receipt_lost(topic, why)
            return
        self._host.telemetry.receipt_sent(topic)
        state = self._host.identity.state
        try:
            await asyncio.to_thread(state.remember, _name(draft.stream), draft.mark.encode())
        except UnavailableError:
            return  # then a restart says it again

    async def _patiently(self, draft: Draft) -> Reason | None:
        """Try until it is acknowledged, refused for good or a minute is over."""
        why, delay = Reason.GATEWAY_UNAVAILABLE, RETRY_S_MIN
        try:
            async with asyncio.timeout(RECEIPT_RETRY_S_MAX):
                while True:
                    try:
                        await self._send(draft)
                        return None
                    except FabricError as exc:
                        why = exc.reason
                        if class_of(why) not in _PASSING and why not in _SOON:
                            return why
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_S_MAX)
        except TimeoutError:
            return why

    async def _send(self, draft: Draft) -> None:
        """Sign with the keys of the result that holds now, and append."""
        host, now = self._host, self._host.clock.now()
        dataset = host.view.dataset(draft.stream.topic)
        if dataset is None:
            raise DeniedError(Reason.TOPIC_UNKNOWN, "dataset is in the policy no more")
        result = host.view.current(now)
        receipt = Receipt(
            reader=host.view.me.spiffe(host.view.trust_domain),
            result_id=result.id,
            suite=dataset.suite,
            stream=draft.stream,
            after=draft.after,
            upto=draft.upto,
            blocks=draft.blocks,
            applied=draft.applied,
            policy_version=host.view.policy.version,
        )
        signers = host.identity.keyring.signers(result, suite_of(dataset.suite))
        value = await asyncio.to_thread(write_receipt, receipt, signers)
        key = receipt_key(host.view.me, draft.stream)
        await host.log.append(RECEIPTS, 0, [(key, value)])


def _name(stream: Stream) -> str:
    return f"receipt/{stream}"
