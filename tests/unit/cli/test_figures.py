"""Figures: what a page and a configuration say of each dataset, in words a person can act on."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.cli.figures import (
    BEHIND_S,
    HEALTHY,
    Flow,
    Problem,
    Row,
    State,
    Way,
    flows,
    lags_of,
    problem_of,
    problems,
    row_of,
)
from fabric.cli.remedies import remedy_of
from fabric.config import AgentConfig
from fabric.model.errors import Reason
from fabric.model.names import Stream
from tests.fakes.agent_page import APPLYING, OPEN, SECRET, SENDING, FakeAgent, write_config
from tests.fakes.policy_files import documents, policy

NOW = datetime(2026, 9, 1, tzinfo=UTC)
FILE = "agent.toml"


def applying(folder: Path) -> list[Flow]:
    return [*flows(AgentConfig.load(write_config(folder)), policy())]


def sending(folder: Path) -> Flow:
    path = write_config(folder, SENDING, host="G01/registry/host-a")
    return flows(AgentConfig.load(path), policy())[0]


def row(flow: Flow, agent: FakeAgent) -> Row:
    return row_of(flow, agent.page(), FILE)


@pytest.fixture
def agent() -> FakeAgent:
    made = FakeAgent()
    made.applies(SECRET, OPEN)
    made.board.show("capture registry", None)
    made.captures("registry", 0, 0)
    return made


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return applying(tmp_path)[0]


# What is configured


def test_an_apply_names_the_agencies_that_send_and_how_its_records_are_kept(
    tmp_path: Path,
) -> None:
    secret, wards = applying(tmp_path)
    assert (secret.topic, secret.way, secret.table) == (SECRET, Way.APPLIES, "residents")
    assert (secret.sealed, secret.suite, secret.peers) == (True, "hybrid", ("Registry",))
    assert (wards.sealed, wards.suite) == (False, "")


def test_a_capture_names_the_agencies_that_may_have_it(tmp_path: Path) -> None:
    flow = sending(tmp_path)
    assert (flow.way, flow.source, flow.table) == (Way.SENDS, "registry", "residents")
    assert flow.peers == ("Health", "Statistics")


def test_topics_of_the_outbox_are_datasets_that_this_host_sends(tmp_path: Path) -> None:
    outbox = '[outbox]\ntopics = ["secret.G01.residents"]\n'
    path = write_config(tmp_path, outbox, host="G01/registry/host-a")
    (flow,) = flows(AgentConfig.load(path), policy())
    assert (flow.way, flow.source, flow.table) == (Way.SENDS, "outbox", "outbox")


def test_without_a_policy_names_remain_and_nothing_is_claimed(tmp_path: Path) -> None:
    config = AgentConfig.load(write_config(tmp_path))
    flow = flows(config, None)[0]
    assert (flow.sealed, flow.suite, flow.peers) == (None, "", ("G01",))


# What a dataset says


def test_a_dataset_that_lags_by_nothing_is_in_step(flow: Flow, agent: FakeAgent) -> None:
    agent.metrics.applied(SECRET, "applied", 7)
    agent.metrics.applied(SECRET, "quarantined", 2)
    seen = row(flow, agent)
    assert (seen.state, seen.rows, seen.lag.records, seen.lag.seconds) == (State.IN_STEP, 7, 0, 0)
    assert seen.problems == ()


@pytest.mark.parametrize("part", ["stream", "anchor"])
def test_a_stream_that_stands_still_has_no_lag(flow: Flow, agent: FakeAgent, part: str) -> None:
    agent.lag(SECRET, 0, 0.0)
    agent.board.show(f"{part} G01/registry/main@{SECRET}:0", Reason.GAP, "stopped")
    seen, page = row(flow, agent), agent.page()
    assert (seen.lag.records, seen.lag.seconds) == (None, None)
    (told,) = lags_of(seen, page)
    assert (told.lag.records, told.lag.seconds) == (None, None)
    agent.board.show(f"{part} G01/registry/main@{SECRET}:0", None)
    assert row(flow, agent).lag.records == 0


def test_a_small_lag_is_catching_up_and_still_healthy(flow: Flow, agent: FakeAgent) -> None:
    agent.lag(SECRET, 3, BEHIND_S - 1)
    seen = row(flow, agent)
    assert (seen.state, seen.lag.records) == (State.CATCHING_UP, 3)
    assert seen.state in HEALTHY


def test_a_lag_of_a_minute_is_unhealthy_and_says_so(flow: Flow, agent: FakeAgent) -> None:
    agent.lag(SECRET, 3, BEHIND_S)
    seen = row(flow, agent)
    assert seen.state is State.BEHIND
    assert seen.problems[0].wrong == "60 s behind"


def test_a_capture_counts_what_was_acknowledged_and_the_log_it_keeps(
    tmp_path: Path, agent: FakeAgent
) -> None:
    agent.metrics.sealed(SECRET, "hybrid", changes=9, plaintext_bytes=1, sealed_bytes=1)
    agent.captures("registry", 2, 512)
    seen = row(sending(tmp_path), agent)
    assert (seen.rows, seen.lag.records, seen.lag.seconds, seen.lag.log_bytes) == (9, None, 2, 512)
    assert seen.state is State.CATCHING_UP


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_capture_whose_snapshot_is_under_way_is_copying_and_not_in_step(
    tmp_path: Path, agent: FakeAgent, seconds: float
) -> None:
    agent.captures("registry", seconds, 0, rows_left=1)
    seen = row(sending(tmp_path), agent)
    assert (seen.state, seen.lag.rows_left) == (State.COPYING, 1)
    assert seen.state in HEALTHY
    assert seen.problems == ()


def test_a_snapshot_that_is_slow_is_behind_all_the_same(tmp_path: Path, agent: FakeAgent) -> None:
    agent.captures("registry", BEHIND_S, 0, rows_left=1)
    assert row(sending(tmp_path), agent).state is State.BEHIND


@pytest.mark.parametrize("way", Way)
def test_the_last_change_is_the_commit_of_what_was_moved_last(
    tmp_path: Path, agent: FakeAgent, way: Way
) -> None:
    flow = sending(tmp_path) if way is Way.SENDS else applying(tmp_path)[0]
    assert row(flow, agent).last_change is None
    agent.metrics.moved(SECRET, way, NOW.timestamp())
    assert row(flow, agent).last_change == NOW


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.GRANT_MISSING, State.WAITING),
        (Reason.NOT_A_CONSUMER, State.HELD),
        (Reason.GAP, State.STOPPED),
    ],
)
def test_a_part_that_is_not_well_gives_the_state_the_words_and_the_remedy(
    flow: Flow, agent: FakeAgent, reason: Reason, state: State
) -> None:
    agent.board.show(f"apply {SECRET}:0", reason, "why so")
    seen = row(flow, agent)
    assert seen.state is state
    assert seen.problems == (
        Problem(
            part=f"apply {SECRET}:0",
            reason=reason.value,
            wrong=f"{reason}: why so",
            remedy=remedy_of(reason),
        ),
    )


def test_the_gravest_of_several_problems_is_the_state(flow: Flow, agent: FakeAgent) -> None:
    stream = Stream(policy().datasets[str(SECRET)].producers[0], SECRET, 0)
    agent.board.show(f"grants {SECRET}", Reason.BROKER_UNAVAILABLE)
    agent.board.show(f"stream {stream}", Reason.FORK, "stopped")
    seen = row(flow, agent)
    assert seen.state is State.STOPPED
    assert len(seen.problems) == 2


def test_trouble_of_one_dataset_is_not_told_of_another(tmp_path: Path, agent: FakeAgent) -> None:
    agent.board.show(f"apply {SECRET}:0", Reason.GAP)
    agent.metrics.quarantine(SECRET, 2)
    wards = applying(tmp_path)[1]
    assert row(wards, agent).state is State.IN_STEP


def test_what_a_gateway_refuses_holds_the_capture(tmp_path: Path, agent: FakeAgent) -> None:
    agent.board.show(f"publish {SECRET}", Reason.SCHEMA_UNKNOWN, "no such schema")
    assert row(sending(tmp_path), agent).state is State.HELD


def test_quarantine_names_the_command_with_this_agents_file(flow: Flow, agent: FakeAgent) -> None:
    agent.metrics.quarantine(SECRET, 2)
    seen = row(flow, agent)
    assert seen.state is State.QUARANTINE
    assert seen.problems[0].wrong == "2 changes wait in quarantine"
    assert f"fabric quarantine list --config {FILE}" in seen.problems[0].remedy


@pytest.mark.parametrize("from_join", [False, True])
def test_the_remedy_for_rows_that_may_lack_names_applications_too(
    flow: Flow, agent: FakeAgent, from_join: bool
) -> None:
    agent.metrics.incomplete(SECRET, True)
    (problem,) = row(replace(flow, from_join=from_join), agent).problems
    assert "application" in problem.remedy
    assert "SNAPSHOT_BEGIN" in problem.remedy


def test_rows_that_may_lack_are_incomplete(flow: Flow, agent: FakeAgent) -> None:
    agent.metrics.incomplete(SECRET, True)
    assert row(flow, agent).state is State.INCOMPLETE


def test_a_consumer_that_joined_late_is_told_what_it_lacks(flow: Flow, agent: FakeAgent) -> None:
    agent.metrics.incomplete(SECRET, True)
    seen = row(replace(flow, from_join=True), agent)
    assert seen.state is State.INCOMPLETE
    assert "from before this host was named" in seen.problems[0].wrong


def test_a_silent_sender_is_named(flow: Flow, agent: FakeAgent) -> None:
    agent.metrics.silent(SECRET, 0, True)
    seen = row(flow, agent)
    assert seen.state is State.SILENT
    assert seen.problems[0].wrong == "Registry has gone silent"


def test_an_apply_that_has_not_begun_says_what_it_waits_for(flow: Flow) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.NOT_APPROVED, "no approval")
    seen = row(flow, agent)
    assert seen.state is State.STARTING
    assert seen.problems[0].wrong == "waits for attestation: not_approved: no approval"
    assert seen.problems[0].remedy == remedy_of(Reason.NOT_APPROVED)


def test_a_part_that_only_starts_says_that_and_no_more(flow: Flow) -> None:
    assert row(flow, FakeAgent()).problems[0].reason == Reason.NOT_READY


# Old figures


def test_a_lag_that_nobody_measures_is_unhealthy_whatever_its_gauge_says(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.lag(SECRET, 0, 0.0, ago=240)
    seen = row(flow, agent)
    assert (seen.state, seen.lag.records, seen.lag.seconds) == (State.UNMEASURED, None, None)
    assert seen.state not in HEALTHY
    assert seen.problems[0].wrong == "its lag was not measured for 240 s"


def test_a_lag_that_was_measured_in_the_future_is_the_clocks_fault(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.lag(SECRET, 0, 0.0, ago=-3600)
    seen = row(flow, agent)
    assert seen.state is State.UNMEASURED
    (problem,) = seen.problems
    assert problem.wrong.startswith("its lag was measured 3600 s ahead of this machine's clock")
    assert "clock" in problem.remedy


def test_a_lag_that_was_never_measured_says_so(flow: Flow) -> None:
    agent = FakeAgent()
    agent.board.show(f"apply {SECRET}:0", None)
    seen = row(flow, agent)
    assert seen.state is State.UNMEASURED
    assert seen.problems[0].wrong == "its lag was not measured yet"


def test_a_source_that_gives_no_sign_of_life_has_no_figures(
    tmp_path: Path, agent: FakeAgent
) -> None:
    agent.captures("registry", 0, 512, ago=60)
    seen = row(sending(tmp_path), agent)
    assert (seen.state, seen.lag.seconds, seen.lag.log_bytes) == (State.UNMEASURED, None, None)


def test_a_part_that_tells_what_it_waits_for_is_the_state_beside_an_old_lag(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.lag(SECRET, 0, 0.0, ago=60)
    agent.board.show(f"apply {SECRET}:0", Reason.BROKER_UNAVAILABLE)
    assert row(flow, agent).state is State.WAITING


def test_a_part_that_tells_why_it_does_not_read_needs_no_guess_at_why_nothing_is_measured(
    flow: Flow,
) -> None:
    agent = FakeAgent()
    agent.board.show(f"apply {SECRET}:0", Reason.NOT_A_CONSUMER)
    seen = row(flow, agent)
    assert [problem.reason for problem in seen.problems] == [Reason.NOT_A_CONSUMER]


def test_a_lag_that_nobody_measures_is_said_beside_what_waits_in_quarantine(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.lag(SECRET, 0, 0.0, ago=240)
    agent.metrics.quarantine(SECRET, 2)
    told = {problem.reason for problem in row(flow, agent).problems}
    assert told == {State.QUARANTINE, State.UNMEASURED}


# Silence


def test_what_keeps_us_waiting_here_is_said_before_the_silence_of_a_sender(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.metrics.silent(SECRET, 0, True)
    agent.board.show(f"silence {SECRET}:0", Reason.SILENT, "nothing heard for 31 s")
    agent.board.show(f"apply {SECRET}:0", Reason.DATABASE_UNAVAILABLE)
    page = agent.page()
    seen = row_of(flow, page, FILE)
    assert seen.state is State.WAITING
    told = [problem.reason for problem in problems(page, [seen], NOW)]
    assert told == [Reason.DATABASE_UNAVAILABLE, State.SILENT]


def test_a_silence_that_nobody_listens_to_any_more_is_not_told(
    flow: Flow, agent: FakeAgent
) -> None:
    agent.metrics.silent(SECRET, 0, True)
    agent.board.show(f"silence {SECRET}:0", Reason.SILENT, "nothing heard for 31 s")
    agent.board.show(f"apply {SECRET}:0", Reason.DATABASE_UNAVAILABLE)
    agent.lag(SECRET, 0, 0.0, ago=240)
    page = agent.page()
    told = [problem.reason for problem in problems(page, [row_of(flow, page, FILE)], NOW)]
    assert told == [Reason.DATABASE_UNAVAILABLE]


# Partitions


def test_lag_is_summed_over_partitions_and_the_longest_counts(
    tmp_path: Path, agent: FakeAgent
) -> None:
    flow = _two_partitions(tmp_path)
    agent.board.show(f"apply {SECRET}:1", None)
    agent.lag(SECRET, 3, 2.0)
    agent.lag(SECRET, 4, 9.0, partition=1)
    page = agent.page()
    seen = row_of(flow, page, FILE)
    assert (seen.lag.records, seen.lag.seconds) == (7, 9.0)
    lags = lags_of(seen, page)
    assert [(x.partition, x.lag.records, x.lag.seconds) for x in lags] == [(0, 3, 2.0), (1, 4, 9.0)]


def test_every_partition_must_have_begun(tmp_path: Path, agent: FakeAgent) -> None:
    assert row(_two_partitions(tmp_path), agent).state is State.STARTING


def _two_partitions(folder: Path) -> Flow:
    changed = documents()
    changed["datasets/G01/residents.yaml"]["partitions"] = 2
    return flows(AgentConfig.load(write_config(folder, APPLYING)), policy(changed))[0]


def test_a_second_target_has_parts_of_its_own(tmp_path: Path, agent: FakeAgent) -> None:
    found = flows(AgentConfig.load(write_config(tmp_path, APPLYING + APPLYING)), policy())
    assert row(found[0], agent).state is State.IN_STEP
    assert row(found[2], agent).state is State.STARTING
    agent.board.show(f"apply {SECRET}:0 (1)", None)
    assert row(found[2], agent).state is State.IN_STEP


# The whole


def test_a_well_agent_has_no_problem(tmp_path: Path, agent: FakeAgent) -> None:
    agent.board.show("attestation", None)
    agent.attested(NOW, NOW + timedelta(minutes=5))
    assert _problems(agent, applying(tmp_path)) == []


def test_the_hosts_own_problems_come_first_and_each_once(tmp_path: Path, agent: FakeAgent) -> None:
    agent.board.show(f"apply {SECRET}:0", Reason.GAP, "hole")
    agent.board.show("view", Reason.BROKER_UNAVAILABLE, "no answer")
    found = _problems(agent, applying(tmp_path))
    assert [item.part for item in found] == ["view", f"apply {SECRET}:0"]


def test_a_result_that_has_ended_is_a_problem_before_the_agent_says_so(
    agent: FakeAgent,
) -> None:
    agent.attested(NOW - timedelta(minutes=5), NOW)
    assert [item.reason for item in _problems(agent, ())] == [Reason.RESULT_EXPIRED]


def test_an_agent_that_starts_is_not_healthy_yet() -> None:
    agent = FakeAgent()
    agent.board.expect("start")
    assert [item.reason for item in _problems(agent, ())] == [Reason.NOT_READY]


def test_a_word_that_is_no_reason_is_a_bug_and_is_shown_whole() -> None:
    found = problem_of("view", "boom")
    assert (found.reason, found.wrong) == (Reason.INTERNAL, "boom")


def _problems(agent: FakeAgent, found: Sequence[Flow]) -> list[Problem]:
    page = agent.page()
    return problems(page, [row_of(flow, page, FILE) for flow in found], NOW)
