"""An agent as its pages show it: the real metrics and board, served by the real server."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import generate_latest

from fabric.agent.supervisor import Board
from fabric.cli.page import parse_page
from fabric.cli.samples import Page
from fabric.metrics import AgentMetrics
from fabric.model.names import Topic
from fabric.web.server import serving
from tests.fakes.policy_files import OPEN_TOPIC, TOPIC, certificate, documents, files, policy
from tests.fakes.policy_repository import Repository

SECRET, OPEN = Topic.parse(TOPIC), Topic.parse(OPEN_TOPIC)
SENDING = """
[[capture]]
source = "registry"
kind = "sqlite"
url = "a.db"
[capture.tables]
residents = "secret.G01.residents"
"""
APPLYING = """
[[apply]]
kind = "sqlite"
url = "b.db"
[apply.tables]
"secret.G01.residents" = "residents"
"public.G01.wards" = "wards"
"""


class FakeAgent:
    """What an agent tells; change it, then look."""

    def __init__(self) -> None:
        self.board = Board()
        self.metrics = AgentMetrics([*policy().rules.values()])

    def page(self, at: datetime | None = None) -> Page:
        """Its two pages, as a reader parses them at `at`, which is now unless told."""
        body = {"status": "any", "parts": dict(self.board.parts)}
        metrics = generate_latest(self.metrics.registry)
        return parse_page(metrics, json.dumps(body).encode(), at or datetime.now(UTC))

    def attested(self, issued: datetime, expires: datetime) -> None:
        """It has a result."""
        self.metrics.attested(4, issued, expires)

    def applies(self, *topics: Topic) -> None:
        """Every part of these applies is well, and nothing lags."""
        for topic in topics:
            self.board.show(f"apply {topic}:0", None)
            self.lag(topic, 0, 0.0)

    def lag(
        self, topic: Topic, records: int, seconds: float, *, partition: int = 0, ago: float = 0.0
    ) -> None:
        """How far a partition is behind, as it was measured `ago` seconds before now."""
        measured = time.time() - ago
        self.metrics.lag(topic, partition, records=records, seconds=seconds, measured=measured)

    def captures(
        self, source: str, seconds: float, log_bytes: int, *, ago: float = 0.0, rows_left: int = 0
    ) -> None:
        """How far a source is ahead, as it was measured `ago` seconds before now."""
        self.metrics.capture_lag(source, seconds=seconds, log_bytes=log_bytes, rows_left=rows_left)
        self.metrics.capture_alive(source, datetime.now(UTC) - timedelta(seconds=ago))

    @contextmanager
    def serve(self) -> Iterator[int]:
        """Answer on a port of its own while the block runs, in a thread of its own."""
        ready, stop = threading.Event(), asyncio.Event()
        told: list[int] = []
        loop = asyncio.new_event_loop()

        async def run() -> None:
            async with serving(self.metrics.registry, lambda: self.board.parts) as port:
                told.append(port)
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        try:
            assert ready.wait(10)
            yield told[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()


def write_config(
    folder: Path, parts: str = APPLYING, *, port: int = 9, host: str = "G02/health/host-b"
) -> Path:
    """An agent.toml with a policy that lives long; nothing listens where it points."""
    changed = documents()
    for name, document in changed.items():
        if name.startswith("approvals/"):
            document["not_after"] = "2099-01-01T00:00:00Z"
    Repository(folder / "policy", files(changed)).publish()
    (folder / "ca.pem").write_bytes(certificate())
    config = folder / "agent.toml"
    config.write_text(
        f"""
[agent]
host = "{host}"
folder = "state"
[policy]
root = "policy/metadata/1.root.json"
repository = "policy"
state = "state/policy"
[authority]
url = "https://127.0.0.1:9"
[tls]
ca = "ca.pem"
[gateway]
bootstrap = ["127.0.0.1:9"]
[broker]
bootstrap = ["127.0.0.1:9"]
[tpm]
tcti = "swtpm:path={folder}/absent.sock"
[web]
listen = "127.0.0.1:{port}"
{parts}
"""
    )
    return config


__all__ = ["APPLYING", "OPEN", "SECRET", "SENDING", "FakeAgent", "write_config"]
