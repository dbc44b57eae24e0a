"""What an agent is made of, while nobody answers."""

import asyncio
import contextlib
import json
import logging
import math
import re
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from fabric.agent import supervisor
from fabric.agent.core import Core
from fabric.agent.life import Life
from fabric.agent.own import lock
from fabric.agent.subscription import Subscription
from fabric.config import AgentConfig
from fabric.model.change import ZERO
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError, UsageError
from fabric.model.names import HostId, Topic
from fabric.ports import StreamState
from fabric.repository.client import PolicyRepository
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.policy_files import READER, TOPIC, documents, files
from tests.fakes.policy_repository import Repository
from tests.fakes.running import until
from tests.fakes.sealing import block
from tests.fakes.verifier import Verifier

CAPTURE = """
[[capture]]
source = "registry"
kind = "sqlite"
url = "source.db"
[capture.tables]
"residents" = "secret.G01.residents"
[[apply]]
kind = "sqlite"
url = "first.db"
tables = { "secret.G01.notes" = "notes" }
[[apply]]
name = "copies"
kind = "sqlite"
url = "second.db"
tables = { "secret.G01.notes" = "notes" }
"""


@contextlib.asynccontextmanager
async def opened(config: Path):
    core = Core(AgentConfig.load(config), tpm=DrawerTpm())
    async with contextlib.AsyncExitStack() as stack:
        await core.open(stack)
        async with asyncio.TaskGroup() as tasks:
            running: list[asyncio.Task[None]] = []

            def spawn(part: Coroutine[object, object, None]) -> asyncio.Task[None]:
                running.append(tasks.create_task(part))
                return running[-1]

            core.start(spawn)
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
        for kind, name in (("source", "registry"), ("target", "0"), ("target", "copies")):
            asked = {"kind": kind, "database": name}
            up = core._kept.metrics.registry.get_sample_value("fabric_database_up", asked)
            assert up is not None
            assert math.isnan(up)
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
        await until(lambda: core._current.view.policy.version == 8)
        Repository(tmp_path / "policy", version=5).publish()
        await until(lambda: "replayed" in core.board.problems.get("policy", ""))
        assert core._current.view.policy.version == 8
        served.publish()
        await until(lambda: "policy" not in core.board.problems)


def other_trust(folder: Path) -> None:
    """Publish version 8, whose verifier has other keys, and which approves one host less."""
    changed = documents()
    changed["policy.yaml"]["trust"]["verifier"]["keys"] = _keys(Verifier())
    del changed[f"approvals/{READER}.yaml"]
    Repository(folder / "policy", files(changed), version=8).publish()


def _keys(verifier: Verifier) -> list[dict[str, object]]:
    return [{"alg": int(alg), "public": key.hex()} for alg, key in verifier.trust.verifier_keys]


async def test_other_trust_anchors_begin_a_new_life_with_the_rest_of_their_policy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fabric.agent.core")
    config = write_agent(tmp_path)
    async with opened(config) as core:
        first = core._current
        other_trust(tmp_path)
        await until(lambda: core._current is not first)
        assert HostId.parse(READER) not in core._current.view.policy.approvals
        assert core._current.view.policy.version == 8
        await until(lambda: core.board.parts.get("policy", "none yet") is None)
        assert "trust" not in core.board.problems
        assert not first._tasks
        with pytest.raises(ConfigInvalid, match="another agent"):
            lock(tmp_path / "state" / "agent.lock")
    assert len(re.findall(r"pages on port", caplog.text)) == 1
    told = [json.loads(line) for line in (tmp_path / "state/audit.jsonl").read_text().splitlines()]
    assert [(t["event"], t["fields"].get("version")) for t in told if "policy" in t["event"]] == [
        ("policy_taken", 7),
        ("policy_taken", 8),
    ]


async def test_a_life_that_cannot_begin_says_so_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_HOLD_S", 0.05)
    config = write_agent(tmp_path)
    ca = tmp_path / "ca.pem"
    async with opened(config) as core:
        ca.rename(tmp_path / "away.pem")
        other_trust(tmp_path)
        await until(lambda: "config_invalid" in core.board.problems.get("trust", ""))
        assert core.board.parts.keys() == {"trust"}  # nothing else runs
        (tmp_path / "away.pem").rename(ca)
        await until(lambda: "trust" not in core.board.problems)
        assert core._current.view.policy.version == 8


async def test_an_agent_is_not_ready_while_a_life_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ready = write_agent(tmp_path), list[bool]()
    async with opened(config) as core:
        first = core._current
        end = first.end

        async def noted() -> None:
            ready.append("trust" not in core.board.problems)
            await end()

        monkeypatch.setattr(first, "end", noted)
        other_trust(tmp_path)
        await until(lambda: core._current is not first)
    assert ready == [False]


