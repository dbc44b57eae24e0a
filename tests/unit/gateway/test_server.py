"""The shell with real sockets and TLS: limits cut one connection and harm nobody else."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fabric.config_fields import Address
from fabric.gateway import answers, server
from fabric.gateway.identity import Identity
from fabric.gateway.judge import Verdict
from fabric.gateway.requests import Part
from fabric.gateway.server import Door
from fabric.model.errors import ConfigInvalid, Reason
from fabric.model.limits import CONNECTIONS_PER_IDENTITY_MAX, FRAME_BYTES_MAX, JUDGED_BYTES_MIN
from tests.fakes import kafka_frames
from tests.fakes.gateway import OPEN, SEALED, batch
from tests.fakes.gateway_doors import House, open_house, read, until, write
from tests.fakes.kafka_frames import read_answer


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


def outcome(version: int, frame: bytes) -> tuple[int, int]:
    """Error code and offset of the first part of a Produce answer."""
    _, body = read_answer(0, version, frame)
    part = body.responses[0].partition_responses[0]
    return int(part.error_code), int(part.base_offset)


def produce(house: House, correlation: int = 1) -> bytes:
    parts = [(OPEN, 0, batch(house.world.open_record()))]
    return kafka_frames.produce(9, correlation, parts, timeout_ms=3_000)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes without another word."""
    async with asyncio.timeout(10):
        try:
            return await reader.read(1) == b""
        except OSError:
            return True


async def is_well(house: House) -> bool:
    """Whether an honest client is served."""
    return outcome(9, await house.ask(produce(house)))[0] == 0


async def test_a_produce_request_goes_all_the_way(house: House) -> None:
    frame = kafka_frames.produce(9, 1, [(SEALED, 0, batch(house.world.seal()))])
    assert outcome(9, await house.ask(frame)) == (0, 100)
    assert house.broker.broker.asked[-1].api == 0


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    reader, writer = await house.connect()
    for correlation in range(40):
        write(writer, produce(house, correlation))
    found = [int.from_bytes((await read(reader))[:4]) for _ in range(40)]
    assert found == list(range(40))
    writer.close()


async def test_a_refusal_is_kept_for_whoever_was_refused(house: House) -> None:
    frame = kafka_frames.produce(9, 1, [(SEALED, 0, batch(b"plain"))])
    assert outcome(9, await house.ask(frame))[0] == 87
    assert len(house.parts.refusals) == 1
    name = "fabric_gateway_denied_total"
    labels = {"level": "secret", "reason": "not_sealed"}
    assert house.parts.metrics.registry.get_sample_value(name, labels) == 1


async def test_a_newer_policy_hurries_the_view(house: House) -> None:
    envelope = house.world.seal(policy_version=8)
    frame = kafka_frames.produce(9, 1, [(SEALED, 0, batch(envelope))])
    assert outcome(9, await house.ask(frame))[0] == 7
    assert house.hurries == [1]


@pytest.mark.parametrize("size", [-1, 0, 3, FRAME_BYTES_MAX + 1])
async def test_an_impossible_length_cuts(house: House, size: int) -> None:
    reader, writer = await house.connect()
    writer.write(size.to_bytes(4, signed=True))
    assert await ended(reader)
    await until(lambda: house.cut("malformed") == 1, "the cut to be counted")
    assert await is_well(house)


async def test_garbage_cuts(house: House) -> None:
    reader, writer = await house.connect()
    write(writer, b"\xff" * 50)
    assert await ended(reader)
    assert await is_well(house)


async def test_a_slow_frame_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_S_MAX", 0.2)
    reader, writer = await house.connect()
    writer.write((1_000).to_bytes(4) + b"drip")
    assert await ended(reader)
    assert house.cut("frame_time") == 1
    assert await is_well(house)


async def test_a_silent_handshake_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S_MAX", 0.2)
    reader, writer = await asyncio.open_connection("localhost", house.port)
    assert await is_well(house)
    assert await ended(reader)
    writer.close()
    await until(lambda: house.cut("handshake") == 1, "the cut to be counted")


