"""The logical replication protocol (pgoutput, protocol version 1) as values: bytes in, types out.

Pure: no socket and no clock. A tuple's columns stay raw here: `bytes` as the server
sent them in binary, `str` in text, None for null, UNCHANGED for an unchanged TOAST
value. Spec: PostgreSQL documentation, chapter 55 (message formats).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from fabric.model.errors import Malformed

MICROS_2000: Final = 946_684_800_000_000
"""PostgreSQL's epoch, 2000-01-01, in microseconds since 1970."""
_LSN_MAX = 2**64 - 1


class Unchanged(Enum):
    """The marker of a TOAST value that an update did not touch and the log does not hold."""

    TOAST = "u"


UNCHANGED: Final = Unchanged.TOAST
Raw: TypeAlias = bytes | str | Literal[Unchanged.TOAST] | None


KEEPALIVE = b"k"
"""First byte of a keepalive's frame."""


class Keepalive(NamedTuple):
    """The server is alive and has sent everything before `end_lsn`."""

    end_lsn: int
    wants_reply: bool


class Begin(NamedTuple):
    """A committed transaction starts; its position is known from the first byte."""

    lsn: int
    commit_us: int
    xid: int


class Commit(NamedTuple):
    """A transaction ends; the log goes on at `end_lsn`."""

    lsn: int
    end_lsn: int


class OriginName(NamedTuple):
    """The replication origin of the current transaction."""

    name: str


class Column(NamedTuple):
    """One column of a relation as the log describes it."""

    name: str
    type_oid: int
    typmod: int
    is_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table's shape from here on.

    Attributes:
        identity: replica identity: `d` default, `n` nothing, `f` full, `i` index.
    """

    oid: int
    namespace: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Insert(NamedTuple):
    """A new row."""

    oid: int
    new: list[Raw]


class Update(NamedTuple):
    """A changed row; `old` holds the old key or, under identity full, the old row."""

    oid: int
    old: list[Raw] | None
    old_is_full: bool
    new: list[Raw]


class Delete(NamedTuple):
    """A removed row: its key or, under identity full, the whole row."""

    oid: int
    old: list[Raw]


class Truncate(NamedTuple):
    """Tables that were emptied."""

    oids: tuple[int, ...]


class LogicalMessage(NamedTuple):
    """What pg_logical_emit_message wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Ignored(NamedTuple):
    """A message that says nothing to us (a data type's name)."""

    tag: int


Message: TypeAlias = (
    Begin
    | Commit
    | OriginName
    | Relation
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | Ignored
)

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_MESSAGE = struct.Struct(">BQ")
_COLUMN = struct.Struct(">Ii")
_KEEPALIVE = struct.Struct(">QqB")
_STATUS = struct.Struct(">cQQQqB")
_XLOG_HEADER_BYTES = 25
_BINARY, _TEXT, _NULL, _TOAST = b"btnu"


def parse_lsn(text: str) -> int:
    """Read an LSN as the server prints it (`16/B374D848`); raises Malformed."""
    high, slash, low = text.partition("/")
    try:
        value = (int(high, 16) << 32) | int(low, 16)
    except ValueError as exc:
        raise Malformed("log position does not parse") from exc
    if not slash or not 0 <= value <= _LSN_MAX:
        raise Malformed("log position does not parse")
    return value


