"""Partitions: a keyed hash of the key's bytes, the same for every part of the fabric."""

import hashlib
import hmac

import pytest

from fabric.model.errors import Malformed
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema

SCHEMA = RowSchema.parse(
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"},'
    ' {"name": "b", "type": "string"}, {"name": "c", "type": ["null", "string"]}]}',
    ("b", "a"),
)
SALT = bytes(range(32))


def test_key_bytes_are_avro_of_the_key_fields_in_their_order() -> None:
    assert key_bytes(SCHEMA, {"a": 1, "b": "xy", "c": "z"}) == b"\x04xy\x02"
    assert key_bytes(SCHEMA, {"b": "xy", "a": 1}) == b"\x04xy\x02"


@pytest.mark.parametrize("row", [{}, {"a": 1}, {"a": "x", "b": "y"}, {"a": None, "b": "y"}])
def test_row_without_its_key_is_malformed(row: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        key_bytes(SCHEMA, row)  # type: ignore[arg-type]  # wrong on purpose


def test_partition_is_the_hmac_modulo_the_number() -> None:
    for number in (2, 3, 64):
        expected = int.from_bytes(hmac.new(SALT, b"key", hashlib.sha256).digest(), "big") % number
        assert partition_of(b"key", SALT, number) == expected
    assert partition_of(b"key", SALT, 1) == 0


def test_rows_spread_and_another_salt_spreads_them_otherwise() -> None:
    keys = [str(n).encode() for n in range(2_000)]
    one = [partition_of(key, SALT, 8) for key in keys]
    two = [partition_of(key, bytes(32), 8) for key in keys]
    assert min(one.count(n) for n in range(8)) > 150
    assert one != two
