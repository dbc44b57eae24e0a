"""Look ahead in the log of one partition for what vouches for an old envelope."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence

from fabric.agent.anchor_machine import AnchorWindow, Cover, turn_of
from fabric.agent.host import Host
from fabric.agent.read_machine import Held
from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX
from fabric.model.names import HostId, Stream, Topic
from fabric.ports import Record
from fabric.seal import envelope as form
from fabric.seal.verify import VerifiedEnvelope

_ENOUGH = 4_096
"""A look ends after so many envelopes, when it found what it was for."""


class AnchorSearch:
    """The looks ahead of one reader."""

    def __init__(self, host: Host, topic: Topic, partition: int) -> None:
        self._host = host
        self._topic = topic
        self._partition = partition
        self._window: AnchorWindow | None = None

    async def cover(self, offset: int, verified: VerifiedEnvelope) -> Cover:
        """What the log behind `offset`, where this envelope stands, says of it.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        window = self._window
        if window is not None and window.first <= offset < window.until:
            found = _ask(window, verified)
            if found is not Cover.UNKNOWN or window.first == offset:
                return found
        window = await self._look(offset, verified)
        return _ask(window, verified)

    def forget(self) -> None:
        """More heads were carried: what was seen is to be looked at again."""
        self._window = None

    async def _look(self, offset: int, verified: VerifiedEnvelope) -> AnchorWindow:
        self._window = window = AnchorWindow(offset, self._host.view.members.anchor)
        _, end = await self._host.log.bounds(str(self._topic), self._partition)
        async with contextlib.aclosing(self._batches(offset)) as batches:
            async for records in batches:
                await asyncio.to_thread(self._add, window, records)
                if window.until >= end or window.is_full:
                    break
                is_found = _ask(window, verified) is not Cover.UNKNOWN
                if is_found and window.count >= _ENOUGH:
                    break
        return window

    async def _batches(self, offset: int) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from `offset` on; a log that stands still is an error, not a wait."""
        batches = aiter(self._host.log.read(str(self._topic), self._partition, offset))
        try:
            while True:
                async with asyncio.timeout(REQUEST_S_MAX):
                    batch = await anext(batches)
                yield batch
        except TimeoutError as exc:
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, "log does not go on") from exc
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

    def _add(self, window: AnchorWindow, records: Sequence[Record]) -> None:
        for record in records:
            window.until = record.offset + 1
            try:
                envelope = form.parse(record.value or b"")
                host = HostId.from_spiffe(envelope.header.sender, self._host.view.trust_domain)
            except PeerError:
                continue  # garbage vouches for nothing
            header = envelope.header
            stream = Stream(header.origin, header.topic, header.partition)
            digest, previous = envelope.hash, header.previous
            window.add(stream, host, turn_of(header), digest=digest, previous=previous)

    def carried(self, held: Iterable[Held]) -> set[tuple[str, bytes]]:
        """(sender, hash) of what was passed over and is a carried head by now."""
        view, found = self._host.view, set()
        for item in held:
            senders = {sender for sender, _ in item.seen}
            hosts = {sender: HostId.from_spiffe(sender, view.trust_domain) for sender in senders}
            found |= {
                (sender, digest)
                for sender, digest in item.seen
                if view.members.anchor(hosts[sender], digest) is not None
            }
        return found


def _ask(window: AnchorWindow, verified: VerifiedEnvelope) -> Cover:
    header, result = verified.envelope.header, verified.result
    stream = Stream(header.origin, header.topic, header.partition)
    return window.cover(
        stream, turn_of(header), verified.envelope.hash, host=result.host, expires=result.expires
    )
