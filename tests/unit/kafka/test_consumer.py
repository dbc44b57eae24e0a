"""One partition's consumer: what the library's failures mean, and the watch over it."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from fabric.kafka import consumer as module
from fabric.kafka.consumer import PartitionConsumer
from fabric.model.errors import DeniedError, FabricError, Reason, UnavailableError


class Library:
    """AIOKafkaConsumer as told."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.failure: Exception | None = None
        self.end = 0
        self.looked_for_ms = 0

    async def getmany(self, *_: object, **__: object) -> dict[object, object]:
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return {}

    async def position(self, place: TopicPartition) -> int:
        return 5

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.end)

    async def offsets_for_times(self, wanted: dict[TopicPartition, int]) -> dict[Any, Any]:
        self.end = 9  # another writer was faster
        (self.looked_for_ms,) = wanted.values()
        return dict.fromkeys(wanted)

    async def stop(self) -> None:
        return


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[PartitionConsumer, Library]]:
    monkeypatch.setattr(module, "_Consumer", Library)
    monkeypatch.setattr(module, "_WATCH_S", 0.0)

    def make() -> tuple[PartitionConsumer, Library]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        it = PartitionConsumer("t", 0, brokers=["b:1"], context=context, client_id="c")
        return it, it._consumer

    return make


def test_nothing_is_left_to_the_librarys_defaults(
    made: Callable[[], tuple[PartitionConsumer, Library]],
) -> None:
    settings = made()[1].settings
    assert settings["group_id"] is None
    assert settings["enable_auto_commit"] is False
    assert settings["auto_offset_reset"] == "none"
    assert settings["isolation_level"] == "read_committed"
    assert settings["check_crcs"] is True
    assert settings["key_deserializer"] is None
    assert settings["value_deserializer"] is None
    assert settings["security_protocol"] == "SSL"


@pytest.mark.parametrize(
    ("failure", "family", "reason"),
    [
        (TopicAuthorizationFailedError("t"), DeniedError, Reason.NOT_A_CONSUMER),
        (OffsetOutOfRangeError({}), DeniedError, Reason.HISTORY_LOST),
        (KafkaConnectionError(), UnavailableError, Reason.BROKER_UNAVAILABLE),
        (CorruptRecordException(), UnavailableError, Reason.BROKER_UNAVAILABLE),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "?"), UnavailableError, Reason.BROKER_UNAVAILABLE),
        (SystemError("a decoder"), UnavailableError, Reason.BROKER_UNAVAILABLE),
    ],
)
async def test_every_failure_has_a_family(
    made: Callable[[], tuple[PartitionConsumer, Library]],
    failure: Exception,
    family: type[FabricError],
    reason: Reason,
) -> None:
    it, library = made()
    library.failure = failure
    with pytest.raises(family) as caught:
        await it.poll()
    assert caught.value.reason is reason


async def test_a_fetcher_that_stands_still_while_the_log_grows_is_reported(
    made: Callable[[], tuple[PartitionConsumer, Library]],
) -> None:
    it, library = made()
    library.end = 5
    assert await it.poll() == []
    library.end = 6
    assert await it.poll() == []  # it may have come in this very moment
    with pytest.raises(UnavailableError, match="stands still"):
        await it.poll()


@pytest.mark.parametrize("said", [-(2**63), -1, 0, 1_700_000_000_000, 2**62, 2**63 - 1])
def test_whatever_time_a_broker_writes_on_a_record_is_a_time(said: int) -> None:
    item = SimpleNamespace(topic="t", partition=0, offset=1, timestamp=said, key=None, value=b"v")
    record = module._record(item)
    assert 1970 <= record.timestamp.year <= 9999
    assert (record.timestamp.timestamp() * 1000 == said) == (0 <= said < 2**50)


async def test_no_record_that_comes_during_a_search_by_time_is_passed_over(
    made: Callable[[], tuple[PartitionConsumer, Library]],
) -> None:
    it, library = made()
    library.end = 8
    assert await it.offset_at(datetime.now(UTC)) == 8


@pytest.mark.parametrize(
    ("when", "wanted_ms"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1000),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 1001),
        (datetime(1900, 1, 1, tzinfo=UTC), 0),
    ],
)
async def test_a_time_is_looked_for_in_the_brokers_milliseconds_and_never_before_it(
    made: Callable[[], tuple[PartitionConsumer, Library]], when: datetime, wanted_ms: int
) -> None:
    it, library = made()
    await it.offset_at(when)
    assert library.looked_for_ms == wanted_ms
