"""Metrics: names and labels as the catalogue has them, zeros from the start, no surprises."""

import re
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fabric.metrics import (
    BLOCK_OUTCOMES,
    CUTS,
    GATEWAY_APIS,
    OPERATIONS,
    OUTCOMES,
    PARTS,
    RECORD_REASONS,
    AgentMetrics,
    AuthorityMetrics,
    GatewayMetrics,
    watching,
)
from fabric.model.errors import Reason, UsageError
from fabric.model.limits import EPOCH_AGE_S_MAX
from fabric.model.names import Topic
from tests.fakes.policy_files import policy

TOPIC = Topic.parse("secret.G01.residents")
OPEN = Topic.parse("public.G01.wards")
NOW = datetime(2026, 9, 1, tzinfo=UTC)
RULES = tuple(policy().rules.values())
FORBIDDEN = {"user", "key", "host", "agency", "instance", "role"}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"fabric_{name}", labels)


def place(topic: Topic) -> dict[str, str]:
    return {"topic": str(topic), "level": topic.level}


def test_zero_is_there_before_anything_happened() -> None:
    metrics = AgentMetrics(RULES)
    metrics.publishes(OPEN, "", "registry")
    metrics.reads(TOPIC, "hybrid")
    agent = metrics.registry
    assert value(agent, "sealed_records_total", **place(OPEN), suite="") == 0
    assert value(agent, "sealed_records_total", **place(TOPIC), suite="hybrid") is None
    assert value(agent, "opened_records_total", **place(TOPIC), suite="hybrid") == 0
    assert value(agent, "end_to_end_latency_seconds_count", **place(TOPIC)) == 0
    for reason in RECORD_REASONS:
        for name in ("rejected_records_total", "rejected_rows_total"):
            assert value(agent, name, **place(TOPIC), suite="hybrid", reason=reason) == 0
        for name in ("refused_blocks_total", "refused_rows_total"):
            assert value(agent, name, **place(OPEN), suite="", reason=reason) == 0
    for outcome in OUTCOMES:
        effect = {**place(TOPIC), "suite": "hybrid", "outcome": outcome}
        assert value(agent, "applied_records_total", **effect) == 0
    for outcome in BLOCK_OUTCOMES:
        effect = {**place(TOPIC), "suite": "hybrid", "outcome": outcome}
        assert value(agent, "applied_blocks_total", **effect) == 0
    for name in ("produce_duration_seconds_count", "apply_duration_seconds_count"):
        topic = OPEN if name.startswith("produce") else TOPIC
        assert value(agent, name, **place(topic)) == 0
    assert value(agent, "capture_changes_total", source="registry", level="public") == 0
    gateway = GatewayMetrics(RULES).registry
    for reason in RECORD_REASONS:
        assert value(gateway, "gateway_denied_total", level="secret", reason=reason) == 0
    assert value(gateway, "gateway_admitted_records_total", level="") == 0
    for limit in CUTS:
        assert value(gateway, "gateway_cut_connections_total", limit=limit) == 0
    for api in GATEWAY_APIS:
        assert value(gateway, "gateway_requests_total", api=api, outcome="ok") == 0
    authority = AuthorityMetrics().registry
    for reason in Reason:
        assert value(authority, "authority_attestation_failures_total", reason=reason) == 0
    for operation in OPERATIONS:
        assert value(authority, "authority_requests_total", operation=operation, result="ok") == 0


