"""What an agent is made of, while nobody answers."""

import asyncio
import contextlib
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from fabric.agent.core import Core
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid, Reason, UsageError
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.policy_files import documents, files
from tests.fakes.policy_repository import Repository
from tests.fakes.running import until

CAPTURE = """
[[capture]]
source = "registry"
kind = "sqlite"
url = "source.db"
[capture.tables]
"residents" = "secret.G01.residents"
"""


@contextlib.asynccontextmanager
async def opened(config: Path):
    core = Core(AgentConfig.load(config), tpm=DrawerTpm())
    async with contextlib.AsyncExitStack() as stack:
        await core.open(stack)
        async with asyncio.TaskGroup() as tasks:
            running = []
            core.start(lambda part: running.append(tasks.create_task(part)))
            yield core
            await core.stop()
            for task in running:
                task.cancel()


async def test_an_authority_that_is_away_shows_and_everything_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fabric.agent.core")
    config = write_agent(tmp_path, more=CAPTURE)
    async with opened(config) as core:
        (port,) = re.findall(r"pages on port (\d+)", caplog.text)
        await until(lambda: "authority_unavailable" in core.board.problems.get("attestation", ""))
        await until(lambda: "policy" not in core.board.problems)
        assert core.board.problems["capture registry"] == "not_ready: starting"
        async with aiohttp.ClientSession() as web:
            async with web.get(f"http://127.0.0.1:{port}/readyz") as answer:
                assert answer.status == 503
                parts = (await answer.json())["parts"]
            async with web.get(f"http://127.0.0.1:{port}/livez") as answer:
                assert answer.status == 200
            async with web.get(f"http://127.0.0.1:{port}/metrics") as answer:
                text = await answer.text()
        assert parts["policy"] is None
        assert "authority_unavailable" in parts["attestation"]
        assert "fabric_policy_version 7.0" in text
        assert 'fabric_attestation_attempts_total{result="unavailable"}' in text


async def test_a_folder_serves_one_agent(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    async with opened(config):
        other = Core(AgentConfig.load(config), tpm=DrawerTpm())
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(ConfigInvalid, match="another agent"):
                await other.open(stack)
    async with opened(config):
        pass  # the lock went with its agent


async def test_a_policy_that_does_not_load_is_our_users_error(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    spoilt = {**files(), "levels.yaml": b"no: list"}
    Repository(tmp_path / "policy", spoilt).publish()
    core = Core(AgentConfig.load(config), tpm=DrawerTpm())
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(UsageError) as caught:
            await core.open(stack)
    assert caught.value.reason is Reason.POLICY_INVALID


async def test_a_newer_policy_is_taken_and_a_broken_one_is_shown(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    served = Repository(tmp_path / "policy", version=8)
    async with opened(config) as core:
        served.publish()
        await until(lambda: core._view.policy.version == 8)
        Repository(tmp_path / "policy", version=5).publish()
        await until(lambda: "replayed" in core.board.problems.get("policy", ""))
        assert core._view.policy.version == 8
        served.publish()
        await until(lambda: "policy" not in core.board.problems)


async def test_changed_trust_is_refused_and_looks_wrong_for_as_long_as_it_stands(
    tmp_path: Path,
) -> None:
    config = write_agent(tmp_path)
    async with opened(config) as core:
        before = core._view.policy
        changed = documents()
        changed["policy.yaml"]["trust"]["trust_domain"] = "other.example"
        Repository(tmp_path / "policy", files(changed), version=8).publish()
        await until(lambda: "restart" in core.board.problems.get("policy", ""))
        await core._policing.look()
        assert "restart" in core.board.problems["policy"]
        assert core._view.policy is before


async def test_a_renewed_timestamp_moves_the_end_of_the_policy_in_force(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    served = Repository(tmp_path / "policy")
    served.ends["timestamp"] = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    served.time += 1
    served.build()
    served.write()
    async with opened(config) as core:
        assert core._view.policy.expires == served.ends["timestamp"]
        served.ends["timestamp"] += timedelta(days=1)
        served.time += 1
        served.rebuild_timestamp()
        served.write()
        await until(lambda: core._view.policy.expires == served.ends["timestamp"])
        assert core._view.policy.version == 7


async def test_an_outbox_without_topics_publishes_nothing(tmp_path: Path) -> None:
    async with opened(write_agent(tmp_path)) as core:
        with pytest.raises(UsageError, match=r"outbox\.topics"):
            await core.outbox()
