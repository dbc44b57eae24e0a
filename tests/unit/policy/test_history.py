"""What a newer policy makes unreadable is named, rule by rule."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fabric.policy.history import Cut, cuts
from fabric.policy.types import Policy
from tests.fakes.policy_files import OPEN_TOPIC, SCHEMA, SENDER, TOPIC, documents, files, load

NOW = datetime(2026, 9, 1, tzinfo=UTC)
DATASET = "datasets/G01/residents.yaml"
OPEN_DATASET = "datasets/G01/wards.yaml"


def step(change: Callable[[dict[str, Any]], object], **schema: bytes) -> list[Cut]:
    changed = documents()
    change(changed)
    return list(cuts(load(files()), load({**files(changed), **schema}), NOW))


def rules(before: Policy, after: Policy) -> list[str]:
    """What the step says of the sealed dataset."""
    return [found.rule for found in cuts(before, after, NOW) if found.topic == TOPIC]


def level(changed: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in changed["levels.yaml"] if item["name"] == name)
    return found


def raise_minimum(changed: dict[str, Any]) -> None:
    level(changed, "secret")["host_level_min"] = 5


def other_key(changed: dict[str, Any]) -> None:
    changed["policy.yaml"]["trust"]["verifier"]["keys"][0]["public"] = "09" * 32


def refuse_suite(changed: dict[str, Any]) -> None:
    changed["suites.yaml"].append({"id": "hybrid-top", "status": "approved"})
    for name in ("confidential", "secret", "top-secret"):
        level(changed, name)["suites"] = ["hybrid-top"]
    changed["suites.yaml"][1]["status"] = "refused"
    changed[DATASET]["suite"] = "hybrid-top"


def deprecate_suite(changed: dict[str, Any]) -> None:
    refuse_suite(changed)
    level(changed, "secret")["suites"] = ["hybrid-top", "hybrid"]
    changed["suites.yaml"][1] |= {"status": "deprecated", "until": "2026-08-31T00:00:00Z"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (raise_minimum, "levels.yaml: secret.host_level_min: rises from 4 to 5"),
        (
            lambda c: level(c, "secret").update(delivery_s=30),
            "levels.yaml: secret.delivery_s: falls from 60 to 30",
        ),
        (
            refuse_suite,
            "suites.yaml, levels.yaml: hybrid opens nothing at level secret any more",
        ),
        (deprecate_suite, "suites.yaml: hybrid.until: 2026-08-31 00:00:00+00:00 has passed"),
        (
            lambda c: c[DATASET].update(producers=["G01/other/registry"]),
            f"{DATASET}: producers: G01/registry/registry is taken out",
        ),
        (
            lambda c: c[DATASET].update(label="secret+health+personal-data"),
            f"{DATASET}: label: secret+personal-data becomes secret+health+personal-data",
        ),
        (
            lambda c: c[DATASET].update(level="top-secret", label="top-secret+personal-data"),
            f"{DATASET}: is withdrawn or moves to another level",
        ),
        (lambda c: c.pop(DATASET), f"{DATASET}: is withdrawn or moves to another level"),
        (other_key, "policy.yaml: trust.verifier.keys: are others"),
    ],
)
def test_a_step_that_refuses_older_blocks_is_named_with_its_dataset_and_hosts(
    change: Callable[[dict[str, Any]], object], rule: str
) -> None:
    (found,) = step(change)
    assert (found.topic, found.rule) == (TOPIC, rule)
    assert [*map(str, found.hosts)] == [SENDER]
    assert str(found).startswith(f"{TOPIC}: {rule}: blocks of {SENDER} that are in the log")


def test_another_schema_refuses_blocks_of_the_one_before() -> None:
    more = SCHEMA.replace(b'"phone"', b'"mobile"')
    found = step(lambda _: None, **{"schemas/G01/residents.avsc": more})
    assert [(item.topic, item.rule) for item in found] == [
        (OPEN_TOPIC, f"{OPEN_DATASET}: schema: changes"),
        (TOPIC, f"{DATASET}: schema: changes"),
    ]


def test_a_kind_of_evidence_that_is_taken_out_refuses_what_rested_on_it() -> None:
    before = load(files())
    rules = {**before.rules, "secret": replace(before.rules["secret"], evidence=frozenset())}
    (found,) = cuts(before, replace(before, rules=rules), NOW)
    assert found.rule == "levels.yaml: secret.evidence: tpm2 is taken out"


def with_keys(policy: Policy, keys: int, former: int | None = None) -> Policy:
    """Under one verifier key of this number, and one of before."""
    named = [() if n is None else ((-19, bytes([n]) * 32),) for n in (keys, former)]
    trust = replace(policy.trust, verifier_keys=named[0], former_keys=named[1])
    return replace(policy, trust=trust)


def test_keys_that_become_former_ones_cut_nothing_and_their_end_does() -> None:
    before = with_keys(load(files()), 1)
    planned = with_keys(before, 2, former=1)
    assert rules(before, planned) == []
    taken_out = ["policy.yaml: trust.verifier.former: loses keys"]
    assert rules(planned, with_keys(before, 2)) == taken_out
    assert rules(planned, with_keys(before, 3, former=2)) == taken_out
    assert rules(planned, with_keys(before, 1)) == ["policy.yaml: trust.verifier.keys: are others"]
    assert rules(planned, with_keys(before, 1, former=2)) == []


def test_a_suite_that_was_left_and_ends_before_now_is_named() -> None:
    """The tools do not know when the dataset left it: blocks after that date may lie there."""
    changed = documents()
    refuse_suite(changed)
    changed["suites.yaml"][1]["status"] = "approved"
    level(changed, "secret")["suites"] = ["hybrid-top", "hybrid"]
    left = load(files(changed))
    for until, found in (
        ("2026-08-31", ["suites.yaml: hybrid.until: 2026-08-31 00:00:00+00:00 has passed"]),
        ("2026-09-02", []),
    ):
        changed["suites.yaml"][1] |= {"status": "deprecated", "until": f"{until}T00:00:00Z"}
        assert rules(left, load(files(changed))) == found


@pytest.mark.parametrize(
    ("custodians", "found"),
    [
        ([], [f"{DATASET}: custodians: G02/health/host-b is taken out, with what it granted"]),
        (["G02/health/host-b", "G03/statistics/host-c"], []),
        (["G02/health"], []),
    ],
)
def test_a_custodian_that_is_taken_out_takes_its_grants_with_it(
    custodians: list[str], found: list[str]
) -> None:
    changed = documents()
    changed[DATASET]["custodians"] = ["G02/health/host-b"]
    before = load(files(changed))
    changed[DATASET]["custodians"] = custodians
    assert rules(before, load(files(changed))) == found


def test_a_level_that_becomes_sealed_refuses_what_was_sent_openly() -> None:
    after = load(files())
    rule = replace(after.rules["secret"], sealed=False)
    before = replace(after, rules={**after.rules, "secret": rule})
    assert rules(before, after) == ["levels.yaml: secret.sealed: becomes true"]
    assert rules(after, before) == ["levels.yaml: secret.sealed: becomes false"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda c: c[OPEN_DATASET].update(schema_id=9), "schema_id: 2 becomes 9"),
        (
            lambda c: c[OPEN_DATASET].update(producers=["G01/other/registry"]),
            "producers: G01/registry/registry is taken out",
        ),
        (lambda c: c.pop(OPEN_DATASET), "is withdrawn or moves to another level"),
    ],
)
def test_a_step_that_refuses_older_records_of_an_open_dataset_is_named(
    change: Callable[[dict[str, Any]], object], rule: str
) -> None:
    (found,) = step(change)
    assert (found.topic, found.rule) == (OPEN_TOPIC, f"{OPEN_DATASET}: {rule}")
    assert [*map(str, found.hosts)] == [SENDER]


def test_a_raised_minimum_names_only_hosts_that_are_below_it() -> None:
    changed = documents()
    changed[f"approvals/{SENDER}.yaml"]["security_level"] = 5
    before: Policy = load(files(changed))
    raise_minimum(changed)
    (found,) = cuts(before, load(files(changed)), NOW)
    assert found.hosts == ()
    assert "blocks of hosts under earlier approvals" in str(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda c: level(c, "secret").update(delivery_s=90),
        lambda c: level(c, "public").update(delivery_s=1),
        lambda c: c[DATASET].update(consumers=["G02/health"]),
        lambda c: c[f"approvals/{SENDER}.yaml"].update(security_level=3),
        lambda c: c["suites.yaml"][1].update(until="2026-10-01T00:00:00Z"),
    ],
)
def test_a_step_after_which_the_log_reads_as_before_is_not_named(
    change: Callable[[dict[str, Any]], object],
) -> None:
    assert step(change) == []


def test_the_first_policy_cuts_nothing_off() -> None:
    assert cuts(None, load(files()), NOW) == ()
