"""Verdicts: what is allowed, and that everything else is not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fabric.model.errors import DeniedError, Reason
from fabric.model.label import Label
from fabric.model.names import HostId, Origin, Stream
from fabric.policy import decide
from fabric.policy.decide import Standing
from fabric.policy.types import Dataset, Policy
from tests.fakes.approvals import an_approval, approved
from tests.fakes.clock import START
from tests.fakes.policy_files import OPEN_TOPIC, READER, SENDER, TOPIC, documents, policy

NOW = START
SECRET = Label("secret", frozenset({"personal-data"}))


@pytest.fixture(scope="module", name="good")
def _good() -> Policy:
    return policy()


def standing(host: str = SENDER, **fields: Any) -> Standing:
    given = {"level": 4, "clearance": SECRET, "evidence": "tpm2", **fields}
    return Standing(host=HostId.parse(host), **given)


ALIEN = Origin("G02", "clinic", "wards")


def residents(given: Policy) -> Dataset:
    return given.datasets[TOPIC]


def test_producer_in_good_standing_may_publish(good: Policy) -> None:
    verdict = decide.publish(good, residents(good), standing(), suite="hybrid", now=NOW)
    assert verdict is None


@pytest.mark.parametrize(
    ("wrong", "suite", "reason"),
    [
        ({"host": READER}, "hybrid", Reason.NOT_A_PRODUCER),
        ({"host": "G01/other/host-a"}, "hybrid", Reason.NOT_A_PRODUCER),
        ({"host": "G02/registry/host-a"}, "hybrid", Reason.NOT_A_PRODUCER),
        ({"level": 3}, "hybrid", Reason.LEVEL_TOO_LOW),
        ({"evidence": "software"}, "hybrid", Reason.EVIDENCE_REFUSED),
        ({"evidence": ""}, "hybrid", Reason.EVIDENCE_REFUSED),
        ({"clearance": Label("secret")}, "hybrid", Reason.CLEARANCE_TOO_LOW),
        (
            {"clearance": Label("confidential", frozenset({"personal-data"}))},
            "hybrid",
            Reason.CLEARANCE_TOO_LOW,
        ),
        ({"clearance": Label("cosmic")}, "hybrid", Reason.CLEARANCE_TOO_LOW),
        ({}, "classic", Reason.SUITE_REFUSED),
        ({}, "", Reason.SUITE_REFUSED),
        ({}, "hybrid ", Reason.SUITE_REFUSED),
    ],
    ids=str,
)
def test_whoever_lacks_one_thing_may_neither_publish_nor_have_published(
    good: Policy, wrong: dict[str, Any], suite: str, reason: Reason
) -> None:
    who = standing(**wrong)
    assert decide.publish(good, residents(good), who, suite=suite, now=NOW) is reason
    assert decide.accept(good, residents(good), who, suite=suite, now=NOW) is reason


def test_higher_standing_than_needed_is_enough(good: Policy) -> None:
    who = standing(level=5, clearance=Label("top-secret", frozenset({"personal-data", "x"})))
    assert decide.publish(good, residents(good), who, suite="hybrid", now=NOW) is None


def test_open_dataset_takes_the_open_form_alone(good: Policy) -> None:
    wards = good.datasets[OPEN_TOPIC]
    who = standing(level=1, clearance=Label("public"))
    assert decide.publish(good, wards, who, suite="", now=NOW) is None
    assert decide.publish(good, wards, who, suite="hybrid", now=NOW) is Reason.SUITE_REFUSED
    assert decide.accept(good, wards, who, suite="hybrid", now=NOW) is Reason.SUITE_REFUSED


UNTIL = NOW + timedelta(days=10)
STATES: dict[str, dict[str, Any]] = {
    "approved": {"status": "approved"},
    "approved with a date": {"status": "approved", "until": UNTIL.isoformat()},
    "deprecated": {"status": "deprecated", "until": UNTIL.isoformat()},
    "refused": {"status": "refused"},
}


def moved(state: str, suite: str = "classic") -> tuple[Policy, Dataset]:
    """A confidential dataset of `suite`; `classic` is in `state`."""
    changed = documents()
    changed["datasets/G01/wards.yaml"].update(
        level="confidential", label="confidential", suite="hybrid"
    )
    changed["suites.yaml"][0].update(STATES[state])
    if state == "refused":
        changed["levels.yaml"][2]["suites"] = ["hybrid"]
    given = policy(changed)
    return given, replace(given.datasets["confidential.G01.wards"], suite=suite)


@pytest.mark.parametrize(
    ("state", "publish", "accept", "grant"),
    [
        # at the date's eve, and at the date
        ("approved", (True, True), (True, True), True),
        ("approved with a date", (True, False), (True, False), True),
        ("deprecated", (False, False), (True, False), True),
        ("refused", (False, False), (False, False), False),
    ],
)
def test_what_a_suite_may_still_do(
    state: str, publish: tuple[bool, bool], accept: tuple[bool, bool], grant: bool
) -> None:
    given, wards = moved(state)
    who = standing()
    for at, may_publish, may_accept in zip(
        (UNTIL - timedelta(seconds=1), UNTIL), publish, accept, strict=True
    ):
        for ask, may in (
            (decide.publish, may_publish),
            (decide.accept, may_accept),
            (decide.grant, grant),
        ):
            why = ask(given, wards, who, suite="classic", now=at)
            assert why is (None if may else Reason.SUITE_REFUSED), (ask, at)


def test_history_of_another_suite_of_the_level_may_still_be_opened_but_not_made() -> None:
    given, wards = moved("approved", suite="hybrid")
    assert decide.accept(given, wards, standing(), suite="classic", now=NOW) is None
    why = decide.publish(given, wards, standing(), suite="classic", now=NOW)
    assert why is Reason.SUITE_REFUSED


def test_who_may_not_send_grants_nothing_either() -> None:
    given, wards = moved("approved")
    for wrong, reason in (
        (standing(READER), Reason.NOT_A_PRODUCER),
        (standing(level=2), Reason.LEVEL_TOO_LOW),
    ):
        assert decide.grant(given, wards, wrong, suite="classic", now=NOW) is reason
    expired = decide.grant(given, wards, standing(), suite="classic", now=given.expires)
    assert expired is Reason.POLICY_EXPIRED


def test_a_host_needs_keys_of_every_suite_of_the_levels_it_may_hold() -> None:
    changed = documents()
    changed["suites.yaml"].append({"id": "hybrid-top", "status": "approved"})
    changed["levels.yaml"][4]["suites"] = ["hybrid", "hybrid-top"]
    host = HostId.parse(SENDER)
    assert decide.suites_of(policy(changed), host) == ("hybrid", "classic")
    approval = changed[f"approvals/{SENDER}.yaml"]
    approval.update(security_level=5, clearance="top-secret")
    assert decide.suites_of(policy(changed), host) == ("hybrid", "classic", "hybrid-top")
    approval.update(security_level=4)  # cleared, but the machine is not good enough
    assert decide.suites_of(policy(changed), host) == ("hybrid", "classic")
    approval.update(clearance="internal")
    assert decide.suites_of(policy(changed), host) == ()
    assert decide.suites_of(policy(changed), HostId.parse("G09/no/one")) == ()


def test_a_host_needs_keys_of_deprecated_suites_and_none_of_refused_ones() -> None:
    host = HostId.parse(SENDER)
    assert "classic" in decide.suites_of(moved("deprecated")[0], host)
    assert "classic" not in decide.suites_of(moved("refused")[0], host)


def test_expired_policy_allows_nothing(good: Policy) -> None:
    late = good.expires
    good = replace(good, approvals=approved(HostId.parse(SENDER), HostId.parse(READER)))
    who, reader = standing(), standing(READER)
    dataset = residents(good)
    expired = Reason.POLICY_EXPIRED
    assert decide.publish(good, dataset, who, suite="hybrid", now=late) is expired
    assert decide.publish(good, dataset, who, suite="rot13", now=late) is expired
    assert decide.accept(good, dataset, who, suite="hybrid", now=late) is expired
    assert decide.read(good, dataset, reader, late) is expired
    with pytest.raises(DeniedError) as caught:
        decide.approval_of(good, HostId.parse(SENDER), late)
    assert caught.value.reason is expired
    assert decide.read(good, dataset, reader, late - timedelta(microseconds=1)) is None


@pytest.mark.parametrize("host", [READER, "G02/health/any", "G03/statistics/host-c"])
def test_named_host_or_host_of_a_named_system_may_read(good: Policy, host: str) -> None:
    assert decide.is_named(residents(good), HostId.parse(host))
    good = replace(good, approvals=approved(HostId.parse(host)))
    assert decide.read(good, residents(good), standing(host), NOW) is None


@pytest.mark.parametrize(
    "host",
    [SENDER, "G03/statistics/host-d", "G03/health/host-c", "G02/healt/h", "G02/statistics/a"],
)
def test_host_that_is_not_named_may_not_read(good: Policy, host: str) -> None:
    assert not decide.is_named(residents(good), HostId.parse(host))
    assert decide.read(good, residents(good), standing(host), NOW) is Reason.NOT_A_CONSUMER


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"level": 3}, Reason.LEVEL_TOO_LOW),
        ({"clearance": Label("internal")}, Reason.CLEARANCE_TOO_LOW),
        ({"evidence": "x"}, Reason.EVIDENCE_REFUSED),
    ],
    ids=str,
)
def test_named_reader_in_low_standing_may_not_read(
    good: Policy, wrong: dict[str, Any], reason: Reason
) -> None:
    assert decide.read(good, residents(good), standing(READER, **wrong), NOW) is reason


def held(given: Policy, who: Standing, now: datetime = NOW) -> set[Reason | None]:
    """What every question about now says of a host that sends, reads and keeps residents."""
    mine = residents(given)
    mine = replace(mine, consumers=(str(who.host),), custodians=(str(who.host),))
    return {
        decide.publish(given, mine, who, suite="hybrid", now=now),
        decide.grant(given, mine, who, suite="hybrid", now=now),
        decide.custody(given, mine, who, suite="hybrid", now=now),
        decide.read(given, mine, who, now),
    }


def of_then(given: Policy, who: Standing) -> set[Reason | None]:
    """The same of the past."""
    mine = residents(given)
    mine = replace(mine, consumers=(str(who.host),), custodians=(str(who.host),))
    return {
        decide.accept(given, mine, who, suite="hybrid", now=NOW),
        decide.accept_grant(given, mine, who, suite="hybrid", now=NOW),
        decide.might_read(given, mine, who, NOW),
    }


@pytest.mark.parametrize(
    ("approval", "reason"),
    [
        (None, Reason.NOT_APPROVED),
        ({"not_before": NOW + timedelta(seconds=1)}, Reason.NOT_APPROVED),
        ({"not_after": NOW}, Reason.APPROVAL_EXPIRED),
        ({"security_level": 3}, Reason.LEVEL_TOO_LOW),
        ({"clearance": Label("secret")}, Reason.CLEARANCE_TOO_LOW),
        ({"clearance": Label("cosmic")}, Reason.CLEARANCE_TOO_LOW),
    ],
    ids=str,
)
def test_an_approval_that_is_withdrawn_or_lowered_ends_every_right_but_no_history(
    good: Policy, approval: dict[str, Any] | None, reason: Reason
) -> None:
    host = HostId.parse(SENDER)
    given = replace(good, approvals=approved(host))
    assert held(given, standing()) | of_then(given, standing()) == {None}
    now = {} if approval is None else {host: an_approval(host, **approval)}
    given = replace(good, approvals=now)
    assert held(given, standing()) == {reason}
    assert of_then(given, standing()) == {None}


def test_an_approval_that_is_raised_counts_with_the_next_result_alone(good: Policy) -> None:
    given = replace(good, approvals=approved(HostId.parse(SENDER)))
    assert held(given, standing(level=3)) == {Reason.LEVEL_TOO_LOW}
    assert held(given, standing(clearance=Label("secret"))) == {Reason.CLEARANCE_TOO_LOW}


def test_an_approval_that_a_newer_policy_may_hold_is_waited_for(good: Policy) -> None:
    given = replace(good, approvals={})
    assert held(given, standing(policy_version=good.version + 1)) == {Reason.POLICY_NEWER}
    assert held(given, standing(policy_version=good.version)) == {Reason.NOT_APPROVED}


def test_dataset_of_another_policy_is_refused_and_never_an_exception(good: Policy) -> None:
    alien = replace(residents(good), topic=replace(residents(good).topic, level="cosmic"))
    who = standing()
    assert decide.publish(good, alien, who, suite="hybrid", now=NOW) is Reason.SUITE_REFUSED
    assert decide.read(good, alien, standing(READER), NOW) is Reason.TOPIC_UNKNOWN
    with pytest.raises(DeniedError):
        decide.rule_of(good, alien)


def test_origins_are_those_of_the_hosts_system(good: Policy) -> None:
    mine = decide.origins_of(residents(good), HostId.parse("G01/registry/any"))
    assert mine == (Origin("G01", "registry", "registry"),)
    assert decide.origins_of(residents(good), HostId.parse(READER)) == ()


def test_a_host_has_the_streams_of_its_systems_origins_in_every_dataset(good: Policy) -> None:
    mine, origin = HostId.parse("G01/registry/any"), Origin("G01", "registry", "registry")
    before = decide.streams_of(good, mine)
    dataset = replace(residents(good), partitions=5)
    more = replace(good, datasets={**good.datasets, TOPIC: dataset})
    assert before >= 1
    assert decide.streams_of(more, mine) == before + 4
    assert decide.streams_of(more, HostId.parse(READER)) == 0
    for other, partition, expected in ((origin, 4, True), (origin, 5, False), (ALIEN, 0, False)):
        stream = Stream(other, dataset.topic, partition)
        assert decide.is_stream_of(more, mine, stream) is expected
    gone = Stream(origin, replace(dataset.topic, dataset="gone"), 0)
    assert not decide.is_stream_of(more, mine, gone)


def test_topic_has_its_dataset_and_rule_or_is_unknown(good: Policy) -> None:
    assert decide.rule_of(good, decide.dataset_of(good, TOPIC)).name == "secret"
    for topic in ("secret.G01.other", "", "fabric.members", "SECRET.G01.residents"):
        with pytest.raises(DeniedError) as caught:
            decide.dataset_of(good, topic)
        assert caught.value.reason is Reason.TOPIC_UNKNOWN


def test_an_unknown_topic_is_named_in_part_with_what_to_do(good: Policy) -> None:
    with pytest.raises(DeniedError, match=r"'secret\.G01\.other' belongs to no dataset") as caught:
        decide.dataset_of(good, "secret.G01.other")
    assert "correct it, or have the dataset published" in str(caught.value)
    with pytest.raises(DeniedError) as caught:
        decide.dataset_of(good, "x\n" * 5_000)
    said = str(caught.value)
    assert (len(said) < 400, said.isprintable()) == (True, True)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (datetime(2026, 7, 31, 23, 59, tzinfo=UTC), Reason.NOT_APPROVED),
        (datetime(2026, 10, 1, tzinfo=UTC), Reason.APPROVAL_EXPIRED),
    ],
)
def test_approval_holds_in_its_time_only(good: Policy, now: datetime, reason: Reason) -> None:
    host = HostId.parse(SENDER)
    assert decide.approval_of(good, host, datetime(2026, 8, 1, tzinfo=UTC)).host == host
    with pytest.raises(DeniedError) as caught:
        decide.approval_of(good, host, now)
    assert caught.value.reason is reason


def test_host_without_an_approval_is_not_approved(good: Policy) -> None:
    with pytest.raises(DeniedError) as caught:
        decide.approval_of(good, HostId.parse("G01/registry/other"), NOW)
    assert caught.value.reason is Reason.NOT_APPROVED


def test_only_the_datasets_own_schema_is_known(good: Policy) -> None:
    dataset = residents(good)
    decide.check_schema(dataset, dataset.schema.fingerprint)
    for other in (b"", bytes(32), dataset.schema.fingerprint[:-1]):
        with pytest.raises(DeniedError) as caught:
            decide.check_schema(dataset, other)
        assert caught.value.reason is Reason.SCHEMA_UNKNOWN


def with_custodians(*names: str, **fields: Any) -> Policy:
    changed = documents()
    changed["datasets/G01/residents.yaml"].update(custodians=list(names), **fields)
    return policy(changed)


@pytest.mark.parametrize("name", ["G02/health", READER])
def test_a_named_custodian_in_good_standing_may_grant(name: str) -> None:
    given = with_custodians(name)
    who = standing(READER)
    assert decide.custody(given, residents(given), who, suite="hybrid", now=NOW) is None


@pytest.mark.parametrize(
    ("wrong", "suite", "reason"),
    [
        ({"host": SENDER}, "hybrid", Reason.NOT_A_CUSTODIAN),
        ({"host": "G03/statistics/host-c"}, "hybrid", Reason.NOT_A_CUSTODIAN),
        ({"level": 3}, "hybrid", Reason.LEVEL_TOO_LOW),
        ({"clearance": Label("secret")}, "hybrid", Reason.CLEARANCE_TOO_LOW),
        ({"evidence": "software"}, "hybrid", Reason.EVIDENCE_REFUSED),
        ({}, "classic", Reason.SUITE_REFUSED),
        ({}, "", Reason.SUITE_REFUSED),
    ],
    ids=str,
)
def test_whoever_lacks_one_thing_is_no_custodian(
    wrong: dict[str, Any], suite: str, reason: Reason
) -> None:
    given = with_custodians("G02/health")
    who = standing(**{"host": READER, **wrong})
    assert decide.custody(given, residents(given), who, suite=suite, now=NOW) is reason
    late = given.expires + timedelta(seconds=1)
    verdict = decide.custody(given, residents(given), who, suite=suite, now=late)
    assert verdict is Reason.POLICY_EXPIRED
