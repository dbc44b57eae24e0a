"""The three pages of a process, asked over real sockets."""

import socket
from collections.abc import Mapping

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from fabric.config_fields import Address
from fabric.model.errors import ConfigInvalid
from fabric.web.server import serving


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, answer.content_type, await answer.text()


async def test_metrics_are_served_from_the_given_registry() -> None:
    registry = CollectorRegistry()
    Counter("fabric_test", "Any.", registry=registry).inc(3)
    async with serving(registry, lambda: {}) as port:
        status, kind, text = await get(port, "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert "fabric_test_total 3.0" in text
    assert "process_cpu" not in text


async def test_process_is_live_while_its_loop_turns() -> None:
    async with serving(CollectorRegistry(), lambda: {"broker": "broker_unavailable"}) as port:
        assert (await get(port, "/livez"))[0] == 200


async def test_readiness_names_every_part_and_its_reason() -> None:
    parts: dict[str, str | None] = {"attestation": None, "broker": None}
    async with serving(CollectorRegistry(), lambda: parts) as port:
        status, kind, text = await get(port, "/readyz")
        assert (status, kind) == (200, "application/json")
        assert '"status": "ready"' in text
        parts["broker"] = "broker_unavailable"
        status, _, text = await get(port, "/readyz")
        assert status == 503
        assert '"broker": "broker_unavailable"' in text
        assert '"attestation": null' in text
        parts["broker"] = None
        assert (await get(port, "/readyz"))[0] == 200


async def test_readiness_that_cannot_be_told_is_not_ready() -> None:
    def broken() -> Mapping[str, str | None]:
        raise RuntimeError("secret detail")

    async with serving(CollectorRegistry(), broken) as port:
        status, _, text = await get(port, "/readyz")
    assert status == 503
    assert '"readiness": "internal"' in text
    assert "secret" not in text


async def test_nothing_else_is_served() -> None:
    async with serving(CollectorRegistry(), lambda: {}) as port:
        assert (await get(port, "/"))[0] == 404
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/readyz") as answer,
        ):
            assert answer.status == 405


async def test_server_listens_on_loopback_and_ends_with_its_block() -> None:
    async with serving(CollectorRegistry(), lambda: {}) as port:
        assert (await get(port, "/livez"))[0] == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(port, "/livez")


async def test_address_in_use_is_named_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigInvalid, match=r"web.listen: 127.0.0.1:\d+ cannot be bound"):
            async with serving(CollectorRegistry(), lambda: {}, address):
                pass
