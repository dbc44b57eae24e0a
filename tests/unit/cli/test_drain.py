"""A host is drained once nothing waits and its results carry what it has sent."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.attest.result import Result
from fabric.cli import drain as draining
from fabric.cli.drain import Drain
from fabric.cli.figures import Way, flows, row_of
from fabric.config import AgentConfig
from fabric.model.errors import Reason
from fabric.store.sealed import SCHEMA, connect
from tests.fakes.agent_page import APPLYING, SENDING, FakeAgent, write_config
from tests.fakes.policy_files import policy
from tests.fakes.verifier import a_result

STREAM = "G01/registry/registry@secret.G01.residents:0"
OLD, LAST, BEAT = bytes(32), b"l" * 32, b"b" * 32
LOG = "secret.G01.residents: its source's log of before is not read and acknowledged to its end"
AGAIN = "secret.G01.residents: nothing waits; its lag is to be measured once more"


class Watched:
    """A drain, and an agent that sends one dataset and applies others."""

    def __init__(self, folder: Path) -> None:
        config = AgentConfig.load(write_config(folder, SENDING + APPLYING))
        self.flows = flows(config, policy())
        self.agent = FakeAgent()
        self.agent.board.show("capture registry", None)
        self.agent.captures("registry", 0.0, 0)
        self.drain = Drain(since=datetime.now(UTC) - timedelta(seconds=5))

    def settle(self) -> None:
        """The source is quiet, and then it is measured once more."""
        self.agent.captures("registry", 0.0, 0, ago=3)
        assert self.look(OLD) == [AGAIN]
        self.agent.captures("registry", 0.0, 0)

    def look(self, head: bytes, *carried: bytes) -> list[str]:
        page = self.agent.page()
        rows = [row_of(flow, page, "agent.toml") for flow in self.flows]
        return self.drain.look(rows, {STREAM: head}, a_result(heads=carried))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    made = Watched(tmp_path)
    made.settle()
    return made


def test_a_host_is_drained_once_a_result_carries_a_head_of_after_its_last_change(
    watched: Watched,
) -> None:
    waits = [f"{STREAM}: no result carries its last block yet"]
    assert watched.look(LAST, OLD) == waits
    assert watched.look(BEAT, OLD) == waits  # signs of life go on
    assert watched.look(BEAT, LAST) == []


def test_a_result_that_carries_less_than_every_stream_is_not_enough(watched: Watched) -> None:
    watched.drain.seen["another"] = {OLD}
    assert watched.look(LAST, LAST) == ["another: no result carries its last block yet"]
    assert watched.look(LAST, OLD) == []


def test_what_is_captured_and_not_acknowledged_is_waited_for_whatever_is_carried(
    watched: Watched,
) -> None:
    watched.agent.captures("registry", 3.0, 0)
    assert watched.look(LAST, LAST) == ["secret.G01.residents: catching_up"]


def test_a_change_that_comes_meanwhile_has_to_be_carried_too(watched: Watched) -> None:
    watched.look(OLD)
    watched.agent.captures("registry", 3.0, 0)
    watched.look(OLD)
    watched.settle()
    assert watched.look(LAST, OLD) != []
    assert watched.look(LAST, LAST) == []


def test_a_lag_of_before_the_drain_is_waited_for(watched: Watched) -> None:
    watched.agent.captures("registry", 0.0, 0, ago=9)
    assert watched.look(LAST, LAST) == ["secret.G01.residents: its lag is not measured anew yet"]


def test_what_is_carried_counts_only_once_the_lag_was_measured_anew_and_nothing_waits_still(
    tmp_path: Path,
) -> None:
    watched = Watched(tmp_path)
    for ago in (3, 3, 2.5):
        watched.agent.captures("registry", 0.0, 0, ago=ago)
        assert watched.look(LAST, LAST) == [AGAIN]
    watched.agent.captures("registry", 0.0, 0, ago=1)
    assert watched.look(LAST, OLD) != []
    assert watched.look(LAST, LAST) == []


def test_a_head_of_the_first_quiet_look_may_be_older_and_does_not_count(
    watched: Watched,
) -> None:
    assert watched.look(LAST, OLD) != []  # OLD was there at the first quiet look


def test_a_snapshot_that_is_under_way_is_waited_for(watched: Watched) -> None:
    watched.agent.captures("registry", 0.0, 0, rows_left=1)
    assert watched.look(LAST, LAST) == ["secret.G01.residents: copying"]


def test_the_log_of_before_the_drain_is_waited_for_and_no_later_one(tmp_path: Path) -> None:
    watched = Watched(tmp_path)

    def log(released: int, left: int, ago: float) -> None:
        watched.agent.metrics.capture_released("registry", released)
        watched.agent.captures("registry", 0.0, left, ago=ago)

    log(1_000, 500, 4)
    assert watched.look(LAST, LAST) == [LOG]
    log(1_499, 9_000, 3)
    assert watched.look(LAST, LAST) == [LOG]
    log(1_500, 9_000, 2)
    assert watched.look(LAST, LAST) == [AGAIN]
    log(1_500, 9_000, 0)
    assert watched.look(LAST, LAST) == []


def test_every_source_has_to_be_measured_once_more(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    sent = next(flow for flow in watched.flows if flow.way is Way.SENDS)
    watched.flows = (*watched.flows, replace(sent, source="outbox"))
    watched.agent.board.show("capture outbox", None)
    for ago, outbox_ago, waits in ((4, 2, True), (1.5, 2, True), (0.5, 0.5, False)):
        watched.agent.captures("registry", 0.0, 0, ago=ago)
        watched.agent.captures("outbox", 0.0, 0, ago=outbox_ago)
        assert (watched.look(LAST, LAST) != []) is waits


def test_a_problem_of_a_dataset_is_said_in_its_words(watched: Watched) -> None:
    watched.agent.board.show("publish secret.G01.residents", Reason.GATEWAY_UNAVAILABLE, "gone")
    assert watched.look(LAST, LAST) == ["secret.G01.residents: gateway_unavailable: gone"]


@pytest.mark.parametrize(("carried", "code"), [(LAST, 0), (OLD, 10)])
def test_the_command_says_whether_the_approval_may_be_withdrawn(
    fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried: bytes, code: int
) -> None:
    async def result_of(config: object, path: object) -> Result:
        return a_result(heads=(carried,))

    monkeypatch.setattr(draining, "result_of", result_of)
    monkeypatch.setattr(draining, "LOOK_S", 0.01)
    monkeypatch.setattr(draining, "AGAIN", timedelta(0))
    agent = FakeAgent()
    agent.board.show("capture registry", None)
    agent.captures("registry", 0.0, 0, ago=-5)
    with agent.serve() as port:
        config = write_config(tmp_path, SENDING, port=port)
        (tmp_path / "state").mkdir()
        state = connect(tmp_path / "state" / "agent.state")
        state.executescript(SCHEMA)
        row = ("secret.G01.residents", "G01/registry/registry", 0, b"e", 1, LAST, 1, 1, 1)
        state.execute("INSERT INTO head VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        done = fabric("agent", "drain", config, "--within", "0.5", "-o", "json")
        state.close()
    assert done.code == code, done.err
    assert done.json["drained"] is (code == 0)
    assert (len(done.json["waits"]) == 0) is (code == 0)
    assert ("may be withdrawn" in done.err) is (code == 0)


def test_an_agent_that_does_not_run_cannot_be_drained(fabric, tmp_path: Path) -> None:
    done = fabric("agent", "drain", write_config(tmp_path, SENDING), "--within", "0")
    assert (done.code, done.out) == (1, "")
    assert "start it with" in done.err


def test_a_result_is_read_again_only_when_the_agent_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    result = a_result()

    async def result_of(config: object, path: object) -> Result:
        asked.append(path)
        return result

    monkeypatch.setattr(draining, "result_of", result_of)
    config = write_config(tmp_path, SENDING)
    newest = draining._Newest(AgentConfig.load(config), config)
    for expires in (result.expires, result.expires, result.expires + timedelta(minutes=5)):
        asyncio.run(newest.ask(expires))
    assert len(asked) == 2
