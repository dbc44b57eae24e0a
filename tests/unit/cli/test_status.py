"""`fabric status` and `fabric lag` against an agent's real pages, without the agent."""

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.cli import status as module
from fabric.cli.samples import Page
from fabric.config import AgentConfig
from fabric.demo.process import free_port
from fabric.model.errors import Reason, UnavailableError
from tests.fakes.agent_page import OPEN, SECRET, FakeAgent, write_config
from tests.fakes.policy_files import files
from tests.fakes.policy_repository import Repository


@pytest.fixture
def agent() -> FakeAgent:
    made = FakeAgent()
    now = datetime.now(UTC)
    made.attested(now, now + timedelta(minutes=10))
    made.metrics.policy(7, now + timedelta(days=9))
    made.board.show("attestation", None)
    made.applies(SECRET, OPEN)
    return made


@pytest.fixture
def config(agent: FakeAgent, tmp_path: Path) -> Iterator[Path]:
    with agent.serve() as port:
        yield write_config(tmp_path, port=port)


# One look


def test_status_of_a_well_agent_is_one_document_and_exit_0(fabric, agent, config) -> None:
    agent.metrics.applied(SECRET, "applied", 12)
    agent.metrics.moved(SECRET, "applies", 1_790_000_000.0)
    done = fabric("status", "--config", config, "-o", "json")
    assert (done.code, done.err) == (0, "")
    assert done.json["healthy"] is True
    assert done.json["host"] == "G02/health/host-b"
    assert done.json["policy_version"] == 7
    assert done.json["problems"] == []
    secret, wards = done.json["datasets"]
    measured = secret["measured"]
    assert measured.endswith("+00:00")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(measured)) < timedelta(seconds=30)
    assert secret == {
        "dataset": str(SECRET),
        "way": "applies",
        "table": "residents",
        "source": "",
        "peers": ["Registry"],
        "sealed": True,
        "suite": "hybrid",
        "state": "in_step",
        "rows": 12,
        "lag_records": 0,
        "lag_seconds": 0.0,
        "lag_bytes": None,
        "measured": measured,
        "last_change": "2026-09-21T14:13:20.000+00:00",
        "wrong": [],
        "remedy": [],
    }
    assert (wards["sealed"], wards["last_change"]) == (False, None)


def test_status_as_a_line_is_one_line(fabric, agent, config) -> None:
    done = fabric("status", "--config", config, "-o", "jsonl")
    assert done.out.count("\n") == 1
    assert done.json["healthy"] is True


def test_status_of_an_unhealthy_agent_says_what_to_do_and_exits_10(fabric, agent, config) -> None:
    agent.board.show(f"apply {SECRET}:0", Reason.NOT_A_CONSUMER, "the broker denies reading")
    done = fabric("status", "--config", config)
    assert done.code == 10
    assert "unhealthy" in done.out
    assert "held" in done.out
    assert "not_a_consumer: the broker denies reading" in done.out
    assert "do: have the data owner name this host" in done.out


def test_the_table_shows_every_fact_of_a_dataset(fabric, agent, config) -> None:
    agent.metrics.applied(SECRET, "applied", 12_345)
    agent.lag(SECRET, 3, 2.5)
    done = fabric("status", "--config", config)
    line = next(line for line in done.out.splitlines() if line.startswith(str(SECRET)))
    for fact in ("applies from", "Registry", "sealed hybrid", "12,345", "3", "2.5", "catching_up"):
        assert fact in line
    assert "open" in next(x for x in done.out.splitlines() if x.startswith(str(OPEN)))
    assert "attested for 9 min more" in done.out


def test_brackets_in_names_are_shown_and_not_read_as_colours(fabric, agent, config) -> None:
    agent.board.show("view", Reason.BROKER_UNAVAILABLE, "see [broker] bootstrap")
    assert "see [broker] bootstrap" in fabric("status", "--config", config).out


def test_a_broken_policy_takes_away_what_the_policy_says_only(fabric, agent, config) -> None:
    Repository(config.parent / "policy", {**files(), "levels.yaml": b"no list"}).publish()
    done = fabric("status", "--config", config, "-o", "json")
    assert done.code == 0
    assert done.json["datasets"][0]["sealed"] is None
    assert done.json["datasets"][0]["peers"] == ["G01"]


# Nobody answers


