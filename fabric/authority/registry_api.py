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
class NotFound(Exception):
    """Confluent's error document: HTTP status and error code."""

    status: int
    code: int
    message: str

    def document(self) -> Json:
        """The body."""
        return {"error_code": self.code, "message": self.message}


def subjects(policy: Policy) -> Json:
    """GET /subjects"""
    return [f"{dataset.topic}{_SUFFIX}" for dataset in _open(policy)]


def schema(policy: Policy, ident: str) -> Json:
    """GET /schemas/ids/{id}; raises NotFound."""
    for dataset in _open(policy):
        if str(dataset.schema_id) == ident:
            return {"schema": _text(dataset)}
    raise NotFound(404, _NO_SCHEMA, "Schema not found")


def versions(policy: Policy, subject: str) -> Json:
    """GET /subjects/{subject}/versions; raises NotFound."""
    _dataset(policy, subject)
    return [_VERSION]


def version(policy: Policy, subject: str, number: str) -> Json:
    """GET /subjects/{subject}/versions/{version}, a number or `latest`; raises NotFound."""
    dataset = _dataset(policy, subject)
    if number != "latest" and not (number.isascii() and number.isdigit()):
        raise NotFound(422, _BAD_VERSION, "The specified version is not a valid version id")
    if number not in ("latest", str(_VERSION)):
        raise NotFound(404, _NO_VERSION, "Version not found")
    return {
        "subject": subject,
        "id": dataset.schema_id,
        "version": _VERSION,
        "schema": _text(dataset),
    }


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


def _dataset(policy: Policy, subject: str) -> Dataset:
    for dataset in _open(policy):
        if subject == f"{dataset.topic}{_SUFFIX}":
            return dataset
    raise NotFound(404, _NO_SUBJECT, "Subject not found")


def _text(dataset: Dataset) -> str:
    return json.dumps(dataset.schema.change_declared, ensure_ascii=False, separators=(",", ":"))
