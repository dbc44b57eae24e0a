"""Foreign bytes: what is cut right, and what is refused."""

import gzip
import random
import struct
import time

import pytest
import zstandard
from crc32c import crc32c

from fabric.gateway import wire
from fabric.model.errors import Malformed
from fabric.model.limits import BATCH_HEADERS_MAX, COMPRESSED_BYTES_MAX
from tests.fakes import kafka_frames
from tests.fakes.gateway import batch

HEAD_BYTES = 61


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """The batch with other bytes at an offset, and its CRC right again."""
    changed = data[:at] + value + data[at + len(value) :]
    return changed[:17] + crc32c(changed[21:]).to_bytes(4) + changed[21:]


def with_records(records: bytes, count: int, codec: int = 0) -> bytes:
    """A batch around records of one's own making."""
    head = struct.pack(
        ">qiibIhiqqqhii",
        0, HEAD_BYTES - 12 + len(records), -1, 2, 0, codec, count - 1, 0, 0, -1, -1, -1, count,
    )  # fmt: skip
    return patched(head + records, 0, b"")


def varint(value: int) -> bytes:
    """A count as Kafka writes it."""
    zigzag, out = value << 1, bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes(out) + bytes([zigzag])


def test_a_head_is_read_with_and_without_client_id() -> None:
    for client_id in ("kcat", "", None):
        for version in (3, 9):
            frame = kafka_frames.head(0, version, -7, client_id) + b"body"
            head = wire.parse_head(frame)
            assert head[:4] == (0, version, -7, client_id)
            assert frame[head.body_at :] == (b"\0body" if version == 9 else b"body")


@pytest.mark.parametrize("frame", [b"", b"\0" * 9, b"\0" * 8 + b"\0\5abc", b"\0" * 8 + b"\xff\xfe"])
def test_a_torn_head_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse_head(frame)


def test_readdress_changes_the_correlation_id_alone_and_says_how_long_it_is() -> None:
    frame = kafka_frames.head(3, 1, 5) + b"rest"
    wanted = kafka_frames.head(3, 1, 6) + b"rest"
    assert wire.readdress(frame, 6) == len(wanted).to_bytes(4) + wanted


def test_a_batch_gives_back_its_records() -> None:
    data = batch(b"one", b"two", key=b"k", headers=[("h", b"v")])
    found = wire.parse_batch(data)
    assert (found.count, found.codec, found.producer_id) == (2, 0, -1)
    assert not found.is_control
    assert not found.is_transactional
    assert wire.records_of(found) == tuple(
        wire.RawRecord(b"k", value, ((b"h", b"v"),)) for value in (b"one", b"two")
    )


def test_null_keys_and_values_are_told_from_empty_ones() -> None:
    assert wire.records_of(wire.parse_batch(batch(None)))[0] == (None, None, ())
    assert wire.records_of(wire.parse_batch(batch(b"", key=b"")))[0] == (b"", b"", ())


def test_attributes_are_read() -> None:
    assert wire.parse_batch(batch(b"x", is_transactional=True)).is_transactional
    assert wire.parse_batch(patched(batch(b"x"), 21, b"\0\x20")).is_control


def test_large_records_need_long_varints() -> None:
    value = bytes(300_000)
    assert wire.records_of(wire.parse_batch(batch(value, b"small")))[0].value == value


GOOD = batch(b"one", b"two")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:60], id="shorter than a head"),
        pytest.param(GOOD[:-1], id="torn"),
        pytest.param(GOOD + b"x", id="something behind it"),
        pytest.param(GOOD + GOOD, id="two batches"),
        pytest.param(patched(GOOD, 16, b"\1"), id="magic 1"),
        pytest.param(GOOD[:17] + b"\0\0\0\0" + GOOD[21:], id="wrong CRC"),
        pytest.param(patched(GOOD, 57, b"\0\0\0\0"), id="no records"),
        pytest.param(patched(GOOD, 57, b"\xff\xff\xff\xff"), id="negative count"),
        pytest.param(patched(GOOD, 23, b"\0\0\0\0"), id="last offset is not count - 1"),
    ],
)
def test_a_wrong_batch_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse_batch(data)


RECORD = b"\0\0\0\1\2v\0"  # attributes, timestamp, offset 0, null key, value v, no headers


