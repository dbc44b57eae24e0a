"""fabric.database.postgresql_wire"""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database import postgresql_wire as wire
from fabric.model.errors import Malformed

HEADER = b"w" + bytes(24)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def columns(*values: bytes | str | wire.Unchanged | None) -> bytes:
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, wire.Unchanged):
            parts.append(b"u")
        else:
            raw = value if isinstance(value, bytes) else value.encode()
            kind = b"b" if isinstance(value, bytes) else b"t"
            parts.append(kind + struct.pack(">I", len(raw)) + raw)
    return b"".join(parts)


def relation(oid: int = 7, identity: str = "d", *, keys: tuple[str, ...] = ("id",)) -> bytes:
    body = b"R" + struct.pack(">I", oid) + text("public") + text("people") + identity.encode()
    body += struct.pack(">H", 2)
    for name, type_oid in (("id", 20), ("name", 25)):
        body += bytes([name in keys]) + text(name) + struct.pack(">Ii", type_oid, -1)
    return body


def test_positions_read_as_they_are_written() -> None:
    assert wire.parse_lsn("16/B374D848") == 0x16B374D848
    assert wire.format_lsn(0x16B374D848) == "16/B374D848"
    for bad in ("", "16", "x/1", "-1/0", "FFFFFFFFF/0"):
        with pytest.raises(Malformed):
            wire.parse_lsn(bad)


def test_a_transaction_is_read_message_by_message() -> None:
    begin = wire.parse_frame(HEADER + b"B" + struct.pack(">QqI", 100, 5, 9))
    assert begin == wire.Begin(100, 5 + wire.MICROS_2000, 9)
    shape = wire.parse_frame(HEADER + relation())
    assert shape == wire.Relation(
        oid=7,
        namespace="public",
        name="people",
        identity="d",
        columns=(wire.Column("id", 20, -1, True), wire.Column("name", 25, -1, False)),
    )
    new = columns(b"\1", "Ánh", None, wire.UNCHANGED)
    insert = wire.parse_frame(HEADER + b"I" + struct.pack(">I", 7) + b"N" + new)
    assert insert == wire.Insert(7, [b"\1", "Ánh", None, wire.UNCHANGED])
    commit = wire.parse_frame(HEADER + b"C" + struct.pack(">BQQq", 0, 100, 150, 5))
    assert commit == wire.Commit(100, 150)


def test_an_update_may_carry_the_old_key_or_the_old_row() -> None:
    oid = struct.pack(">I", 7)
    plain = wire.parse_frame(HEADER + b"U" + oid + b"N" + columns(b"1"))
    assert plain == wire.Update(7, None, False, [b"1"])
    keyed = wire.parse_frame(HEADER + b"U" + oid + b"K" + columns(b"0") + b"N" + columns(b"1"))
    assert keyed == wire.Update(7, [b"0"], False, [b"1"])
    full = wire.parse_frame(HEADER + b"U" + oid + b"O" + columns(b"0") + b"N" + columns(b"1"))
    assert full == wire.Update(7, [b"0"], True, [b"1"])
    assert wire.parse_frame(HEADER + b"D" + oid + b"K" + columns(b"0")) == wire.Delete(7, [b"0"])


def test_the_rest_of_the_messages_is_read() -> None:
    truncate = wire.parse_frame(HEADER + b"T" + struct.pack(">IBII", 2, 0, 7, 8))
    assert truncate == wire.Truncate((7, 8))
    origin = wire.parse_frame(HEADER + b"O" + bytes(8) + text("fabric_0"))
    assert origin == wire.OriginName("fabric_0")
    said = struct.pack(">BQ", 1, 5) + text("fabric") + struct.pack(">I", 2) + b"{}"
    message = wire.parse_frame(HEADER + b"M" + said)
    assert message == wire.LogicalMessage(True, 5, "fabric", b"{}")
    assert wire.parse_frame(HEADER + b"Y" + bytes(4)) == wire.Ignored(ord("Y"))
    keepalive = wire.parse_frame(b"k" + struct.pack(">QqB", 42, 0, 1))
    assert keepalive == wire.Keepalive(42, True)


def test_a_status_update_names_what_may_be_forgotten() -> None:
    kind, written, flushed, applied, at, reply = struct.unpack(
        ">cQQQqB", wire.status_update(5, 9, wire.MICROS_2000 + 3)
    )
    assert (kind, written, flushed, applied, at, reply) == (b"r", 9, 5, 5, 3, 0)
    assert wire.status_update(5, 9, wire.MICROS_2000, asks=True)[-1] == 1


@given(st.binary(max_size=80), st.sampled_from([b"", b"k", HEADER]), st.sampled_from(b"BCORYIUDTM"))
def test_garbage_is_malformed_and_nothing_else(data: bytes, head: bytes, tag: int) -> None:
    with contextlib.suppress(Malformed):
        wire.parse_frame(head + bytes([tag]) + data)


@given(st.integers(0, 40))
def test_a_row_that_is_cut_short_is_malformed(cut: int) -> None:
    whole = HEADER + b"I" + struct.pack(">I", 7) + b"N" + columns(b"12345678", "name")
    if cut:
        with pytest.raises(Malformed):
            wire.parse_frame(whole[: len(whole) - min(cut, len(whole) - 26)])