async def test_half_open_connections_crowd_out_each_other_and_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKES_MAX", 2)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    half_open = [await asyncio.open_connection("localhost", house.port) for _ in range(6)]
    await until(lambda: house.cut("handshakes") == 4, "the oldest to be cut")
    assert await is_well(house)
    for reader, _ in half_open[:5]:
        assert await ended(reader)
    for _, writer in half_open:
        writer.close()


async def half_open(
    house: House, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from an address of loopback that never says a word."""
    return await asyncio.open_connection("127.0.0.1", house.port, local_addr=(address, 0))


async def test_an_address_that_comes_again_and_again_pushes_out_its_own_handshakes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKES_MAX", 3)
    slow, slow_writer = await half_open(house, "127.0.0.1")
    crowd = [await half_open(house, "127.0.0.2") for _ in range(20)]
    await until(lambda: house.cut("handshakes") == 18, "all but the last of the crowd to be cut")
    for reader, _ in crowd[:18]:
        assert await ended(reader)
    await slow_writer.start_tls(house.papers(), server_hostname="localhost")
    write(slow_writer, produce(house))
    assert outcome(9, await read(slow))[0] == 0
    for writer in (slow_writer, *(writer for _, writer in crowd)):
        writer.close()


async def test_handshakes_of_one_address_are_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKES_PER_ADDRESS_MAX", 2)
    crowd = [await half_open(house, "127.0.0.2") for _ in range(5)]
    await until(lambda: house.cut("handshakes") == 3, "the oldest to be cut")
    for reader, _ in crowd[:3]:
        assert await ended(reader)
    assert await is_well(house)
    for _, writer in crowd:
        writer.close()


async def test_addresses_of_one_network_have_one_share_of_the_handshakes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKES_PER_ADDRESS_MAX", 2)
    monkeypatch.setattr(server, "share_of", lambda address: address.rpartition(".")[0])
    crowd = [await half_open(house, f"127.0.0.{n}") for n in range(2, 6)]
    await until(lambda: house.cut("handshakes") == 2, "the oldest to be cut")
    for _, writer in crowd:
        writer.close()


async def test_a_client_without_a_certificate_is_not_served(house: House) -> None:
    context = ssl.create_default_context(cafile=str(house.pki.ca))
    with pytest.raises((OSError, EOFError)):
        await house.ask(kafka_frames.api_versions(0, 1), context)


async def test_a_certificate_of_another_authority_is_not_served(
    house: House, tmp_path: Path
) -> None:
    from tests.fakes.gateway_doors import Pki

    folder = tmp_path / "other"
    folder.mkdir()
    other = Pki(folder)
    files = other.host(house.world.a.host, house.domain)
    context = house.pki.client(files)
    with pytest.raises((OSError, EOFError)):
        await house.ask(kafka_frames.api_versions(0, 1), context)


async def test_a_gateways_certificate_is_no_clients(house: House) -> None:
    context = house.pki.client(house.pki.platform("gateway"))
    with pytest.raises((OSError, EOFError)):
        await house.ask(kafka_frames.api_versions(0, 1), context)
    await until(lambda: house.cut("identity_mismatch") == 1, "the cut to be counted")


async def test_an_idle_client_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S_MAX", 0.2)
    reader, _ = await house.connect()
    assert await ended(reader)


async def test_a_certificates_end_closes_the_open_connection(house: House) -> None:
    reader, writer = await house.connect(house.papers(lifetime_s=2))
    write(writer, kafka_frames.api_versions(0, 1))
    await read(reader)
    assert await ended(reader)


async def test_an_identity_has_a_bounded_number_of_connections(house: House) -> None:
    context = house.papers()
    kept = [await house.connect(context) for _ in range(CONNECTIONS_PER_IDENTITY_MAX)]
    await until(lambda: house.open_connections() == len(kept), "all connections to be open")
    write(kept[-1][1], kafka_frames.api_versions(0, 1))
    await read(kept[-1][0])
    reader, _ = await house.connect(context)
    assert await ended(reader)
    await until(lambda: house.cut("overloaded") == 1, "the cut to be counted")
    for _, writer in kept:
        writer.close()
    await until(lambda: house.open_connections() == 0, "all connections to end")


async def test_all_connections_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)
    reader, writer = await house.connect()
    write(writer, kafka_frames.api_versions(0, 1))
    await read(reader)
    with pytest.raises((OSError, EOFError)):
        await house.ask(kafka_frames.api_versions(0, 1))
    writer.close()
    await until(lambda: house.open_connections() == 0, "the connection to end")
    assert await is_well(house)


async def test_a_request_that_is_long_to_judge_holds_up_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their turn between its parts."""
    assert await is_well(house)
    judge = house.parts.judge.judge

    def slowly(part: Part, identity: Identity, now: datetime) -> Verdict:
        if len(part.records or b"") > JUDGED_BYTES_MIN:
            time.sleep(0.1)
        return judge(part, identity, now)

    monkeypatch.setattr(house.parts.judge, "judge", slowly)
    reader, writer = await house.connect()
    write(writer, kafka_frames.produce(9, 1, [(OPEN, n, bytes(20_000)) for n in range(20)]))
    other = house.pki.client(house.pki.host(house.world.b.host, house.domain, lifetime_s=600))
    ended: list[str] = []

    async def ask(name: str) -> None:
        if name == "other":
            await house.ask(kafka_frames.api_versions(0, 1), other)
        else:
            await read(reader)
        ended.append(name)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for name in ("long", "other"):
            group.create_task(ask(name))
    assert ended == ["other", "long"]
    writer.close()


async def test_answers_about_topics_are_read_in_turn_with_rests_between(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request of 20 bytes asks for every topic there is."""
    began: list[float] = []
    rewrite = answers.rewrite_metadata

    def slowly(*args: Any, **kwargs: Any) -> bytes:
        began.append(time.monotonic())
        time.sleep(0.1)
        return rewrite(*args, **kwargs)

    monkeypatch.setattr(answers, "rewrite_metadata", slowly)
    context = house.papers()
    asking = [await house.connect(context) for _ in range(3)]
    for _, writer in asking:
        write(writer, kafka_frames.metadata(9, 1, None))
    other = house.pki.client(house.pki.host(house.world.b.host, house.domain, lifetime_s=600))
    await house.ask(kafka_frames.api_versions(0, 1), other)
    assert len(began) < 3
    for reader, writer in asking:
        await read(reader)
        writer.close()
    assert [after - before > 0.19 for before, after in pairwise(began)] == [True, True]


async def test_a_broker_that_went_away_means_come_again(house: House) -> None:
    assert await is_well(house)
    await house.broker.stop()
    assert outcome(9, await house.ask(produce(house)))[0] == 7
    await house.broker.start()
    assert await is_well(house)


async def test_a_mute_broker_means_come_again_within_the_clients_time(house: House) -> None:
    assert await is_well(house)
    house.broker.is_mute = True
    parts = [(OPEN, 0, batch(house.world.open_record()))]
    frame = kafka_frames.produce(9, 1, parts, timeout_ms=300)
    async with asyncio.timeout(2):
        assert outcome(9, await house.ask(frame))[0] == 7


async def test_what_a_gone_client_had_not_sent_on_is_dropped(house: House) -> None:
    house.broker.is_mute = True
    reader, writer = await house.connect()
    write(writer, produce(house))
    await until(lambda: house.broker.connections == 1, "the broker to be asked")
    writer.transport.abort()
    await until(lambda: house.open_connections() == 0, "the connection to end")
    house.broker.is_mute = False
    assert await is_well(house)
    assert [asked.api for asked in house.broker.broker.asked] == [3, 0]
    del reader


async def test_a_fault_of_ours_ends_one_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = house.parts.judge.view
    house.parts.judge.view = object()  # type: ignore[assignment]
    monkeypatch.setattr(type(house.parts), "trust_domain", house.domain)
    with pytest.raises((OSError, EOFError)):
        await house.ask(produce(house))
    await until(lambda: house.cut(Reason.INTERNAL) == 1, "the cut to be counted")
    house.parts.judge.view = good
    assert await is_well(house)


async def test_a_taken_address_is_a_matter_of_configuration(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(ConfigInvalid, match=r"gateway\.listen"):
            await Door(house.parts).serve(address, lambda _: None)
