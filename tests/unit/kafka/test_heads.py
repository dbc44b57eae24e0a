"""Heads are published when the log has moved, and a failure costs nothing but time."""

import asyncio
from dataclasses import replace

from fabric.attest.audit_chain import Link
from fabric.kafka.heads import publish_heads
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.names import AUDIT
from tests.fakes.log import MemoryLog
from tests.fakes.running import until

FIRST = Link(log=bytes(16), number=3, hash=bytes(32))


class Audit:
    link: Link | None = None
    fails = False

    def head(self) -> Link | None:
        if self.fails:
            raise OSError("full")
        return self.link


async def test_a_head_is_sent_once_for_every_state_of_the_log() -> None:
    log, audit, unsigned, refuse = MemoryLog(), Audit(), [], []

    def sign(link: Link) -> tuple[bytes, bytes]:
        if refuse:
            raise DeniedError(Reason.NOT_ATTESTED, "no result")
        return b"key", str(link.number).encode()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            publish_heads(log, audit, sign, interval_s=0.01, unsigned=unsigned.append)
        )
        await asyncio.sleep(0.05)
        assert log.values(AUDIT) == []
        audit.link = FIRST
        await until(lambda: unsigned[-3:] == [0, 0, 0])
        assert log.values(AUDIT) == [b"3"]
        refuse.append(True)
        audit.link = replace(FIRST, number=5)
        await until(lambda: unsigned[-1] == 2)
        refuse.clear()
        log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
        await asyncio.sleep(0.03)
        log.fail(None)
        await until(lambda: unsigned[-1] == 0)
        audit.fails, audit.link = True, replace(FIRST, number=9)
        await asyncio.sleep(0.03)
        audit.fails = False
        await until(lambda: log.values(AUDIT) == [b"3", b"5", b"9"])
        running.cancel()
