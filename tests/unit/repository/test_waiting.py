"""A process waits a while for its first policy, and not at all for a wrong one."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from fabric.model.errors import PeerError, UnavailableError
from fabric.model.limits import POLICY_FIRST_S_MAX
from fabric.repository import waiting
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.repository.waiting import first_policy
from tests.fakes.policy_repository import Repository


def opened(folder: Path) -> tuple[PolicyRepository, Repository]:
    served = Repository(folder / "served").publish()
    anchor = folder / "root.json"
    anchor.write_bytes(served.anchor.read_bytes())
    return PolicyRepository(anchor, FolderFetcher(served.folder), folder / "state"), served


async def test_repository_that_comes_up_later_is_waited_for(tmp_path: Path) -> None:
    reader, served = opened(tmp_path)
    away = served.folder.rename(tmp_path / "away")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(first_policy(reader))
        await asyncio.sleep(0.15)
        assert not task.done()
        away.rename(served.folder)
    assert task.result().version == 7


async def test_waiting_has_an_end(tmp_path: Path) -> None:
    reader, served = opened(tmp_path)
    served.folder.rename(tmp_path / "away")
    with pytest.raises(UnavailableError):
        await first_policy(reader, wait_s=0.2)


async def test_waiting_asks_again_every_second_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, served = opened(tmp_path)
    served.folder.rename(tmp_path / "away")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    loop = SimpleNamespace(time=lambda: sum(slept))
    tools = {"get_running_loop": lambda: loop, "sleep": sleep, "to_thread": asyncio.to_thread}
    monkeypatch.setattr(waiting, "asyncio", SimpleNamespace(**tools))
    with pytest.raises(UnavailableError):
        await first_policy(reader)
    assert slept[:4] == [0.1, 0.2, 0.4, 0.8]
    assert {*slept[4:]} == {1.0}
    assert POLICY_FIRST_S_MAX - 1 <= sum(slept) <= POLICY_FIRST_S_MAX


async def test_wrong_repository_is_not_asked_again(tmp_path: Path) -> None:
    reader, served = opened(tmp_path)
    served.put("metadata/timestamp.json", b"{")
    async with asyncio.timeout(2):
        with pytest.raises(PeerError):
            await first_policy(reader)