def format_lsn(lsn: int) -> str:
    """Write an LSN as the server reads it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def status_update(flushed: int, received: int, now_us: int, *, asks: bool = False) -> bytes:
    """A standby status update: the slot may forget what lies before `flushed`.

    Args:
        received: end of what we got; it only keeps the server from asking again.
        now_us: microseconds since 1970.
        asks: the server is to answer with a keepalive at once.
    """
    return _STATUS.pack(b"r", received, flushed, flushed, now_us - MICROS_2000, asks)


def parse_frame(data: bytes) -> Message | Keepalive:
    """Read one CopyData frame of a replication stream; raises Malformed."""
    try:
        tag = data[0]
        if tag == 0x77:  # w: XLogData
            return _parse(data, _XLOG_HEADER_BYTES)
        if tag == KEEPALIVE[0]:
            end_lsn, _, reply = _KEEPALIVE.unpack_from(data, 1)
            return Keepalive(end_lsn, bool(reply))
    except (struct.error, IndexError, UnicodeDecodeError) as exc:
        raise Malformed("replication frame is cut short or not text") from exc
    raise Malformed("replication frame has an unknown tag")


def _parse(data: bytes, at: int) -> Message:
    reader = _READERS.get(data[at])
    if reader is None:
        raise Malformed("replication message has an unknown tag")
    return reader(data, at + 1)


def _insert(data: bytes, at: int) -> Insert:
    oid = _U32.unpack_from(data, at)[0]
    return Insert(oid, _tuple(data, at + 5)[0])


def _update(data: bytes, at: int) -> Update:
    oid = _U32.unpack_from(data, at)[0]
    kind = data[at + 4]
    if kind == 0x4E:  # N: the key did not change
        return Update(oid, None, False, _tuple(data, at + 5)[0])
    if kind not in (0x4B, 0x4F):  # K: old key, O: old row
        raise Malformed("update has an unknown part")
    old, at = _tuple(data, at + 5)
    return Update(oid, old, kind == 0x4F, _tuple(data, at + 1)[0])


def _delete(data: bytes, at: int) -> Delete:
    oid = _U32.unpack_from(data, at)[0]
    return Delete(oid, _tuple(data, at + 5)[0])


def _tuple(data: bytes, at: int) -> tuple[list[Raw], int]:
    """The columns of one row, and where it ends."""
    values: list[Raw] = []
    append = values.append
    count = _U16.unpack_from(data, at)[0]
    at += 2
    for _ in range(count):
        kind = data[at]
        if kind == _NULL:
            append(None)
            at += 1
        elif kind in (_BINARY, _TEXT):
            start = at + 5
            at = start + _U32.unpack_from(data, at + 1)[0]
            raw = data[start:at]
            append(raw if kind == _BINARY else raw.decode())
        elif kind == _TOAST:
            append(UNCHANGED)
            at += 1
        else:
            raise Malformed("row has a column of an unknown kind")
    if at > len(data):
        raise Malformed("row is cut short")
    return values, at


def _begin(data: bytes, at: int) -> Begin:
    lsn, commit_2000, xid = _BEGIN.unpack_from(data, at)
    return Begin(lsn, commit_2000 + MICROS_2000, xid)


def _commit(data: bytes, at: int) -> Commit:
    _, lsn, end_lsn, _ = _COMMIT.unpack_from(data, at)
    return Commit(lsn, end_lsn)


def _origin(data: bytes, at: int) -> OriginName:
    return OriginName(_string(data, at + 8)[0])


def _relation(data: bytes, at: int) -> Relation:
    oid = _U32.unpack_from(data, at)[0]
    namespace, at = _string(data, at + 4)
    name, at = _string(data, at)
    identity = chr(data[at])
    count = _U16.unpack_from(data, at + 1)[0]
    at += 3
    columns: list[Column] = []
    for _ in range(count):
        is_key = bool(data[at] & 1)
        column, at = _string(data, at + 1)
        type_oid, typmod = _COLUMN.unpack_from(data, at)
        columns.append(Column(column, type_oid, typmod, is_key))
        at += 8
    return Relation(
        oid=oid, namespace=namespace, name=name, identity=identity, columns=tuple(columns)
    )


def _truncate(data: bytes, at: int) -> Truncate:
    count = _U32.unpack_from(data, at)[0]
    end = at + 5 + 4 * count
    if end > len(data):
        raise Malformed("truncate is cut short")
    return Truncate(tuple(_U32.unpack_from(data, place)[0] for place in range(at + 5, end, 4)))


def _logical(data: bytes, at: int) -> LogicalMessage:
    flags, lsn = _MESSAGE.unpack_from(data, at)
    prefix, at = _string(data, at + 9)
    size = _U32.unpack_from(data, at)[0]
    content = data[at + 4 : at + 4 + size]
    if len(content) != size:
        raise Malformed("message is cut short")
    return LogicalMessage(bool(flags & 1), lsn, prefix, content)


def _ignored(data: bytes, at: int) -> Ignored:
    return Ignored(data[at - 1])


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A text that ends with a zero byte, and where the next field starts."""
    end = data.find(0, at)
    if end < 0:
        raise Malformed("text has no end")
    return data[at:end].decode(), end + 1


_READERS: dict[int, Callable[[bytes, int], Message]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _ignored,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _logical,
}
