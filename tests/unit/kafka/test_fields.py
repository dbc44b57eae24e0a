"""Fields of Kafka's protocol, written as the cursor reads them."""

import pytest

from fabric.kafka.cursor import Cursor
from fabric.kafka.fields import uvarint, write_count, write_text


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**32 - 1, "ffffffff0f")],
)
def test_a_varint_has_seven_bits_a_byte_the_lowest_first(value: int, data: str) -> None:
    assert uvarint(value).hex() == data
    assert Cursor(bytes.fromhex(data)).uvarint() == value


@pytest.mark.parametrize("flexible", [True, False])
@pytest.mark.parametrize("value", ["", "fabric.members", "Tuyệt mật", "x" * 200])
def test_a_text_is_read_as_it_was_written(value: str, flexible: bool) -> None:
    cursor = Cursor(write_text(value, flexible))
    assert cursor.text(flexible=flexible) == value
    cursor.end()


def test_null_is_no_empty_text_and_no_empty_array() -> None:
    assert write_text(None, True) == b"\0"
    assert write_text(None, False) == b"\xff\xff"
    assert write_text("", True) == b"\1"
    assert write_count(-1, True) == b"\0"
    assert write_count(-1, False) == b"\xff" * 4
    assert write_count(3, True) == b"\4"
    assert write_count(3, False) == b"\0\0\0\3"
