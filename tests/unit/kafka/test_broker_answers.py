"""Brokers' answers, held against kio; forged ones cost nothing and end nobody."""

import asyncio
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from fabric.gateway import answers, requests, run
from fabric.gateway.apis import Api
from fabric.kafka import broker_answers
from fabric.kafka.broker_answers import Cluster, PartAnswer
from fabric.model.errors import Malformed
from fabric.model.limits import ANSWER_ITEMS_MAX, FRAME_BYTES_MAX, RECORD_ERRORS_MAX, TAGS_MAX
from tests.fakes import kafka_frames
from tests.fakes.gateway_doors import until
from tests.fakes.gateway_play import Stage
from tests.fakes.kafka_frames import Broker

WHEN = datetime(2026, 11, 24, 8, 0, 0, 123_000, tzinfo=UTC)
PARTS = [
    PartAnswer(topic="a", partition=0, base_offset=5, appended=WHEN, log_start_offset=1),
    PartAnswer(
        topic="b", partition=1, error=87, record_errors=((2, "why"),), message="gateway: why"
    ),
]
BYTES_MAX = 256 * 1024
"""What refusing a forged answer of a few hundred bytes may hold at once."""
SECONDS_MAX = 0.05


@pytest.mark.parametrize("version", [1, 9, 12])
def test_reading_metadata_costs_a_few_calls_a_partition(version: int) -> None:
    """An answer may name every topic, and nobody else has a turn while it is read."""
    broker = Broker()
    broker.leaders = {(f"topic-{n}", part): 1 for n in range(50) for part in range(10)}
    frame = broker.answer(kafka_frames.metadata(version, 1, None))
    calls = 0

    def count(*told: object) -> None:
        nonlocal calls
        calls += told[1] in ("call", "c_call")

    sys.setprofile(count)
    try:
        said = broker_answers.read_metadata(version, frame)
    finally:
        sys.setprofile(None)
    assert len(said.cluster.leaders) == 500
    assert calls < 60 * 500


def produce_answer(version: int) -> bytes:
    return answers.write_produce(version, 9, parts=PARTS, throttle_ms=25)


def metadata_answer(version: int) -> bytes:
    broker = Broker({1: ("broker1", 9092), 2: ("broker2", 9093)})
    broker.leaders = {("a", 0): 2, ("a", 1): 1}
    return broker.answer(kafka_frames.metadata(version, 1, ["a"]))


def versions_answer() -> bytes:
    return Broker().answer(kafka_frames.api_versions(0, 1))


READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    **{
        f"produce-{version}": (
            produce_answer(version),
            partial(broker_answers.read_produce, version),
        )
        for version in range(3, 13)
    },
    **{
        f"metadata-{version}": (
            metadata_answer(version),
            partial(broker_answers.read_metadata, version),
        )
        for version in range(13)
    },
    "api-versions-0": (versions_answer(), broker_answers.read_api_versions),
}
"""Every answer that is read: an honest one, and what reads it."""


@pytest.mark.parametrize("version", range(3, 13))
def test_produce_answers_are_read_as_kio_wrote_them(version: int) -> None:
    found, throttle_ms = broker_answers.read_produce(version, produce_answer(version))
    assert throttle_ms == 25
    assert [(p.topic, p.partition, p.error, p.base_offset) for p in found] == [
        ("a", 0, 0, 5),
        ("b", 1, 87, -1),
    ]
    assert [p.appended for p in found] == [WHEN, None]
    assert found[0].log_start_offset == (1 if version >= 5 else -1)
    if version >= 8:
        assert (found[1].record_errors, found[1].message) == (((2, "why"),), "gateway: why")


@pytest.mark.parametrize("version", range(13))
def test_metadata_answers_are_read_as_kio_wrote_them(version: int) -> None:
    found = broker_answers.read_metadata(version, metadata_answer(version))
    assert found.cluster == Cluster(
        nodes={1: ("broker1", 9092), 2: ("broker2", 9093)},
        leaders={("a", 0): 2, ("a", 1): 1},
    )
    assert found.controller == (1 if version >= 1 else -1)
    assert found.cluster_id == ("c" if version >= 2 else None)
    assert [part.replicas for part in found.topics[0].partitions] == [(2,), (1,)]


def test_a_brokers_versions_are_read() -> None:
    found = broker_answers.read_api_versions(versions_answer())
    assert found[0] == (0, 13)
    assert found[24] == (0, 5)


def test_a_brokers_own_tagged_fields_are_passed_over() -> None:
    answer = Broker().answer(kafka_frames.produce(12, 1, [("a", 0, b"x")]))
    assert b"broker1" in answer
    parts, _ = broker_answers.read_produce(12, answer)
    assert [(part.topic, part.base_offset) for part in parts] == [("a", 100)]


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\1", b"\0\0\0\1\0", b"\0\0\0\1\1\0\0", bytes(99)])
def test_answers_that_do_not_decode_are_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        broker_answers.read_produce(9, frame)