def test_agent_counts_what_it_seals_opens_applies_and_refuses() -> None:
    metrics = AgentMetrics(RULES)
    metrics.reads(TOPIC, "hybrid")
    metrics.sealed(TOPIC, "hybrid", changes=5, plaintext_bytes=100, sealed_bytes=150)
    metrics.seal_took("secret", "hybrid", 0.001)
    metrics.opened(TOPIC, "hybrid", changes=3, sealed_bytes=70, seconds=0.002)
    metrics.rejected(TOPIC, Reason.REPLAYED, 4)
    metrics.rejected(TOPIC, Reason.INTERNAL)
    metrics.refused(TOPIC, Reason.TOO_OLD, 6)
    metrics.produce_took(TOPIC, 0.01)
    metrics.apply_took(TOPIC, 0.01)
    metrics.applied(TOPIC, "applied", 7)
    metrics.applied(TOPIC, "duplicate")
    metrics.applied_block(TOPIC, "applied")
    metrics.captured("registry", "secret", 9)
    found = metrics.registry
    took = {"level": "secret", "suite": "hybrid"}
    pair = {**place(TOPIC), "suite": "hybrid"}
    assert value(found, "sealed_records_total", **pair) == 5
    assert value(found, "sealed_blocks_total", **pair) == 1
    assert value(found, "sealed_plaintext_bytes_total", **pair) == 100
    assert value(found, "sealed_bytes_total", **pair) == 150
    assert value(found, "seal_duration_seconds_count", **took) == 1
    assert value(found, "opened_records_total", **pair) == 3
    assert value(found, "opened_bytes_total", **pair) == 70
    assert value(found, "open_duration_seconds_count", **took) == 1
    assert value(found, "rejected_records_total", **pair, reason="replayed") == 1
    assert value(found, "rejected_rows_total", **pair, reason="replayed") == 4
    assert value(found, "rejected_rows_total", **pair, reason="internal") == 0
    assert value(found, "refused_blocks_total", **pair, reason="too_old") == 1
    assert value(found, "refused_rows_total", **pair, reason="too_old") == 6
    assert value(found, "applied_records_total", **pair, outcome="applied") == 7
    assert value(found, "applied_records_total", **pair, outcome="duplicate") == 1
    assert value(found, "applied_blocks_total", **pair, outcome="applied") == 1
    assert value(found, "produce_duration_seconds_count", **place(TOPIC)) == 1
    assert value(found, "apply_duration_seconds_count", **place(TOPIC)) == 1
    assert value(found, "capture_changes_total", source="registry", level="secret") == 9


def test_agent_shows_lag_never_below_zero() -> None:
    metrics = AgentMetrics(RULES)
    metrics.lag(TOPIC, 0, records=-3, seconds=-1.0, measured=1.0)
    metrics.capture_lag("registry", seconds=-2, log_bytes=-1, rows_left=-1)
    metrics.end_to_end(TOPIC, -5)
    stream = {**place(TOPIC), "partition": "0"}
    assert value(metrics.registry, "consumer_lag_records", **stream) == 0
    assert value(metrics.registry, "consumer_lag_seconds", **stream) == 0
    assert value(metrics.registry, "capture_lag_seconds", source="registry") == 0
    metrics.lag(TOPIC, 0, records=0, seconds=9.0, measured=2.0)
    assert value(metrics.registry, "consumer_lag_seconds", **stream) == 0
    metrics.lag(TOPIC, 0, records=12, seconds=3.5, measured=3.0)
    assert value(metrics.registry, "consumer_lag_timestamp_seconds", **stream) == 3
    metrics.capture_lag("registry", seconds=2, log_bytes=10, rows_left=4)
    assert value(metrics.registry, "consumer_lag_records", **stream) == 12
    assert value(metrics.registry, "consumer_lag_seconds", **stream) == 3.5
    assert value(metrics.registry, "snapshot_rows_remaining", source="registry") == 4
    assert value(metrics.registry, "end_to_end_latency_seconds_sum", **place(TOPIC)) == 0


