"""The shell of a gateway's audit: its file, the loop that flushes, the heads it publishes."""

import asyncio
import ssl
from collections.abc import Callable

from fabric.config import GatewayConfig
from fabric.gateway.audit import RefusalAudit, head_signer
from fabric.gateway.parts import Parts
from fabric.kafka.heads import publish_heads
from fabric.kafka.log import KafkaLog
from fabric.metrics import GatewayMetrics
from fabric.model.counting import FLUSH_S
from fabric.ports import Clock
from fabric.repository.audited import PolicyAudit
from fabric.store.audit import Bounds, FileAudit
from fabric.store.files import own_folder

FILE = "audit.jsonl"


class Auditing:
    """One gateway's audit log.

    Attributes:
        refusals: what connections tell of refusals.
        policy: what is told of the policy.

    Raises:
        ConfigInvalid: the folder or the key cannot be used, with the remedy.
    """

    def __init__(self, config: GatewayConfig, metrics: GatewayMetrics, clock: Clock) -> None:
        self._config = config
        self._metrics = metrics
        self._sign = head_signer(config.tls.certificate, config.tls.key, clock.now)
        folder = config.gateway.folder
        own_folder(folder, "gateway.folder")
        bounds = Bounds(
            file_bytes_max=config.audit.file_bytes_max, files_max=config.audit.files_max
        )
        self._file = FileAudit(
            folder / FILE,
            clock,
            failed=metrics.audit_failed,
            written=metrics.audit_written,
            bounds=bounds,
        )
        self.refusals = RefusalAudit(self._file)
        self.policy = PolicyAudit(self._file, clock)
        self._file.write("gateway_started", {"listen": str(config.gateway.listen)})

    async def run(self, parts: Parts) -> None:
        """Write what is due and publish heads, for ever."""
        log = self._own_log(parts.upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._flush())
                group.create_task(
                    publish_heads(
                        log,
                        self._file,
                        self._sign,
                        interval_s=self._config.audit.head_interval_s,
                        unsigned=self._metrics.audit_unsigned,
                    )
                )
        finally:
            await log.close()

    def _own_log(self, context: Callable[[], ssl.SSLContext]) -> KafkaLog:
        """A gateway writes its own heads to the brokers: there is no door above it."""
        brokers = self._config.broker.bootstrap
        return KafkaLog(brokers, brokers, context, client_id="fabric-gateway-audit")

    async def _flush(self) -> None:
        while True:
            self.refusals.flush()
            await asyncio.sleep(FLUSH_S)

    def close(self) -> None:
        """Write what was only counted, and that the gateway stops."""
        self.refusals.flush()
        self._file.write("gateway_stopped", {})
        self._file.close()
