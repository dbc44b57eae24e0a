"""`fabric agent run`: until it is asked to stop."""

import asyncio
from pathlib import Path

import pytest

from fabric.agent import core
from fabric.agent.run import run
from fabric.config import AgentConfig
from fabric.model.errors import UsageError
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.policy_files import files
from tests.fakes.policy_repository import Repository


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "device", lambda tcti: DrawerTpm())


async def test_it_runs_until_stop_is_set(tmp_path: Path) -> None:
    config, stop = AgentConfig.load(write_agent(tmp_path)), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(config, stop=stop))
        await asyncio.sleep(0.2)
        assert not task.done()
        stop.set()
        async with asyncio.timeout(5):
            await task


async def test_an_unfit_policy_ends_it_at_once(tmp_path: Path) -> None:
    config = AgentConfig.load(write_agent(tmp_path))
    content = files()
    del content["levels.yaml"]
    Repository(tmp_path / "policy", content).publish()
    with pytest.raises(UsageError):
        async with asyncio.timeout(5):
            await run(config)
