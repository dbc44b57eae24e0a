"""The schema registry of open datasets: the read-only part of Confluent's REST interface.

Subject `<topic>-value`, always version 1, ids from the policy: with it any Kafka tool
reads what travels in the open form. Sealed datasets have no subject. Pure: a policy and
a path in, a JSON document out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fabric.model.errors import DeniedError
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_SUFFIX = "-value"
_VERSION = 1
_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA, _BAD_VERSION = 40401, 40402, 40403, 42202

Json: TypeAlias = "str | int | Sequence[Json] | Mapping[str, Json]"


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and JSON document."""

    status: int
    document: Json


def subjects(policy: Policy) -> Answer:
    """GET /subjects"""
    return Answer(200, [f"{dataset.topic}{_SUFFIX}" for dataset in _open(policy)])


def schema(policy: Policy, ident: str) -> Answer:
    """GET /schemas/ids/{id}"""
    for dataset in _open(policy):
        if str(dataset.schema_id) == ident:
            return Answer(200, {"schema": _text(dataset)})
    return _error(404, _NO_SCHEMA, "Schema not found")


def versions(policy: Policy, subject: str) -> Answer:
    """GET /subjects/{subject}/versions"""
    if _dataset(policy, subject) is None:
        return _error(404, _NO_SUBJECT, "Subject not found")
    return Answer(200, [_VERSION])


def version(policy: Policy, subject: str, number: str) -> Answer:
    """GET /subjects/{subject}/versions/{version}, a number or `latest`."""
    dataset = _dataset(policy, subject)
    if dataset is None:
        return _error(404, _NO_SUBJECT, "Subject not found")
    if number != "latest" and not (number.isascii() and number.isdigit()):
        return _error(422, _BAD_VERSION, "The specified version is not a valid version id")
    if number not in ("latest", str(_VERSION)):
        return _error(404, _NO_VERSION, "Version not found")
    document: Json = {
        "subject": subject,
        "id": dataset.schema_id,
        "version": _VERSION,
        "schema": _text(dataset),
    }
    return Answer(200, document)


def _error(status: int, code: int, message: str) -> Answer:
    return Answer(status, {"error_code": code, "message": message})


def _open(policy: Policy) -> Sequence[Dataset]:
    found = []
    for name in sorted(policy.datasets):
        dataset = policy.datasets[name]
        try:
            is_sealed = decide.rule_of(policy, dataset).sealed
        except DeniedError:
            continue
        if not is_sealed:
            found.append(dataset)
    return found


def _dataset(policy: Policy, subject: str) -> Dataset | None:
    return next((d for d in _open(policy) if subject == f"{d.topic}{_SUFFIX}"), None)


def _text(dataset: Dataset) -> str:
    return json.dumps(dataset.schema.change_declared, ensure_ascii=False, separators=(",", ":"))