async def test_an_agent_whose_life_cannot_begin_never_says_that_it_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fabric.agent")
    monkeypatch.setattr(supervisor, "_HOLD_S", 0.05)
    config, tries = write_agent(tmp_path), list[int]()
    async with opened(config) as core:
        opens = core._open_policies

        async def noted() -> PolicyRepository:
            tries.append(1)
            return await opens()

        monkeypatch.setattr(core, "_open_policies", noted)
        (tmp_path / "ca.pem").unlink()
        other_trust(tmp_path)
        await until(lambda: len(tries) >= 3)
        assert "trust" in core.board.problems
    assert "trust: well again" not in caplog.text


async def test_a_subscriber_is_read_for_in_every_life(tmp_path: Path) -> None:
    config, reads = write_agent(tmp_path), list[int]()
    async with opened(config) as core:
        first, topic = core._current, Topic.parse(TOPIC)
        _attested(core, _Readers(reads, 1))
        subscribed = core.subscribe(topic, Subscription(core.identity, topic))
        reading = core._spawn(subscribed)
        await until(lambda: reads == [1])
        other_trust(tmp_path)
        await until(lambda: core._current is not first)
        assert reads == [1, -1]
        _attested(core, _Readers(reads, 2))
        await until(lambda: reads == [1, -1, 2])
        reading.cancel()
        await until(lambda: reads == [1, -1, 2, -2])


async def test_a_subscriber_gets_nothing_from_a_life_that_ended(tmp_path: Path) -> None:
    config, topic = write_agent(tmp_path), Topic.parse(TOPIC)
    async with opened(config) as core:
        first, subscription = core._current, Subscription(core.identity, topic)
        readers = _LateReaders(first)
        _attested(core, readers)
        reading = core._spawn(core.subscribe(topic, subscription))
        await until(lambda: bool(readers.late))
        other_trust(tmp_path)
        await until(lambda: core._current is not first)
        _attested(core, _Readers([], 2))
        await asyncio.sleep(0.01)
        assert readers.late[0].done()
        assert subscription._given == {}
        assert subscription._queue.empty()
        reading.cancel()


async def test_a_subscriber_that_waits_for_the_next_life_ends_with_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails nobody: what is in flight is finished meanwhile."""
    config, finished = write_agent(tmp_path), list[bool]()
    async with opened(config) as core:
        topic, finish = Topic.parse(TOPIC), core._current.finish

        async def slowly() -> None:
            await asyncio.sleep(0.05)
            await finish()
            finished.append(True)

        monkeypatch.setattr(core._current, "finish", slowly)
        reading = core._spawn(core.subscribe(topic, Subscription(core.identity, topic)))
        await asyncio.sleep(0)
        assert not core._kept.marks.has_log.is_set()
        await core.stop()
        assert finished == [True]
        assert reading.done()


def _attested(core: Core, readers: "_Readers") -> None:
    """As when there is a certificate."""
    core._current._readers = readers  # type: ignore[assignment]
    core._kept.marks.has_log.set()


class _Readers:
    """Notes when a subscription begins and ends."""

    def __init__(self, reads: list[int], number: int) -> None:
        self._reads = reads
        self._number = number

    async def subscribe(self, topic: Topic, subscription: Subscription) -> None:
        self._reads.append(self._number)
        try:
            await asyncio.Event().wait()
        finally:
            self._reads.append(-self._number)

    async def close(self) -> None:
        """Nothing is open."""


class _LateReaders(_Readers):
    """One of its partitions loses a cancellation, and has a block to give after that."""

    def __init__(self, life: Life) -> None:
        super().__init__([], 1)
        self.late: list[asyncio.Task[None]] = []
        self._life = life

    async def subscribe(self, topic: Topic, subscription: Subscription) -> None:
        async def read() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(0.05)
            new = StreamState(
                high=ZERO, chain=b"", offset=1, cluster="c", topic_id="t", incomplete=False
            )
            with contextlib.suppress(UnavailableError):
                await subscription.apply(block(1), None, new)

        self.late.append(self._life.spawn(read()))
        await super().subscribe(topic, subscription)


async def test_a_renewed_timestamp_moves_the_end_of_the_policy_in_force(tmp_path: Path) -> None:
    config = write_agent(tmp_path)
    served = Repository(tmp_path / "policy")
    served.ends["timestamp"] = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    served.time += 1
    served.build()
    served.write()
    async with opened(config) as core:
        assert core._current.view.policy.expires == served.ends["timestamp"]
        served.ends["timestamp"] += timedelta(days=1)
        served.time += 1
        served.rebuild_timestamp()
        served.write()
        await until(lambda: core._current.view.policy.expires == served.ends["timestamp"])
        assert core._current.view.policy.version == 7


async def test_an_outbox_without_topics_publishes_nothing(tmp_path: Path) -> None:
    async with opened(write_agent(tmp_path)) as core:
        with pytest.raises(UsageError, match=r"outbox\.topics"):
            await core.outbox()
