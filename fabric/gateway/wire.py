"""Foreign bytes of the Kafka protocol, cut by hand: frames' heads and record batches.

Why by hand: kafka/cursor.py. Every length is held against what is left. Reads bytes
only, decides nothing. Errors: Malformed. Spec: Kafka protocol, record batch v2.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import zstandard
from crc32c import crc32c

from fabric.kafka.cursor import Cursor
from fabric.model.errors import Malformed
from fabric.model.limits import (
    BATCH_HEADERS_MAX,
    BATCH_RECORDS_MAX,
    COMPRESSED_BYTES_MAX,
    DECOMPRESSED_BYTES_MAX,
    EXPANSION_RATIO_MAX,
    RECORD_HEADERS_MAX,
)

_HEAD = struct.Struct(">hhih")
_BATCH = struct.Struct(">qiibIhiqqqhii")
_CRC_FROM = 21
_MAGIC = 2
_CODEC = 0b111
_TRANSACTIONAL = 0b1_0000
_CONTROL = 0b10_0000
_VARINT_BYTES_MAX = 10
_CHUNK = 64 * 1024
_GZIP_BITS = 31
_ZSTD_STEP = 256
"""Bytes of a frame; a block of four bytes stands for 128 KiB, so 8 MiB come out at most."""

NO_PRODUCER = -1
"""Producer id of a producer that is not idempotent."""
CODEC_NONE = 0
CODEC_GZIP = 1
CODEC_ZSTD = 4
CODECS = frozenset({CODEC_NONE, CODEC_GZIP, CODEC_ZSTD})
"""Codecs that open topics may use; snappy and LZ4 need a decoder with an output limit."""


class Head(NamedTuple):
    """Head of a request: what it asks, in which version, under which correlation id."""

    api: int
    version: int
    correlation: int
    client_id: str | None
    body_at: int
    """Offset of the client id's end; tags of header v2 follow, then the body."""


def parse_head(frame: bytes) -> Head:
    """Read the part that header versions 1 and 2 share."""
    if len(frame) < _HEAD.size:
        raise Malformed("request is shorter than its head")
    api, version, correlation, _ = _HEAD.unpack_from(frame)
    cursor = Cursor(frame, _HEAD.size - 2)
    client_id = cursor.text(flexible=False)
    return Head(api, version, correlation, client_id, len(frame) - cursor.rest)


