"""Open-form records as a plain Kafka tool makes them: Confluent framing and an Avro `Change`."""

import time
from collections.abc import Callable
from io import BytesIO
from itertools import count

import fastavro

from fabric.model.change import Op
from fabric.model.schema import RowSchema
from loadtest.rows import Row, schema_text


def open_encoder(origin: str, schema_id: int) -> Callable[[Row], bytes]:
    """Encode rows as upserts of `origin` with rising sequences."""
    codec = RowSchema.parse(schema_text(logical=True), ("id",)).change_codec
    framing = b"\x00" + schema_id.to_bytes(4)
    generation, position = int(time.time()), count(1)

    def encode(row: Row) -> bytes:
        out = BytesIO()
        out.write(framing)
        change = {
            "origin": origin,
            "op": int(Op.UPSERT),
            "generation": generation,
            "position": next(position),
            "ordinal": 1,
            "commit_us": 0,
            "absent": (),
            "row": row,
            "key": None,
        }
        fastavro.schemaless_writer(out, codec, change)
        return out.getvalue()

    return encode
