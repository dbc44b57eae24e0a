"""A real Prometheus scrapes pages beyond loopback, with what docs/operations.md has one write."""

import asyncio
import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter

from fabric.config_web import WebConfig
from fabric.demo.process import free_port
from fabric.web.server import serving

ROOT = Path(__file__).parents[2]
BEYOND = "127.1:0"
"""Loopback, in a spelling that is no address to the settings: served as if others reached it."""
_SCRAPED_S_MAX = 60


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page's first step, its example name replaced by ours."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("### Prometheus on another machine\n")[2].partition("\n### ")[0]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    script = textwrap.dedent("   " + block.lstrip()).replace("host-a.example", "localhost")
    folder = tmp_path_factory.mktemp("papers")
    subprocess.run(["sh", "-e", "-c", script], cwd=folder, check=True, capture_output=True)
    return folder


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing; run deploy/setup, or apt-get install prometheus"
    return found


def installed(folder: Path, papers: Path, target: str) -> Path:
    """deploy/prometheus as its third step leaves it, with one agent as a target."""
    shutil.copytree(ROOT / "deploy" / "prometheus", folder)
    (folder / "tls").mkdir()
    for name in ("monitoring-ca.pem", "prometheus.pem", "prometheus.key"):
        shutil.copy(papers / name, folder / "tls")
    for file in (folder / "targets").iterdir():
        (group,) = yaml.safe_load(file.read_text())
        found = [{**group, "targets": [target]}] if file.stem == "agents" else []
        file.write_text(yaml.safe_dump(found))
    return folder / "remote.yml"


def hurried(config: Path) -> Path:
    """The same, asking each second."""
    text = config.read_text().replace("15s", "1s").replace("scrape_timeout: 10s", "")
    config.write_text(text)
    return config


@asynccontextmanager
async def prometheus(config: Path) -> AsyncIterator[Callable[[str], Any]]:
    """It runs while the block does; gives what asks its API."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )

    async def ask(path: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    try:
        yield ask
    finally:
        process.terminate()
        await process.wait()


async def scraped(ask: Callable[[str], Any]) -> dict[str, str]:
    """The target, once it was asked."""
    async with asyncio.timeout(_SCRAPED_S_MAX):
        while True:
            await asyncio.sleep(0.2)
            try:
                targets = (await ask("/api/v1/targets"))["data"]["activeTargets"]
            except (OSError, ValueError):
                continue
            if targets and targets[0]["health"] != "unknown":
                found: dict[str, str] = targets[0]
                return found


def settings(papers: Path) -> WebConfig:
    return WebConfig.model_validate(
        {
            "listen": BEYOND,
            "certificate": papers / "web.pem",
            "key": papers / "web.key",
            "client_ca": papers / "monitoring-ca.pem",
        }
    )


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("fabric_test", "Any.", registry=made).inc(3)
    return made


def test_promtool_accepts_the_remote_configuration(tmp_path: Path, papers: Path) -> None:
    config = installed(tmp_path / "prometheus", papers, "localhost:1")
    done = subprocess.run(
        [tool("promtool"), "check", "config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_prometheus_scrapes_with_the_documented_settings(
    tmp_path: Path, papers: Path
) -> None:
    async with serving(registry(), lambda: {}, settings(papers)) as port:
        config = hurried(installed(tmp_path / "prometheus", papers, f"localhost:{port}"))
        async with prometheus(config) as ask:
            target = await scraped(ask)
            assert (target["health"], target["lastError"]) == ("up", "")
            found = await ask("/api/v1/query?query=fabric_test_total")
            assert found["data"]["result"][0]["value"][1] == "3"


async def test_prometheus_with_a_servers_certificate_is_refused(
    tmp_path: Path, papers: Path
) -> None:
    async with serving(registry(), lambda: {}, settings(papers)) as port:
        config = hurried(installed(tmp_path / "prometheus", papers, f"localhost:{port}"))
        for kind in ("pem", "key"):
            shutil.copy(papers / f"web.{kind}", config.parent / "tls" / f"prometheus.{kind}")
        async with prometheus(config) as ask:
            assert (await scraped(ask))["health"] == "down"
