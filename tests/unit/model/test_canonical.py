"""One way to write a value, and no other is read."""

import time
from typing import Any

import cbor2
import pytest

from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_DEFAULT, CBOR_ITEMS_MAX


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (b"", "40"),
        ("é", "62c3a9"),
        ([], "80"),
        ({}, "a0"),
        ({1: b"x", 0: [1, "a"]}, "a20082016161014178"),
        ({10: 0, -1: 1, 24: 2}, "a30a001818022001"),
        ((1, 2), "820102"),
    ],
)
def test_value_has_these_bytes(value: Any, text: str) -> None:
    assert canonical.encode(value).hex() == text


def test_map_keys_stand_in_the_order_of_their_bytes() -> None:
    """RFC 8949 section 4.2.1: 10, 100, -1, not by length first."""
    data = canonical.encode({-1: 0, 100: 0, 10: 0})
    assert list(cbor2.loads(data)) == [10, 100, -1]
    assert canonical.encode({100: 0, -1: 0, 10: 0}) == data


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        2**64,
        -(2**17) - 1,
        bytearray(b"x"),
        {"a": 1},
        {True: 1},
        {2**17: 1},
        {1, 2},
        pytest.param(object(), id="an object"),
        type("Int", (int,), {})(3),
    ],
    ids=str,
)
def test_value_outside_the_subset_is_not_written(value: Any) -> None:
    with pytest.raises(Malformed):
        canonical.encode(value)


def test_depth_has_a_limit_in_both_directions() -> None:
    value: Any = 0
    for _ in range(CBOR_DEPTH_MAX - 1):
        value = [value]
    assert canonical.decode(canonical.encode(value)) == value
    with pytest.raises(Malformed):
        canonical.encode([value])
    with pytest.raises(Malformed):
        canonical.decode(b"\x81" * CBOR_DEPTH_MAX + b"\x00")


def test_number_of_items_has_a_limit() -> None:
    for items_max in (CBOR_ITEMS_MAX, 7):
        most = [0] * (items_max - 1)
        assert canonical.decode(canonical.encode(most), items_max=items_max) == most
        with pytest.raises(Malformed):
            canonical.decode(canonical.encode([*most, 0]), items_max=items_max)


def test_who_asks_for_no_number_of_items_gets_few() -> None:
    most = [0] * (CBOR_ITEMS_DEFAULT - 1)
    assert canonical.decode(canonical.encode(most)) == most
    with pytest.raises(Malformed):
        canonical.decode(canonical.encode([*most, 0]))


def _tagged(number: int, value: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(number, value))


COSTLY = {
    # cbor2 builds these before anyone can look: the rational alone costs it seconds.
    "rational": b"\xd8\x1e\x82\xc2"
    + cbor2.dumps(b"\x7f" * 400_000)
    + b"\xc2"
    + cbor2.dumps(b"\x7e" * 399_999),
    "regular-expression": _tagged(35, "(a{1,1000}){1,1000}" * 100),
    "bignum": b"\xc2" + cbor2.dumps(b"\xff" * 900_000),
    "decimal": b"\xc4\x82\x1b\x00\x00\x00\x00\x7f\xff\xff\xff\x01",
    "bigfloat": b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    "nested-arrays": b"\x81" * 900_000,
    "nested-tags": b"\xc1" * 900_000,
    "long-array": b"\x9a\x00\x0d\xbb\xa0" + b"\x00" * 900_000,
    "array-of-2-to-63": b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "map-of-2-to-63": b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
    "bytes-of-2-to-63": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "shared-value": b"\xd8\x1c\x81\xd8\x1d\x00",
    "string-references": b"\xd9\x01\x00\x82\x61a\xd8\x19\x00",
}


@pytest.mark.parametrize("name", COSTLY)
def test_bytes_that_would_cost_a_decoder_dear_are_refused_at_once(name: str) -> None:
    start = time.process_time()
    with pytest.raises(Malformed):
        canonical.decode(COSTLY[name], items_max=CBOR_ITEMS_MAX)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000",
        "1800",
        "1900ff",
        "1b00000000ffffffff",
        "4161ff",
        "42",
        "5f4161ff",
        "7f6161ff",
        "9f00ff",
        "bf0000ff",
        "a200000000",
        "a201000000",
        "a1616100",
        "a1f500",
        "f6",
        "f5",
        "f93c00",
        "fb3ff8000000000000",
        "c000",
        "1c",
        "ff",
        "61ff",
        "a100",
        "82",
    ],
)
def test_other_bytes_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        canonical.decode(bytes.fromhex(text))
