"""The process: what stops it before it serves, and that it stops when asked."""

import asyncio
from pathlib import Path

import pytest

from fabric.config import GatewayConfig
from fabric.demo.process import free_port
from fabric.gateway.cluster import Directory
from fabric.gateway.run import _probe, run
from fabric.model.errors import UsageError
from tests.fakes.gateway_doors import Pki

SAMPLE = Path(__file__).parents[3] / "deploy" / "gateway.toml"


def config(folder: Path, pki: Pki) -> GatewayConfig:
    certificate, key = pki.platform("gateway")
    path = folder / "gateway.toml"
    path.write_text(
        f"""
[gateway]
listen = "127.0.0.1:{free_port()}"
advertised = ["localhost:1"]
side_listen = "127.0.0.1:{free_port()}"
[tls]
certificate = "{certificate}"
key = "{key}"
ca = "{pki.ca}"
[broker]
bootstrap = ["localhost:1"]
[policy]
root = "1.root.json"
repository = "policy"
state = "state"
"""
    )
    return GatewayConfig.load(path)


async def test_without_a_policy_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"policy\.root"):
        await run(config(tmp_path, Pki(tmp_path)))


def test_the_sample_configuration_loads() -> None:
    loaded = GatewayConfig.load(SAMPLE)
    assert loaded.gateway.advertised
    assert loaded.policy.state.is_absolute()


async def test_the_probe_finds_out_which_gateways_live() -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    live, dead = ("127.0.0.1", port), ("127.0.0.1", 1)
    directory = Directory([dead, live])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_probe(directory))
        async with asyncio.timeout(5):
            while directory._live != (live,):
                await asyncio.sleep(0.01)
        task.cancel()
    server.close()


async def test_a_single_gateway_probes_nobody() -> None:
    async with asyncio.timeout(1):
        await _probe(Directory([("127.0.0.1", 1)]))