def test_agent_shows_trust_and_datasets() -> None:
    metrics = AgentMetrics(RULES)
    metrics.attested(4, NOW - timedelta(minutes=10), NOW)
    metrics.epoch_serves(TOPIC, 2)
    metrics.granted(TOPIC, 3)
    metrics.approved_until(NOW + timedelta(days=30))
    metrics.attestation("attested")
    metrics.epoch(TOPIC, 4, NOW)
    metrics.quarantine(TOPIC, 2)
    metrics.incomplete(TOPIC, True)
    metrics.silent(TOPIC, 0, True)
    metrics.moved(TOPIC, "sends", 5.0)
    metrics.capture_alive("registry", NOW)
    found, dataset = metrics.registry, {"topic": str(TOPIC), "level": "secret"}
    assert value(found, "attestation_expiry_timestamp_seconds") == NOW.timestamp()
    assert value(found, "attestation_lifetime_seconds") == 600
    assert value(found, "attestation_host_level") == 4
    assert value(found, "key_epoch_recipients", **dataset) == 2
    assert value(found, "grants_given_total", **dataset) == 3
    month = (NOW + timedelta(days=30)).timestamp()
    assert value(found, "approval_expiry_timestamp_seconds") == month
    assert value(found, "attestation_attempts_total", result="attested") == 1
    assert value(found, "key_epoch", **dataset) == 4
    assert value(found, "last_change_timestamp_seconds", way="sends", **dataset) == 5
    assert value(found, "key_epoch_start_timestamp_seconds", **dataset) == NOW.timestamp()
    assert value(found, "key_epoch_max_age_seconds") == EPOCH_AGE_S_MAX
    assert value(found, "quarantine_records", **dataset) == 2
    assert value(found, "dataset_incomplete", **dataset) == 1
    assert value(found, "stream_silent", partition="0", **dataset) == 1
    assert value(found, "capture_heartbeat_timestamp_seconds", source="registry") == NOW.timestamp()


def test_every_role_shows_policy_revocations_and_audit() -> None:
    for metrics in (AgentMetrics(RULES), GatewayMetrics(RULES), AuthorityMetrics()):
        metrics.policy(7, NOW)
        metrics.policy_refused()
        metrics.revocations(3, NOW)
        metrics.revocations(4, None)
        metrics.audit_failed()
        metrics.audit_written()
        metrics.loop_late(0.01)
        metrics.audit_unsigned(5)
        metrics.certificate(NOW)
        found = metrics.registry
        assert value(found, "policy_version") == 7
        assert value(found, "policy_expiry_timestamp_seconds") == NOW.timestamp()
        assert value(found, "policy_refresh_failures_total") == 1
        assert value(found, "revocation_list_number") == 4
        assert value(found, "revocation_list_timestamp_seconds") == NOW.timestamp()
        assert value(found, "audit_write_failures_total") == 1
        assert value(found, "audit_events_total") == 1
        assert value(found, "event_loop_lag_seconds_count") == 1
        assert value(found, "audit_unsigned_lines") == 5
        assert value(found, "certificate_expiry_timestamp_seconds") == NOW.timestamp()


def test_who_has_heard_no_heartbeat_has_waited_since_its_start() -> None:
    before = time.time()
    for metrics in (AgentMetrics(RULES), GatewayMetrics(RULES), AuthorityMetrics()):
        metrics.revocations(0, None)
        since = value(metrics.registry, "revocation_list_timestamp_seconds")
        assert before <= since <= time.time()


def test_parts_that_wait_are_counted_by_kind_while_the_process_serves() -> None:
    registry = AgentMetrics(RULES).registry
    parts = {"apply a:0": "gap", "apply b:0": "gap", "capture c": None, "figures": "internal"}
    with watching(registry, lambda: parts):
        seen = {kind: value(registry, "parts_waiting", part=kind) for kind in PARTS}
        assert seen.pop("apply") == 2
        assert seen.pop("other") == 1
        assert set(seen.values()) == {0}
    assert value(registry, "parts_waiting", part="apply") is None


