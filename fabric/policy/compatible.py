"""Whether a dataset's new schema can read what its old one wrote: Avro's own rules.

The rules are the `avro` package's; its checker says nothing of our own demand that a
key never changes, so that stands here.
"""

import json

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from fabric.model.schema import RowSchema


def why_not(old: RowSchema, new: RowSchema) -> str | None:
    """Why rows of the old schema cannot be read with the new one; None when they can."""
    if old.key != new.key or any(old.type_of(n) != new.type_of(n) for n in new.key):
        return "changes the key; make a new dataset"
    try:
        reader, writer = (avro.schema.parse(json.dumps(item.declared)) for item in (new, old))
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # avro has none
        found = checker.get_compatibility(reader, writer)
    except (avro.errors.AvroException, ValueError, KeyError, TypeError) as exc:
        return f"cannot be compared with the published one ({type(exc).__name__})"
    if found.compatibility is SchemaCompatibilityType.compatible:
        return None
    reasons = sorted(str(message) for message in found.messages)
    return f"cannot read what the published one wrote: {'; '.join(reasons)[:300]}"
