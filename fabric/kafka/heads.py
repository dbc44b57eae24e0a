"""Publish the heads of this process's audit log, for ever, whatever happens on the way."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from fabric.attest.audit_chain import Link
from fabric.model.errors import FabricError
from fabric.model.names import AUDIT
from fabric.ports import Log


class Anchored(Protocol):
    """What of fabric.store.audit.FileAudit is needed here."""

    def head(self) -> Link | None:
        """The last line, on disk; blocks."""


async def publish_heads(
    log: Log,
    audit: Anchored,
    sign: Callable[[Link], tuple[bytes, bytes]],
    *,
    interval_s: float,
    unsigned: Callable[[int], None],
) -> None:
    """Sign and append the log's head every `interval_s` seconds when it has moved.

    Args:
        sign: key and value of a signed head, made now, in a thread; raises the error families.
        unsigned: told how many lines the last published head does not cover.

    A head that could not be sent is not kept: the next one covers more.
    """
    published = 0
    while True:
        await asyncio.sleep(interval_s)
        try:
            head = await asyncio.to_thread(audit.head)
        except OSError:  # the lines count as unsigned; the alert on them names the disk
            continue
        if head is None:
            continue
        if head.number != published:
            try:
                record = await asyncio.to_thread(sign, head)  # a token or TPM takes its time
                await log.append(AUDIT, 0, [record])
                published = head.number
            except FabricError:
                pass
        unsigned(head.number - published)
