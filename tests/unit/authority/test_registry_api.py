"""The schema registry: Confluent's answers, for open datasets alone."""

import json

import fastavro
import pytest

from fabric.authority import registry_api
from fabric.policy.types import Policy
from tests.fakes import policy_files
from tests.fakes.policy_files import OPEN_TOPIC, TOPIC

SUBJECT = f"{OPEN_TOPIC}-value"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_files.policy()


def test_only_open_datasets_have_subjects(policy: Policy) -> None:
    assert registry_api.subjects(policy).document == [SUBJECT]


def test_a_schema_is_found_by_its_id_and_is_avro(policy: Policy) -> None:
    answer = registry_api.schema(policy, "2")
    assert answer.status == 200
    schema = json.loads(answer.document["schema"])
    fastavro.parse_schema(schema)
    assert schema == policy.datasets[OPEN_TOPIC].schema.change_declared


def test_a_sealed_datasets_schema_is_not_served(policy: Policy) -> None:
    assert policy.datasets[TOPIC].schema_id == 1
    assert registry_api.schema(policy, "1").document["error_code"] == 40403
    assert registry_api.versions(policy, f"{TOPIC}-value").document["error_code"] == 40401


@pytest.mark.parametrize("ident", ["", "02", "x", "-2", "2.0", "999"])
def test_an_unknown_id_is_not_found(policy: Policy, ident: str) -> None:
    answer = registry_api.schema(policy, ident)
    assert (answer.status, answer.document["error_code"]) == (404, 40403)


def test_a_subject_has_one_version(policy: Policy) -> None:
    assert registry_api.versions(policy, SUBJECT).document == [1]
    latest = registry_api.version(policy, SUBJECT, "latest")
    assert latest == registry_api.version(policy, SUBJECT, "1")
    assert latest.document["id"] == 2
    assert latest.document["subject"] == SUBJECT


@pytest.mark.parametrize(
    ("subject", "number", "status", "code"),
    [
        ("other-value", "1", 404, 40401),
        (OPEN_TOPIC, "1", 404, 40401),
        (SUBJECT, "2", 404, 40402),
        (SUBJECT, "01", 404, 40402),
        (SUBJECT, "x", 422, 42202),
        (SUBJECT, "-1", 422, 42202),
        (SUBJECT, "\u0661", 422, 42202),
    ],
)
def test_what_is_not_there_is_said_in_confluents_words(
    policy: Policy, subject: str, number: str, status: int, code: int
) -> None:
    answer = registry_api.version(policy, subject, number)
    assert (answer.status, answer.document["error_code"]) == (status, code)