def test_gateway_counts_requests_and_verdicts() -> None:
    metrics = GatewayMetrics(RULES)
    metrics.request("produce", is_ok=True, seconds=0.01)
    metrics.request("fetch", is_ok=False, seconds=0.01)
    metrics.admitted("secret", 3)
    metrics.denied("secret", Reason.NOT_SEALED)
    metrics.denied("", Reason.TOPIC_UNKNOWN)
    metrics.connections(5)
    metrics.cut("handshake")
    found = metrics.registry
    assert value(found, "gateway_requests_total", api="produce", outcome="ok") == 1
    assert value(found, "gateway_requests_total", api="other", outcome="refused") == 1
    assert value(found, "gateway_admitted_records_total", level="secret") == 3
    assert value(found, "gateway_denied_total", level="secret", reason="not_sealed") == 1
    assert value(found, "gateway_denied_total", level="", reason="topic_unknown") == 1
    assert value(found, "gateway_connections") == 5
    assert value(found, "gateway_cut_connections_total", limit="handshake") == 1


def test_authority_counts_requests_refusals_and_hosts() -> None:
    metrics = AuthorityMetrics()
    metrics.request("attest", "refused", 0.1)
    metrics.attestation_refused(Reason.STATE_REFUSED)
    metrics.hosts("attested", 3)
    metrics.notice("suspension")
    found = metrics.registry
    assert value(found, "authority_requests_total", operation="attest", result="refused") == 1
    assert value(found, "authority_attestation_failures_total", reason="state_refused") == 1
    assert value(found, "authority_agents", state="attested") == 3
    assert value(found, "authority_notices_total", kind="suspension") == 1


def test_word_outside_its_closed_set_is_our_bug() -> None:
    agent, authority = AgentMetrics(RULES), AuthorityMetrics()
    with pytest.raises(UsageError):
        agent.applied(TOPIC, "lost")
    with pytest.raises(UsageError):
        agent.attestation("perhaps")
    with pytest.raises(UsageError):
        authority.request("delete", "ok", 0.1)
    with pytest.raises(UsageError):
        authority.hosts("asleep", 1)


@pytest.mark.parametrize("role", ["agent", "gateway", "authority"])
def test_names_help_and_labels_follow_the_rules(role: str) -> None:
    made = {
        "agent": lambda: AgentMetrics(RULES).registry,
        "gateway": lambda: GatewayMetrics(RULES).registry,
        "authority": lambda: AuthorityMetrics().registry,
    }
    registry = made[role]()
    text = generate_latest(registry).decode()
    assert "_created" not in text
    for family in registry.collect():
        if not family.name.startswith("fabric_"):
            assert family.name.startswith(("process_", "python_"))
            continue
        assert re.fullmatch(r"fabric_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        assert not {label for sample in family.samples for label in sample.labels} & FORBIDDEN


def test_a_sealed_dataset_has_no_epoch_and_no_recipients_before_the_first() -> None:
    metrics = AgentMetrics(RULES)
    metrics.publishes(TOPIC, "hybrid", "registry")
    metrics.publishes(OPEN, "", "registry")
    found = metrics.registry
    for name in ("key_epoch", "key_epoch_recipients", "grants_given_total"):
        assert value(found, name, **place(TOPIC)) == 0
        assert value(found, name, **place(OPEN)) is None
    assert value(found, "key_epoch_start_timestamp_seconds", **place(TOPIC)) is None


def test_what_is_refused_and_applied_goes_by_the_suite_that_policy_demands_now() -> None:
    metrics = AgentMetrics(RULES)
    for suite in ("classic", "hybrid"):
        metrics.reads(TOPIC, suite)
        metrics.rejected(TOPIC, Reason.SUITE_REFUSED)
    for suite in ("classic", "hybrid"):
        labels = {**place(TOPIC), "suite": suite, "reason": "suite_refused"}
        assert value(metrics.registry, "rejected_records_total", **labels) == 1


def test_a_build_names_its_version_and_its_suites() -> None:
    text = generate_latest(GatewayMetrics(RULES).registry).decode()
    (build,) = re.findall(r"^fabric_build_info\{(.*)\} 1.0$", text, re.M)
    assert 'suites="classic hybrid hybrid-tpm hybrid-top"' in build
    assert f'version="{version("agency-fabric")}"' in build