@pytest.mark.parametrize("command", ["status", "lag"])
def test_no_answer_is_exit_1_and_says_how_to_start_the_agent(fabric, tmp_path, command) -> None:
    config = write_config(tmp_path, port=free_port())
    done = fabric(command, "--config", config, "-o", "json")
    assert (done.code, done.out) == (1, "")
    assert f"fabric agent run {config}" in done.err
    assert done.err.count("\n") == 1


def test_an_agent_without_a_port_of_its_own_is_a_matter_of_configuration(fabric, tmp_path) -> None:
    done = fabric("status", "--config", write_config(tmp_path, port=0))
    assert done.code == 2
    assert "web.listen" in done.err


def test_status_without_its_agent_says_which_option_is_missing(fabric) -> None:
    done = fabric("status")
    assert done.code == 2
    assert "--config" in done.err


# Watching


@pytest.mark.parametrize("form", ["table", "json"])
def test_watching_needs_lines_where_there_is_no_terminal(fabric, agent, config, form) -> None:
    done = fabric("status", "--config", config, "--watch", "-o", form)
    assert done.code == 2
    assert "-o jsonl" in done.err


def _tells(monkeypatch: pytest.MonkeyPatch, *told: Page | UnavailableError) -> None:
    """Let the agent say one thing after another."""
    rest = [*told]

    async def read(config: AgentConfig, path: Path) -> Page:
        await asyncio.sleep(0)
        page = rest.pop(0)
        if isinstance(page, UnavailableError):
            raise page
        return page

    monkeypatch.setattr(module, "read_page", read)
    monkeypatch.setattr(module, "_EVERY_S", 0.001)


def _bad_then_good(agent: FakeAgent) -> tuple[UnavailableError, Page, Page]:
    down = UnavailableError(Reason.NOT_READY, "no agent answers")
    agent.board.show("view", Reason.BROKER_UNAVAILABLE)
    bad = agent.page()
    agent.board.show("view", None)
    return down, bad, agent.page()


def test_watching_prints_a_line_each_time_until_healthy(fabric, agent, config, monkeypatch) -> None:
    _tells(monkeypatch, *_bad_then_good(agent))
    done = fabric("status", "-c", config, "--watch", "--exit-when-healthy", "-o", "jsonl")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [line["answers"] for line in lines] == [False, True, True]
    assert [line["healthy"] for line in lines] == [False, False, True]
    assert lines[0]["problems"][0]["part"] == "agent"


def test_waiting_prints_the_last_look_only(fabric, agent, config, monkeypatch) -> None:
    _tells(monkeypatch, *_bad_then_good(agent))
    done = fabric("status", "-c", config, "--exit-when-healthy", "-o", "json")
    assert done.code == 0
    assert done.json["healthy"] is True


