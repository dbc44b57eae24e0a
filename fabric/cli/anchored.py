"""Whether a block can not have been made up later: a proof is always a late reader.

A host whose trust has ended and a broker together could date a block back. So a block of
such a sender counts only when it is anchored: docs/format.md section 9, MUST-9.36 to 9.38.
"""

from contextlib import aclosing
from datetime import datetime

from fabric.admit.proof import Unproved
from fabric.admit.reader import is_trusted_still
from fabric.admit.view import View
from fabric.agent.anchor_machine import AnchorWindow, Cover, turn_of
from fabric.cli.topics import records
from fabric.model.errors import FabricError, Reason
from fabric.model.names import HostId, Stream
from fabric.ports import Log, Record
from fabric.seal import envelope as form
from fabric.seal.verify import VerifiedEnvelope


async def anchored(
    log: Log, view: View, record: Record, verified: VerifiedEnvelope, *, now: datetime
) -> str:
    """Why the block existed when it says so, in words.

    Raises:
        Unproved: `anchor`, UNANCHORED or SUPERSEDED.
        UnavailableError: BROKER_UNAVAILABLE.
    """
    header, result = verified.envelope.header, verified.result
    stream = Stream(header.origin, header.topic, header.partition)
    window = AnchorWindow(record.offset, view.members.anchor)
    cover, seen = Cover.UNKNOWN, 0
    items = records(log, record.topic, record.partition, since=record.offset)
    async with aclosing(items) as following:
        async for item in following:
            seen += _add(window, item, view.policy.trust.trust_domain)
            cover = window.cover(
                stream,
                turn_of(header),
                verified.envelope.hash,
                host=result.host,
                expires=result.expires,
            )
            if cover is Cover.COVERED or window.is_full:
                break
    if cover is Cover.COVERED:
        return f"a head that the authority carried leads back to it over {seen} envelopes"
    if is_trusted_still(verified, view, now):
        return "its sender is trusted still, under the result that the block names"
    if cover is Cover.ABANDONED:
        raise Unproved("anchor", Reason.SUPERSEDED, "its sender went on without this block")
    raise Unproved("anchor", Reason.UNANCHORED, "nothing shows that it existed then")


def _add(window: AnchorWindow, record: Record, trust_domain: str) -> int:
    try:
        envelope = form.parse(record.value or b"")
        host = HostId.from_spiffe(envelope.header.sender, trust_domain)
    except FabricError:
        return 0  # garbage vouches for nothing
    header = envelope.header
    stream = Stream(header.origin, header.topic, header.partition)
    window.add(stream, host, turn_of(header), digest=envelope.hash, previous=header.previous)
    return 1
