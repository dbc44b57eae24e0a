"""What a newer policy makes unreadable is named, rule by rule."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fabric.policy.history import Cut, cuts
from fabric.policy.types import Policy
from tests.fakes.policy_files import SCHEMA, SENDER, TOPIC, documents, files, load

NOW = datetime(2026, 9, 1, tzinfo=UTC)
DATASET = "datasets/G01/residents.yaml"


def step(change: Callable[[dict[str, Any]], object], **schema: bytes) -> list[Cut]:
    changed = documents()
    change(changed)
    return list(cuts(load(files()), load({**files(changed), **schema}), NOW))


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
    (found,) = step(lambda _: None, **{"schemas/G01/residents.avsc": more})
    assert found.rule == f"{DATASET}: schema: changes"


def test_a_kind_of_evidence_that_is_taken_out_refuses_what_rested_on_it() -> None:
    before = load(files())
    rules = {**before.rules, "secret": replace(before.rules["secret"], evidence=frozenset())}
    (found,) = cuts(before, replace(before, rules=rules), NOW)
    assert found.rule == "levels.yaml: secret.evidence: tpm2 is taken out"


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
