"""An agent's audit log: opened with its settings, its heads signed with the attested keys."""

from fabric.agent.host import Host
from fabric.attest.audit_chain import Link
from fabric.attest.audit_head import Head, head_record
from fabric.config import AgentConfig
from fabric.kafka.heads import publish_heads
from fabric.metrics import AgentMetrics
from fabric.ports import Clock
from fabric.store.audit import Bounds, FileAudit

FILE = "audit.jsonl"


def open_audit(config: AgentConfig, clock: Clock, metrics: AgentMetrics) -> FileAudit:
    """The log in the agent's folder; raises ConfigInvalid."""
    bounds = Bounds(file_bytes_max=config.audit.file_bytes_max, files_max=config.audit.files_max)
    audit = FileAudit(
        config.agent.folder / FILE,
        clock,
        failed=metrics.audit_failed,
        written=metrics.audit_written,
        bounds=bounds,
    )
    audit.write("agent_started", {"host": str(config.agent.host)})
    return audit


async def publish_host_heads(
    host: Host, audit: FileAudit, metrics: AgentMetrics, interval_s: float
) -> None:
    """Publish the log's heads for ever; a host without a current result signs none."""

    def sign(link: Link) -> tuple[bytes, bytes]:
        now = host.clock.now()
        result = host.view.current(now)
        head = Head(component=str(host.view.me), link=link, at=now, result_id=result.id)
        return head_record(head, host.identity.keyring.all_signers(result))

    host.telemetry.board.show("audit", None)
    await publish_heads(
        host.log, audit, sign, interval_s=interval_s, unsigned=metrics.audit_unsigned
    )