@pytest.mark.parametrize("name", READERS)
def test_an_answer_that_ends_early_or_late_is_malformed(name: str) -> None:
    frame, read = READERS[name]
    for size in range(len(frame)):
        with pytest.raises(Malformed):
            read(frame[:size])
    with pytest.raises(Malformed):
        read(frame + b"\0")


def forgeries(frame: bytes) -> Iterator[bytes]:
    """At every place, a length that nobody can hold, fixed and compact; the rest kept or not."""
    huge = (
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x08",
        b"\xfe\xff\xff\x7f",
    )
    for at in range(4, len(frame) + 1):
        for forged in huge:
            yield frame[:at] + forged
            yield frame[:at] + forged + frame[at + len(forged) :]
            yield frame[:at] + forged + frame[at + 1 :]


@pytest.mark.parametrize("name", READERS)
def test_a_forged_length_costs_neither_memory_nor_time(name: str) -> None:
    frame, read = READERS[name]
    refused = 0
    slowest = 0.0
    tracemalloc.start()
    try:
        for forged in forgeries(frame):
            began = time.perf_counter()
            try:
                read(forged)
            except Malformed:
                refused += 1
            slowest = max(slowest, time.perf_counter() - began)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused > len(frame)
    assert peak < BYTES_MAX
    assert slowest < SECONDS_MAX


def array(count: int, item: bytes) -> bytes:
    return count.to_bytes(4) + item * count


def test_an_answer_of_more_items_than_any_cluster_has_is_malformed() -> None:
    """The frame is long enough for all of them: each costs some hundred bytes of memory."""
    partition = bytes(18)
    count = ANSWER_ITEMS_MAX + 1
    assert count * len(partition) < FRAME_BYTES_MAX
    topic = bytes(2) + b"\0\1a" + array(count, partition)
    frame = bytes(4) + array(0, b"") + array(1, topic)
    with pytest.raises(Malformed, match="too many items"):
        broker_answers.read_metadata(0, frame)
    replicas = array(ANSWER_ITEMS_MAX // 2, bytes(4))
    part = bytes(10) + replicas + replicas
    frame = bytes(4) + array(0, b"") + array(1, bytes(2) + b"\0\1a" + array(1, part))
    with pytest.raises(Malformed, match="too many items"):
        broker_answers.read_metadata(0, frame)


def test_an_answer_with_many_record_errors_or_tags_is_malformed() -> None:
    error = bytes(6)
    part = bytes(30) + array(RECORD_ERRORS_MAX + 1, error) + b"\xff\xff"
    frame = bytes(4) + array(1, b"\0\1a" + array(1, part)) + bytes(4)
    with pytest.raises(Malformed, match="record errors"):
        broker_answers.read_produce(8, frame)
    tags = bytes([TAGS_MAX + 1]) + bytes(2 * (TAGS_MAX + 1))
    with pytest.raises(Malformed, match="tagged fields"):
        broker_answers.read_metadata(9, bytes(4) + tags)


@pytest.mark.parametrize("milliseconds", [2**63 - 1, 253_402_300_800_000])
def test_a_time_that_no_calendar_has_is_malformed(milliseconds: int) -> None:
    part = bytes(14) + milliseconds.to_bytes(8)
    frame = bytes(4) + array(1, b"\0\1a" + array(1, part)) + bytes(4)
    with pytest.raises(Malformed, match="calendar"):
        broker_answers.read_produce(3, frame)


# What becomes of it in the gateway


def test_a_forged_length_is_no_answer_and_the_connection_goes_on() -> None:
    stage = Stage()
    huge = b"\xff\xff\xff\xff\x0f"
    stage.request("produce v9 sealed:0=envelope")
    assert stage.garble(1, bytes(5) + huge) == ["reply 1: sealed:0 error 7"]
    stage.request("metadata v12 sealed")
    [said] = stage.garble(2, bytes(9) + huge)
    assert said.startswith("reply 2: 1=gw")
    assert said.endswith("sealed/5")
    stage.request("produce v9 sealed:0=envelope")
    assert stage.answer(3) == ["reply 3: sealed:0 stored at 100"]


async def test_a_gateway_that_asks_by_itself_outlives_a_forged_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    async def ask(_self: run.Exchange, frame: bytes) -> bytes:
        asked.append(frame)
        own = frame[:2] == Api.API_VERSIONS.to_bytes(2)
        return bytes(6) + b"\x7f\xff\xff\xff" if own and len(asked) == 1 else forged[own]

    forged = {True: versions_answer(), False: bytes(9) + b"\xff\xff\xff\xff\x0f"}
    monkeypatch.setattr(run.Exchange, "ask", ask)
    monkeypatch.setattr(run, "_ASK_SOON_S", 0.001)
    stage, known = Stage(), asyncio.Event()
    parts: Any = SimpleNamespace(bootstrap=(), upstream=lambda: None, directory=stage.directory)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(run._ask_broker(parts, known))
        await until(lambda: len(asked) >= 5, "the gateway to ask again")
        assert not known.is_set()
        forged[False] = metadata_answer(requests.OWN_METADATA_VERSION)
        await until(known.is_set, "a good answer to be taken")
        asking.cancel()
