"""Which partition a row belongs to: a keyed hash, so that keys do not show in traffic."""

import hashlib
import hmac
from io import BytesIO

import fastavro

from fabric.model.change import Row
from fabric.model.errors import Malformed
from fabric.model.schema import RowSchema


def key_bytes(schema: RowSchema, row: Row) -> bytes:
    """Avro bytes of the row's key fields, the row's identity; raises Malformed."""
    out = BytesIO()
    try:
        fastavro.schemaless_writer(out, schema.key_codec, {n: row[n] for n in schema.key})
    except Exception as exc:  # fastavro raises whatever the value raised
        raise Malformed("key does not fit the schema") from exc
    return out.getvalue()


def partition_of(key: bytes, salt: bytes, partitions: int) -> int:
    """HMAC-SHA-256(salt, key) as an unsigned integer, modulo `partitions`."""
    if partitions == 1:
        return 0
    return int.from_bytes(hmac.digest(salt, key, hashlib.sha256)) % partitions