def readdress(frame: bytes, correlation: int) -> bytes:
    """The same request under another correlation id, with its length before it."""
    size, ours = len(frame).to_bytes(4), correlation.to_bytes(4, signed=True)
    return b"".join((size, frame[:4], ours, frame[8:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Head of one record batch (magic 2) whose CRC is right, and its records' bytes.

    Attributes:
        codec: attributes bits 0 to 2.
        count: number of records, as the head says.
        producer_id: NO_PRODUCER when the producer is not idempotent.
        records: the records, still compressed.
    """

    codec: int
    is_transactional: bool
    is_control: bool
    count: int
    producer_id: int
    records: bytes


class RawRecord(NamedTuple):
    """One record of a batch."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...]


def parse_batch(data: bytes) -> Batch:
    """Read exactly one record batch and check lengths, magic, CRC and counts."""
    if len(data) < _BATCH.size:
        raise Malformed("record batch is shorter than its head")
    (_, length, _, magic, crc, attributes, last, _, _, producer, _, _, count) = _BATCH.unpack_from(
        data
    )
    if magic != _MAGIC:
        raise Malformed("record batch is not of magic 2")
    if length != len(data) - 12:
        raise Malformed("records are not exactly one batch")
    if crc32c(memoryview(data)[_CRC_FROM:]) != crc:
        raise Malformed("record batch has a wrong CRC")
    if not 1 <= count <= BATCH_RECORDS_MAX or last != count - 1:
        raise Malformed("record batch is empty, too long or miscounted")
    return Batch(
        codec=attributes & _CODEC,
        is_transactional=bool(attributes & _TRANSACTIONAL),
        is_control=bool(attributes & _CONTROL),
        count=count,
        producer_id=producer,
        records=data[_BATCH.size :],
    )


def records_of(batch: Batch) -> tuple[RawRecord, ...]:
    """Every record of a batch, decompressed within limits and counted."""
    data = batch.records if batch.codec == CODEC_NONE else _expand(batch.codec, batch.records)
    records: list[RawRecord] = []
    at, headers = 0, 0
    for index in range(batch.count):
        record, at = _record(data, at, index)
        headers += len(record.headers)
        if headers > BATCH_HEADERS_MAX:
            raise Malformed("record batch has too many headers")
        records.append(record)
    if at != len(data):
        raise Malformed("record batch has bytes after its last record")
    return tuple(records)


def first_records(batch: Batch, count: int) -> tuple[RawRecord, ...]:
    """The first `count` records of a batch that is not compressed, else none."""
    records: list[RawRecord] = []
    at = 0
    for index in range(min(count, batch.count) if batch.codec == CODEC_NONE else 0):
        record, at = _record(batch.records, at, index)
        records.append(record)
    return tuple(records)


def _record(data: bytes, at: int, index: int) -> tuple[RawRecord, int]:
    length, at = _varint(data, at)
    end = at + length
    if length < 1 or end > len(data):
        raise Malformed("record is longer than its batch")
    _, at = _varint(data, at + 1)  # attributes byte, timestamp delta
    offset, at = _varint(data, at)
    if offset != index:
        raise Malformed("records are not numbered from 0")
    key, at = _octets(data, at)
    value, at = _octets(data, at)
    headers, at = _headers(data, at)
    if at != end:
        raise Malformed("record does not end where it says")
    return RawRecord(key, value, headers), at


def _headers(data: bytes, at: int) -> tuple[tuple[tuple[bytes, bytes | None], ...], int]:
    count, at = _varint(data, at)
    if count == 0:
        return (), at
    if not 0 < count <= RECORD_HEADERS_MAX:
        raise Malformed("record has too many headers")
    headers: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        name, at = _octets(data, at)
        value, at = _octets(data, at)
        if name is None:
            raise Malformed("record header has no name")
        headers.append((name, value))
    return tuple(headers), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint; one or two bytes, as most have, are read without a loop."""
    rest = len(data) - at
    if rest < 1:
        raise Malformed("record ends too early")
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    if rest > 1 and (high := data[at + 1]) < 0x80:
        value = byte & 0x7F | high << 7
        return (value >> 1) ^ -(value & 1), at + 2
    value = 0
    for shift, place in enumerate(range(at, at + min(_VARINT_BYTES_MAX, rest))):
        byte = data[place]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), place + 1
    raise Malformed("varint does not end")


def _octets(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(data, at)
    if size == -1:
        return None, at
    end = at + size
    if size < 0 or end > len(data):
        raise Malformed("field is longer than its record")
    return data[at:end], end


def _expand(codec: int, data: bytes) -> bytes:
    """Decompress within limits what is exactly one gzip member or one Zstandard frame.

    Clients write one. More of them cost a loop each, and may say nothing at all, so that
    no limit of what comes out ends them; and who reads on behind the first reads records
    that nobody has judged.
    """
    if len(data) > COMPRESSED_BYTES_MAX:
        raise Malformed("compressed record batch is longer than a topic takes")
    limit = min(DECOMPRESSED_BYTES_MAX, max(_CHUNK, len(data) * EXPANSION_RATIO_MAX))
    try:
        if codec == CODEC_GZIP:
            expanded, is_one = _gunzip(data, limit)
        elif codec == CODEC_ZSTD:
            expanded, is_one = _unzstd(data, limit)
        else:
            raise Malformed("compression codec is not served")
    except (zlib.error, zstandard.ZstdError) as exc:
        raise Malformed("record batch does not decompress") from exc
    if len(expanded) > limit:
        raise Malformed("record batch decompresses beyond the limit")
    if not is_one:
        raise Malformed("record batch is not exactly one compressed stream")
    return expanded


def _gunzip(data: bytes, limit: int) -> tuple[bytes, bool]:
    """What comes out, `limit` + 1 bytes at most, and whether all of `data` was one member."""
    member = zlib.decompressobj(_GZIP_BITS)
    expanded = member.decompress(data, limit + 1)
    return expanded, member.eof and not member.unused_data


def _unzstd(data: bytes, limit: int) -> tuple[bytes, bool]:
    """The same for a frame; little goes in at once, as no call bounds what comes out."""
    frame = zstandard.ZstdDecompressor(max_window_size=DECOMPRESSED_BYTES_MAX).decompressobj()
    expanded = bytearray()
    for at in range(0, len(data), _ZSTD_STEP):
        if frame.eof or len(expanded) > limit:
            return bytes(expanded), False
        expanded += frame.decompress(data[at : at + _ZSTD_STEP])
    return bytes(expanded), frame.eof and not frame.unused_data