@pytest.mark.parametrize(
    ("records", "count"),
    [
        pytest.param(b"", 1, id="missing"),
        pytest.param(b"\x0e" + RECORD, 2, id="fewer than counted"),
        pytest.param(b"\x0e" + RECORD + b"x", 1, id="something behind them"),
        pytest.param(b"\x10" + RECORD, 1, id="longer than the batch"),
        pytest.param(b"\x10" + RECORD + b"x", 1, id="longer than its fields"),
        pytest.param(b"\x0c" + RECORD, 1, id="shorter than its fields"),
        pytest.param(b"\0", 1, id="of no length"),
        pytest.param(b"\1", 1, id="of negative length"),
        pytest.param(b"\x0e\0\0\2\1\2v\0", 1, id="offset 1 first"),
        pytest.param(b"\x0e\0\0\0\1\3v\0", 1, id="value of length -2"),
        pytest.param(b"\x0e\0\0\0\1\2v\1", 1, id="headers -1"),
        pytest.param(b"\x0e\0\0\0\1\2v\x7e", 1, id="too many headers"),
        pytest.param(b"\x12\0\0\0\1\2v\2\1\1", 1, id="header without a name"),
        pytest.param(b"\xff" * 11, 1, id="varint without an end"),
        pytest.param(b"\xff" * 3, 1, id="varint that stops"),
    ],
)
def test_wrong_records_are_malformed(records: bytes, count: int) -> None:
    with pytest.raises(Malformed):
        wire.records_of(wire.parse_batch(with_records(records, count)))


def test_gzip_and_zstd_are_expanded() -> None:
    records = b"\x0e" + RECORD
    for codec, data in (
        (wire.CODEC_GZIP, gzip.compress(records)),
        (wire.CODEC_ZSTD, zstandard.compress(records)),
    ):
        found = wire.records_of(wire.parse_batch(with_records(data, 1, codec)))
        assert found == (wire.RawRecord(None, b"v", ()),)


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5, 7])
def test_what_does_not_expand_is_malformed(codec: int) -> None:
    with pytest.raises(Malformed):
        wire.records_of(wire.parse_batch(with_records(b"not compressed", 1, codec)))


def test_a_bomb_ends_at_the_limit() -> None:
    bomb = zstandard.compress(bytes(64 * 1024 * 1024))
    with pytest.raises(Malformed, match="limit"):
        wire.records_of(wire.parse_batch(with_records(bomb, 1, wire.CODEC_ZSTD)))


@pytest.mark.parametrize("codec", [wire.CODEC_GZIP, wire.CODEC_ZSTD])
def test_only_one_compressed_stream_is_taken(codec: int) -> None:
    compress = gzip.compress if codec == wire.CODEC_GZIP else zstandard.compress
    whole, empty = compress(b"\x0e" + RECORD), compress(b"")
    for data in (whole + empty, empty + whole, whole + whole, whole + b"\0", whole[:-1]):
        with pytest.raises(Malformed, match="one compressed stream"):
            wire.records_of(wire.parse_batch(with_records(data, 1, codec)))


def test_streams_that_say_nothing_cost_next_to_nothing() -> None:
    began = time.process_time()
    for codec, empty in (
        (wire.CODEC_GZIP, gzip.compress(b"")),
        (wire.CODEC_ZSTD, zstandard.compress(b"")),
    ):
        data = empty * (COMPRESSED_BYTES_MAX // len(empty))
        with pytest.raises(Malformed, match="one compressed stream"):
            wire.records_of(wire.parse_batch(with_records(data, 1, codec)))
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("codec", [wire.CODEC_GZIP, wire.CODEC_ZSTD])
def test_no_more_is_expanded_than_a_topic_takes(codec: int) -> None:
    data = bytes(COMPRESSED_BYTES_MAX + 1)
    with pytest.raises(Malformed, match="longer than a topic takes"):
        wire.records_of(wire.parse_batch(with_records(data, 1, codec)))


@pytest.mark.parametrize("codec", [wire.CODEC_GZIP, wire.CODEC_ZSTD])
def test_a_batch_as_large_as_a_topic_takes_is_expanded_whole(codec: int) -> None:
    value = random.Random(7).randbytes(COMPRESSED_BYTES_MAX - 1024)
    body = b"\0\0\0\1" + varint(len(value)) + value + b"\0"
    compress = gzip.compress if codec == wire.CODEC_GZIP else zstandard.compress
    data = compress(varint(len(body)) + body)
    (found,) = wire.records_of(wire.parse_batch(with_records(data, 1, codec)))
    assert found.value == value


def test_a_frame_that_states_no_size_is_expanded_as_clients_stream_it() -> None:
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    data = stream.compress(b"\x0e" + RECORD) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    data += stream.flush()
    assert len(wire.records_of(wire.parse_batch(with_records(data, 1, wire.CODEC_ZSTD)))) == 1


def test_headers_of_a_batch_are_bounded_together() -> None:
    headers = varint(16) + b"\x00\x01" * 16
    count = BATCH_HEADERS_MAX // 16 + 1
    bodies = [b"\0\0" + varint(index) + b"\x01\x01" + headers for index in range(count)]
    records = b"".join(varint(len(body)) + body for body in bodies)
    with pytest.raises(Malformed, match="headers"):
        wire.records_of(wire.parse_batch(with_records(records, count)))


def test_the_first_records_are_read_without_the_rest_and_never_expanded() -> None:
    data = batch(b"one", b"two", b"three")
    found = wire.first_records(wire.parse_batch(data), 2)
    assert [record.value for record in found] == [b"one", b"two"]
    assert len(wire.first_records(wire.parse_batch(data), 9)) == 3
    assert wire.first_records(wire.parse_batch(batch(b"one", codec=1)), 2) == ()
