"""Topics as the design demands them, and rights that only an attested, cleared host has."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.attest.members import MemberState
from fabric.authority import topics
from fabric.authority.ledger_rows import HostEntry
from fabric.model.label import Label
from fabric.model.limits import ENVELOPE_BYTES_MAX
from fabric.model.names import AUDIT, MEMBERS, RECEIPTS, RESULTS, HostId
from fabric.policy.decide import Standing
from fabric.policy.types import Policy
from tests.fakes import policy_files
from tests.fakes.clock import START
from tests.fakes.policy_files import OPEN_TOPIC, READER, SENDER, TOPIC
from tests.fakes.verifier import a_result, a_state

GRANTS = f"fabric.grants.{TOPIC}"
CONTROL = {MEMBERS, RESULTS, AUDIT}


def entry_of(host: str, **changes: object) -> HostEntry:
    ident = HostId.parse(host)
    state = a_state(a_result(host=ident))
    standing = Standing(
        host=ident, level=4, clearance=Label.parse("secret+personal-data"), evidence="tpm2"
    )
    return replace(HostEntry(state=state, standing=standing), **changes)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_files.policy()


def test_every_dataset_has_its_topic_and_every_sealed_one_its_grants(policy: Policy) -> None:
    names = [spec.name for spec in topics.specs(policy, 1)]
    assert names == [MEMBERS, RESULTS, AUDIT, RECEIPTS, OPEN_TOPIC, TOPIC, GRANTS]


def test_data_topics_keep_what_the_design_demands(policy: Policy) -> None:
    spec = next(s for s in topics.specs(policy, 3) if s.name == TOPIC)
    assert spec.partitions == policy.datasets[TOPIC].partitions
    assert spec.settings["message.timestamp.type"] == "LogAppendTime"
    assert spec.settings["cleanup.policy"] == "delete"
    assert spec.settings["compression.type"] == "uncompressed"
    assert spec.settings["unclean.leader.election.enable"] == "false"
    assert spec.settings["retention.ms"] == "604800000"
    assert spec.settings["min.insync.replicas"] == "2"
    assert int(spec.settings["max.message.bytes"]) > ENVELOPE_BYTES_MAX


def test_members_are_compacted_and_results_kept_as_long_as_any_data(policy: Policy) -> None:
    members, results, *_ = topics.specs(policy, 1)
    assert (members.partitions, results.partitions) == (1, 1)
    assert members.settings["cleanup.policy"] == "compact"
    assert "retention.ms" not in members.settings
    assert results.settings["retention.ms"] == "691200000"  # a week, and an epoch's age
    assert results.settings["min.insync.replicas"] == "1"


def test_a_reader_and_a_sender_may_read_data_and_grants(policy: Policy) -> None:
    for host in (READER, SENDER):
        found = topics.rights(policy, entry_of(host), START)
        assert found == {*CONTROL, RECEIPTS, TOPIC, GRANTS, OPEN_TOPIC}


def test_a_host_that_is_not_cleared_gets_no_ciphertext(policy: Policy) -> None:
    approval = policy.approvals[HostId.parse(READER)]
    lower = replace(approval, clearance=Label.parse("internal"))
    policy = replace(policy, approvals={lower.host: lower})
    assert topics.rights(policy, entry_of(READER), START) == {*CONTROL, OPEN_TOPIC}


def test_an_approval_that_sinks_takes_rights_before_the_next_result(policy: Policy) -> None:
    approval = policy.approvals[HostId.parse(READER)]
    lower = replace(approval, security_level=3)
    policy = replace(policy, approvals={lower.host: lower})
    assert TOPIC not in topics.rights(policy, entry_of(READER), START)


def test_an_approval_that_rises_gives_rights_with_the_next_result_alone(policy: Policy) -> None:
    entry = entry_of(READER)
    assert entry.standing is not None
    low = replace(entry.standing, clearance=Label.parse("internal"))
    assert TOPIC not in topics.rights(policy, replace(entry, standing=low), START)


def test_a_host_that_nobody_names_gets_control_topics_alone(policy: Policy) -> None:
    host = HostId.parse("G03/statistics/host-z")
    approval = replace(policy.approvals[HostId.parse(READER)], host=host)
    policy = replace(policy, approvals={host: approval})
    assert topics.rights(policy, entry_of(str(host)), START) == CONTROL


@pytest.mark.parametrize("state", [MemberState.SUSPENDED, MemberState.REVOKED])
def test_a_suspended_or_revoked_host_reads_nothing(policy: Policy, state: MemberState) -> None:
    entry = entry_of(READER)
    entry = replace(entry, state=replace(entry.state, state=state))
    assert topics.rights(policy, entry, START) == frozenset()


def test_a_host_without_result_approval_or_entry_reads_nothing(policy: Policy) -> None:
    assert topics.rights(policy, None, START) == frozenset()
    assert topics.rights(policy, entry_of(READER, standing=None), START) == frozenset()
    nobody = replace(policy, approvals={})
    assert topics.rights(nobody, entry_of(READER), START) == frozenset()
    later = policy.approvals[HostId.parse(READER)].not_after + timedelta(seconds=1)
    assert topics.rights(policy, entry_of(READER), later) == frozenset()


def test_a_result_that_has_ended_takes_nothing_away(policy: Policy) -> None:
    entry = entry_of(READER)
    ended = replace(entry.state, expires=START - timedelta(days=1))
    assert TOPIC in topics.rights(policy, replace(entry, state=ended), START)


def test_principals_are_read_back() -> None:
    host = HostId.parse(READER)
    assert topics.host_of(host.principal) == host
    for other in ("gateway", "verifier", "*", "a:b:c", "G01:x"):
        assert topics.host_of(other) is None
