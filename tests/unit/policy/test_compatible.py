"""A new schema reads what the old one wrote, by Avro's rules, and keeps its key."""

import json
from typing import Any

import pytest

from fabric.model.schema import RowSchema
from fabric.policy.compatible import why_not


def schema(*fields: Any, key: tuple[str, ...] = ("id",)) -> RowSchema:
    own = [{"name": "id", "type": "long"}, *fields]
    return RowSchema.parse(json.dumps({"type": "record", "name": "Row", "fields": own}), key)


NAME: Any = {"name": "name", "type": "string"}
PHONE: Any = {"name": "phone", "type": ["null", "string"], "default": None}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (schema(NAME), schema(NAME)),
        (schema(NAME), schema(NAME, PHONE)),
        (schema(NAME, PHONE), schema(NAME)),
        (schema({"name": "n", "type": "int"}), schema({"name": "n", "type": "long"})),
        (schema(NAME), schema({"name": "name", "type": ["null", "string"], "default": None})),
    ],
    ids=["same", "field-with-default", "field-removed", "wider", "nullable"],
)
def test_schema_that_reads_the_old_one_is_taken(old: RowSchema, new: RowSchema) -> None:
    assert why_not(old, new) is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (schema(), schema(NAME), "name"),
        (schema(NAME), schema({"name": "name", "type": "long"}), "cannot read"),
        (schema(PHONE), schema({"name": "phone", "type": "string"}), "cannot read"),
        (
            schema({"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}),
            schema({"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}),
            "B",
        ),
        (schema(NAME), schema(NAME, key=("id", "name")), "changes the key"),
    ],
    ids=["no-default", "other-type", "null-lost", "symbol-lost", "key"],
)
def test_schema_that_cannot_read_the_old_one_says_why(
    old: RowSchema, new: RowSchema, why: str
) -> None:
    assert why in (why_not(old, new) or "")


def test_key_of_another_type_is_another_key() -> None:
    other = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "string"}]}
    assert why_not(schema(), RowSchema.parse(json.dumps(other), ("id",))) is not None
