"""One change as bytes, for quarantine and outbox: the Avro datum of the open form."""

from io import BytesIO
from typing import Any

import fastavro

from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import Malformed
from fabric.model.names import Origin, Topic
from fabric.model.schema import RowSchema


def encode_change(change: Change, schema: RowSchema) -> bytes:
    """Write a change; raises Malformed when its row does not fit the schema."""
    out = BytesIO()
    datum = {
        "origin": str(change.origin),
        "op": int(change.op),
        "generation": change.sequence.generation,
        "position": change.sequence.position,
        "ordinal": change.sequence.ordinal,
        "commit_us": change.commit_us,
        "absent": list(change.absent),
        "row": change.row if change.op is Op.UPSERT else None,
        "key": change.row if change.op is Op.DELETE else None,
    }
    try:
        fastavro.schemaless_writer(out, schema.change_codec, datum)
    except Exception as exc:  # fastavro raises whatever the value raised
        raise Malformed("row does not fit the schema") from exc
    return out.getvalue()


def decode_change(data: bytes, schema: RowSchema, topic: Topic) -> Change:
    """Read what `encode_change` wrote; raises Malformed, for example under another schema."""
    try:
        datum: Any = fastavro.schemaless_reader(BytesIO(data), schema.change_codec, None)
        return Change(
            topic=topic,
            origin=Origin.parse(datum["origin"]),
            op=Op(datum["op"]),
            sequence=Sequence(datum["generation"], datum["position"], datum["ordinal"]),
            commit_us=datum["commit_us"],
            row=datum["row"] if datum["row"] is not None else datum["key"],
            absent=tuple(datum["absent"]),
        )
    except Malformed:
        raise
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("stored change does not fit the dataset's schema") from exc
