"""The three pages of a process, asked over real sockets."""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from fabric import tls
from fabric.authority.pki import Ca, issue_platform, make_ca
from fabric.config_web import WebConfig
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
        settings = WebConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigInvalid, match=r"web.listen: 127.0.0.1:\d+ cannot be bound"):
            async with serving(CollectorRegistry(), lambda: {}, settings):
                pass


# Beyond loopback

PATHS = ("/metrics", "/livez", "/readyz")
BEYOND = "127.1:0"
"""Loopback, in a spelling that is no address to the settings: served as if others reached it."""


class Site:
    """Files of a server, and of those who ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, make_ca("monitoring")
        self.papers("web", self.ca)
        (folder / "ca.pem").write_bytes(self.ca.cert_pem)

    def papers(self, name: str, ca: Ca) -> tuple[Path, Path]:
        """A certificate with its key."""
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued = issue_platform(ca, name, hosts=["localhost"], days=1)
        for path, data in zip(paths, issued, strict=True):
            path.write_bytes(data)
        return paths

    def settings(self, **more: str) -> WebConfig:
        certificate, key = self.folder / "web.pem", self.folder / "web.key"
        files = {"certificate": certificate, "key": key, "client_ca": self.folder / "ca.pem"}
        return WebConfig.model_validate({"listen": BEYOND, **files, **more})

    def client(self, ca: Ca | None) -> ssl.SSLContext:
        """One who trusts the server and shows a certificate of `ca`, or none."""
        papers = (None, None) if ca is None else self.papers("client", ca)
        return tls.client_context(*papers, self.folder / "ca.pem")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def get_over_tls(port: int, path: str, context: ssl.SSLContext) -> tuple[int, Any]:
    """Status and headers."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"https://127.0.0.1:{port}{path}", ssl=context, server_hostname="localhost"
        ) as answer,
    ):
        await answer.read()
        return answer.status, answer.headers


async def test_beyond_loopback_the_right_certificate_gets_every_page(site: Site) -> None:
    async with serving(CollectorRegistry(), lambda: {}, site.settings()) as port:
        for path in PATHS:
            status, headers = await get_over_tls(port, path, site.client(site.ca))
            assert (status, headers["Connection"]) == (200, "close")


@pytest.mark.parametrize("path", PATHS)
async def test_beyond_loopback_nobody_else_gets_any(site: Site, path: str) -> None:
    async with serving(CollectorRegistry(), lambda: {}, site.settings()) as port:
        for stranger in (site.client(None), site.client(make_ca("another"))):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await get_over_tls(port, path, stranger)
        with pytest.raises(aiohttp.ClientError):
            await get(port, path)


async def test_a_renewed_ca_counts_from_the_next_connection(site: Site) -> None:
    async with serving(CollectorRegistry(), lambda: {}, site.settings()) as port:
        old = site.client(site.ca)
        assert (await get_over_tls(port, "/livez", old))[0] == 200
        other = make_ca("other")
        (site.folder / "ca.pem").write_bytes(other.cert_pem)
        with pytest.raises((aiohttp.ClientError, OSError)):
            await get_over_tls(port, "/livez", old)


async def test_this_machine_asks_in_plain_beside_it(site: Site) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = free.getsockname()[1]
    settings = site.settings(local=f"127.0.0.1:{local}")
    async with serving(CollectorRegistry(), lambda: {}, settings) as port:
        assert port != local
        assert (await get(local, "/livez"))[0] == 200
        assert (await get_over_tls(port, "/livez", site.client(site.ca)))[0] == 200


async def test_files_that_cannot_be_used_are_refused_at_the_start(site: Site) -> None:
    (site.folder / "web.key").unlink()
    with pytest.raises(ConfigInvalid, match=r"web\.key"):
        async with serving(CollectorRegistry(), lambda: {}, site.settings()):
            pass
