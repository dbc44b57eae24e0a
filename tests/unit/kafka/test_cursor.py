"""fabric.kafka.cursor: what is cut right, and what is refused."""

import struct
from pathlib import Path

import pytest

import fabric
from fabric.kafka.cursor import Cursor
from fabric.model.errors import Malformed


def test_fields_of_fixed_width_are_read_at_once_and_never_beyond_the_end() -> None:
    form = struct.Struct(">hi")
    cursor = Cursor(b"x\xff\xff\0\0\0\7\0", 1)
    assert (cursor.fields(form), cursor.rest) == ((-1, 7), 1)
    with pytest.raises(Malformed):
        cursor.fields(form)
    assert cursor.rest == 1


def test_a_cursor_holds_every_length_against_what_is_left() -> None:
    for data in (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xfe", b"\0\0\0\5abc"):
        with pytest.raises(Malformed):
            Cursor(data).octets(flexible=False)
    with pytest.raises(Malformed):
        Cursor(b"\x7f\xff\xff\xff" + bytes(100)).count(flexible=False, item_bytes_min=2)
    with pytest.raises(Malformed):
        Cursor(b"\xff\xff\xff\xff\x0f" + bytes(100)).count(flexible=True, item_bytes_min=2)
    with pytest.raises(Malformed):
        Cursor(b"\xff\xff\xff\xff\x7f").uvarint()
    with pytest.raises(Malformed):
        Cursor(b"\2").boolean()
    with pytest.raises(Malformed):
        Cursor(b"\0\1\xff").text(flexible=False)
    with pytest.raises(Malformed):
        Cursor(b"x").end()
    with pytest.raises(Malformed):
        Cursor(b"\xff\xff\xff\xff\x0f").tags(flexible=True)


def test_unknown_tags_are_skipped() -> None:
    cursor = Cursor(b"\2\0\1a\7\2bc!")
    cursor.tags(flexible=True)
    assert cursor.take(1) == b"!"


def test_no_module_gives_foreign_bytes_to_the_decoder_that_aborts() -> None:
    sources = [*Path(fabric.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    assert [p.name for p in sources if "entity_reader" in p.read_text()] == []