def test_watching_fills_a_terminal(fabric, agent, config, monkeypatch) -> None:
    screen = io.StringIO()
    real = module.Console
    monkeypatch.setattr(
        module, "Console", lambda: real(file=screen, force_terminal=True, width=150)
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    _tells(monkeypatch, *_bad_then_good(agent))
    assert fabric("status", "-c", config, "--watch", "--exit-when-healthy").code == 0
    shown = screen.getvalue()
    assert "does not answer" in shown
    assert "broker_unavailable" in shown
    assert "in_step" in shown


def test_a_state_has_one_name_in_every_output(fabric, agent, config) -> None:
    tables = [fabric(name, "-c", config).out for name in ("status", "lag")]
    assert all(table.count(" in_step") == 2 for table in tables)


def test_what_a_stopped_stream_lacks_is_no_lag_of_zero(fabric, agent, config) -> None:
    agent.lag(SECRET, 0, 0.0)
    agent.board.show(f"stream G01/registry/main@{SECRET}:0", Reason.GAP, "stopped")
    (line,) = (x for x in fabric("status", "-c", config).out.splitlines() if str(SECRET) in x[:30])
    assert line.split()[-4:] == ["-", "-", "-", "stopped"]
    first = fabric("lag", "-c", config).out.splitlines()[1]
    words = first.split()
    assert (words[3:6], words[7:]) == (["-", "-", "-"], ["s", "ago", "-", "stopped"])


# Lag


def test_lag_shows_the_worst_first(fabric, agent, config) -> None:
    agent.lag(OPEN, 4, 9.0)
    agent.lag(SECRET, 40, 1.0)
    seconds = fabric("lag", "-c", config, "-o", "json").json
    assert [item["dataset"] for item in seconds] == [str(OPEN), str(SECRET)]
    records = fabric("lag", "-c", config, "--sort", "records", "-o", "json").json
    assert [item["records"] for item in records] == [40, 4]
    assert {*records[0]} >= {"way", "partition", "seconds", "bytes", "last_change", "state"}


@pytest.mark.parametrize("sort", ["seconds", "records"])
def test_a_lag_that_nobody_measures_is_told_before_any_other_and_without_figures(
    fabric, agent, config, sort
) -> None:
    agent.lag(OPEN, 4, 9.0)
    agent.lag(SECRET, 0, 0.0, ago=240)
    done = fabric("lag", "-c", config, "--sort", sort, "-o", "json")
    old, fresh = done.json
    assert (done.code, old["dataset"], old["state"]) == (10, str(SECRET), "unmeasured")
    assert (old["records"], old["seconds"]) == (None, None)
    age = datetime.fromisoformat(fresh["measured"]) - datetime.fromisoformat(old["measured"])
    assert timedelta(seconds=239) < age < timedelta(seconds=245)


def test_a_table_says_in_words_that_nobody_measured(fabric, agent, config) -> None:
    agent.lag(SECRET, 0, 0.0, ago=240)
    first = fabric("lag", "-c", config).out.splitlines()[1]
    assert first.split()[2:] == ["0", "-", "-", "-", "not", "for", "4", "min", "-", "unmeasured"]
    shown = fabric("status", "-c", config)
    assert "not measured for 240 s" in " ".join(shown.out.split())
    line = next(line for line in shown.out.splitlines() if line.startswith(str(SECRET)))
    assert line.split()[-4:] == ["-", "-", "-", "unmeasured"]


def test_a_figure_of_the_future_is_told_as_the_clocks_fault_and_never_below_zero(
    fabric, agent, config
) -> None:
    """The agent measured while this machine's clock was an hour ahead."""
    agent.lag(SECRET, 0, 0.0, ago=-3600)
    first = fabric("lag", "-c", config).out.splitlines()[1]
    assert first.split()[6:] == ["ahead", "of", "the", "clock", "-", "unmeasured"]
    told = " ".join(fabric("status", "-c", config).out.split())
    assert "ahead of this machine's clock" in told
    assert "for -" not in told


def test_lag_of_one_dataset_looks_at_that_one_alone(fabric, agent, config) -> None:
    agent.board.show(f"apply {SECRET}:0", Reason.GAP)
    well = fabric("lag", "-c", config, OPEN, "-o", "json")
    assert (well.code, len(well.json), well.err) == (0, 1, "")
    ill = fabric("lag", "-c", config, SECRET, "-o", "json")
    assert ill.code == 10
    assert ill.json[0]["state"] == "stopped"
    assert "gap" in ill.err


def test_lag_of_an_unknown_dataset_names_those_that_are_there(fabric, agent, config) -> None:
    done = fabric("lag", "-c", config, "secret.G09.nothing")
    assert done.code == 2
    assert str(SECRET) in done.err


@pytest.mark.parametrize(
    ("length", "text"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_a_span_is_said_in_the_largest_unit_that_tells_enough(length: int, text: str) -> None:
    assert module._span(timedelta(seconds=length)) == text


def test_an_agent_that_serves_only_others_says_where_this_machine_may_ask(
    fabric, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    files = '"0.0.0.0:9111"\ncertificate = "w"\nkey = "w"\nclient_ca = "w"'
    config.write_text(config.read_text().replace('"127.0.0.1:9"\n\n', f"{files}\n"))
    done = fabric("status", "--config", config)
    assert done.code == 2
    assert 'add local = "127.0.0.1:PORT"' in done.err


def test_an_agent_that_serves_others_is_asked_on_its_local_address(
    fabric, agent, tmp_path: Path
) -> None:
    with agent.serve() as port:
        config = write_config(tmp_path)
        files = '"0.0.0.0:9111"\ncertificate = "w"\nkey = "w"\nclient_ca = "w"\n'
        files += f'local = "127.0.0.1:{port}"'
        config.write_text(config.read_text().replace('"127.0.0.1:9"\n\n', f"{files}\n"))
        done = fabric("status", "--config", config, "-o", "json")
    assert done.json["answers"]
