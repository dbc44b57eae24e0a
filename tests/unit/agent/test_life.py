"""What rests on one set of trust anchors, and that nothing of it outlives them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.agent.auditing import open_audit
from fabric.agent.identity import Identity
from fabric.agent.life import Kept, Life
from fabric.agent.supervisor import Board
from fabric.attest.members import Heartbeat, heartbeat_record, result_record
from fabric.attest.notices import NO_NOTICES
from fabric.attest.result import Result
from fabric.config import AgentConfig
from fabric.metrics import AgentMetrics
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import MEMBERS, RESULTS
from fabric.policy.types import Policy
from fabric.repository.audited import PolicyAudit
from fabric.store.clock import SystemClock
from fabric.store.file_keys import FileKeys
from tests.fakes.agent_files import write_agent
from tests.fakes.platform import DrawerTpm
from tests.fakes.policy_files import policy
from tests.fakes.running import until
from tests.fakes.verifier import Verifier, a_result

SOURCE = """
[[capture]]
source = "registry"
kind = "sqlite"
url = "source.db"
[capture.tables]
"residents" = "secret.G01.residents"
"""


class Policies:
    """A repository that has one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.fault = None

    def refresh(self) -> Policy | None:
        return None


class Lives:
    """Lives that follow each other in one process."""

    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        config = AgentConfig.load(write_agent(folder, more=SOURCE))
        config.agent.folder.mkdir()
        self.metrics, self.clock, self.tpm = AgentMetrics([]), SystemClock(), DrawerTpm()
        self.audit = open_audit(config, self.clock, self.metrics)
        self._tasks = tasks
        self.kept = Kept(
            config=config,
            tpm=self.tpm,
            identity=Identity(
                config.agent.folder, self.tpm, ca=config.tls.ca, stores=(FileKeys(),)
            ),
            clock=self.clock,
            board=Board(),
            metrics=self.metrics,
            audit=self.audit,
            told=PolicyAudit(self.audit, self.clock),
            stop=asyncio.Event(),
        )

    def begin(self, verifier: Verifier) -> Life:
        """A life under a policy that names this verifier's keys."""
        under = replace(policy(), trust=verifier.trust)
        life = Life(self.kept, Policies(under), self._spawn)  # type: ignore[arg-type]
        life.start()
        return life

    def _spawn(self, part: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(part)


@contextlib.asynccontextmanager
async def living(folder: Path) -> AsyncIterator[Lives]:
    async with asyncio.TaskGroup() as tasks:
        lives = Lives(folder, tasks)
        yield lives
        lives.audit.close()


def shown(life: Life, result: Result, verifier: Verifier) -> bool:
    """Whether a view takes a result that a verifier has signed."""
    key, value = result_record(result, verifier.trust.trust_domain, verifier.signers)
    life.view.take(RESULTS, key, value)
    return life.view.members.knows(result.id)


async def test_what_a_dropped_key_has_signed_counts_no_more(tmp_path: Path) -> None:
    old, new, result = Verifier(), Verifier(), a_result()
    async with living(tmp_path) as lives:
        life = lives.begin(old)
        assert shown(life, result, old)
        await life.end()
        life = lives.begin(new)
        assert not shown(life, result, old)
        assert shown(life, result, new)
        await life.end()
    assert "bad_signature" in (lives.kept.config.agent.folder / "audit.jsonl").read_text()


async def test_a_tick_of_the_future_goes_with_the_key_that_signed_it(tmp_path: Path) -> None:
    old, new = Verifier(), Verifier()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    wrong = Heartbeat(number=0, listed=NO_NOTICES, at=at)
    async with living(tmp_path) as lives:
        clock, life = lives.kept.clock, lives.begin(old)
        # This host's own clock was ahead as well when it took the tick.
        life.view.members.feed(MEMBERS, *heartbeat_record(wrong, old.signers))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(life._watch())
            await until(lambda: clock.high == wrong.at)
            watching.cancel()
        with pytest.raises(DeniedError) as caught:
            clock.now()
        assert caught.value.reason is Reason.CLOCK_WENT_BACK
        await life.end()
        life = lives.begin(new)
        life.view.take(MEMBERS, *heartbeat_record(wrong, old.signers))
        assert life.view.members.heartbeat is None
        assert clock.now() < wrong.at
        await life.end()


async def test_a_life_ends_whole_and_leaves_nothing_that_others_have_signed(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as lives:
        life = lives.begin(Verifier())
        tasks, kept = {*life._tasks}, lives.kept
        kept.clock.observe(datetime.now(UTC) + timedelta(days=365))
        kept.marks.has_log.set()
        await asyncio.sleep(0.05)
        assert kept.board.parts
        await life.end()
        await life.end()
        assert tasks
        assert all(task.done() for task in tasks)
        assert kept.clock.high is None
        assert not kept.marks.has_log.is_set()
        assert kept.board.parts == {}


async def test_a_capture_that_has_not_begun_holds_no_end_up(tmp_path: Path) -> None:
    async with living(tmp_path) as lives:
        life = lives.begin(Verifier())
        assert lives.kept.board.problems["capture registry"] == "not_ready: starting"
        async with asyncio.timeout(2):
            await life.finish()
        await life.end()


async def test_a_reader_hears_that_this_hosts_certificate_has_ended_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as lives:
        life, now = lives.begin(Verifier()), lives.clock.now()
        minute = timedelta(minutes=1)
        for end, said in ((None, None), (now - minute, now - minute), (now + minute, None)):
            monkeypatch.setattr(Identity, "certificate_end", end)
            assert life._ended() == said
        await life.end()
