"""An agent's heads: signed with the keys of its result, and admitted."""

import asyncio
from pathlib import Path

from fabric.agent.auditing import publish_host_heads
from fabric.attest.audit_head import parse_head, verify_head
from fabric.model.names import AUDIT
from fabric.store.audit import FileAudit
from tests.fakes.platform import B, Platform, TestHost
from tests.fakes.running import running, until


async def test_heads_of_an_agent_verify_and_follow_its_log(
    platform: Platform, b: TestHost, tmp_path: Path
) -> None:
    platform.admit(B)
    audit = FileAudit(tmp_path / "audit.jsonl", platform.clock, failed=lambda: None)
    async with running() as parts:
        await parts.view(b)
        parts.spawn(publish_host_heads(b.host, audit, b.metrics, 0.01))
        await until(lambda: b.metric("fabric_audit_unsigned_lines") == 1)
        assert platform.log.values(AUDIT) == [], "no result, no head"
        b.attest()
        await until(lambda: len(platform.log.values(AUDIT)) == 1)
        audit.write("event", {})
        await until(lambda: len(platform.log.values(AUDIT)) == 2)
        await until(lambda: b.metric("fabric_audit_unsigned_lines") == 0)
        await asyncio.sleep(0.05)
    records = platform.log.records[AUDIT, 0]
    heads = [
        verify_head(
            parse_head(record.key or b"", record.value or b""),
            platform.policy.trust,
            platform.members.result,
        )
        for record in records
    ]
    assert [head.link.number for head in heads] == [1, 2]
    assert heads[-1].link == audit.head()
    assert heads[-1].component == str(B)
