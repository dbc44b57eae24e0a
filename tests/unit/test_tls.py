"""TLS contexts, by real handshakes on loopback: version, both chains, names, no tickets."""

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.authority.pki import Ca, issue_platform, make_ca
from fabric.model.errors import ConfigInvalid
from fabric.tls import certificate_end, client_context, server_context, why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """A CA file and a part's certificate and key files."""

    ca: Path
    cert: Path
    key: Path


def make(folder: Path, name: str, ca: Ca, hosts: list[str]) -> Pki:
    cert, key = issue_platform(ca, "gateway", hosts=hosts, days=1)
    paths = [folder / f"{name}.{kind}" for kind in ("ca", "pem", "key")]
    for path, data in zip(paths, (ca.cert_pem, cert, key), strict=True):
        path.write_bytes(data)
    return Pki(ca=paths[0], cert=paths[1], key=paths[2])


@pytest.fixture(scope="module", name="ours")
def _ours(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make(tmp_path_factory.mktemp("ours"), "a", make_ca("ours"), ["localhost"])


@pytest.fixture(scope="module", name="alien")
def _alien(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make(tmp_path_factory.mktemp("alien"), "b", make_ca("alien"), ["localhost"])


async def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[str | None, bool]:
    """TLS version, and whether the server saw a certificate."""
    seen: list[bool] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        seen.append(bool(tls.getpeercert(binary_form=True)))
        writer.write(b"hello")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname=name
            )
            tls = writer.get_extra_info("ssl_object")
            # In TLS 1.3 a refusal of our certificate comes after the handshake.
            if await reader.readexactly(5) != b"hello":
                raise ssl.SSLError("no greeting")
            writer.close()
            assert not tls.session.has_ticket
            return tls.version(), seen[0]
    finally:
        listening.close()


REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


async def test_both_sides_with_certificates_speak_tls_1_3_without_tickets(ours: Pki) -> None:
    server = server_context(ours.cert, ours.key, ours.ca)
    client = client_context(ours.cert, ours.key, ours.ca)
    assert await shake(server, client) == ("TLSv1.3", True)


async def test_client_without_a_certificate_is_refused(ours: Pki) -> None:
    server = server_context(ours.cert, ours.key, ours.ca)
    with pytest.raises(REFUSED):
        await shake(server, client_context(None, None, ours.ca))


async def test_client_of_another_ca_is_refused(ours: Pki, alien: Pki) -> None:
    for demand in (True, False):
        server = server_context(ours.cert, ours.key, ours.ca, demand=demand)
        with pytest.raises(REFUSED):
            await shake(server, client_context(alien.cert, alien.key, ours.ca))


async def test_server_that_does_not_demand_serves_a_client_without_certificate(ours: Pki) -> None:
    server = server_context(ours.cert, ours.key, ours.ca, demand=False)
    assert await shake(server, client_context(None, None, ours.ca)) == ("TLSv1.3", False)


async def test_server_of_another_ca_is_refused(ours: Pki, alien: Pki) -> None:
    server = server_context(alien.cert, alien.key, ours.ca)
    with pytest.raises(REFUSED):
        await shake(server, client_context(ours.cert, ours.key, ours.ca))


async def test_server_of_another_name_is_refused(ours: Pki) -> None:
    server = server_context(ours.cert, ours.key, ours.ca)
    with pytest.raises(REFUSED):
        await shake(server, client_context(ours.cert, ours.key, ours.ca), "other.example")


async def test_older_tls_is_refused(ours: Pki) -> None:
    server = server_context(ours.cert, ours.key, ours.ca)
    old = ssl.create_default_context(cafile=str(ours.ca))
    old.load_cert_chain(ours.cert, ours.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(REFUSED):
        await shake(server, old)


def test_file_that_does_not_fit_is_named(ours: Pki, alien: Pki, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigInvalid, match="no-such"):
        client_context(None, None, tmp_path / "no-such")
    with pytest.raises(ConfigInvalid, match="empty.pem"):
        client_context(None, None, empty)
    with pytest.raises(ConfigInvalid, match="certificate with its key"):
        server_context(ours.cert, alien.key, ours.ca)
    with pytest.raises(ConfigInvalid, match="no-such"):
        server_context(ours.cert, tmp_path / "no-such", ours.ca)


def test_key_under_a_password_is_refused_and_nobody_is_asked(ours: Pki, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(ours.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    with pytest.raises(ConfigInvalid, match="locked.key"):
        server_context(ours.cert, locked, ours.ca)


def test_the_end_of_a_certificate_is_read_from_its_file(ours: Pki) -> None:
    left = certificate_end(ours.cert) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1)


def test_a_file_without_a_certificate_is_named(ours: Pki) -> None:
    with pytest.raises(ConfigInvalid, match="key"):
        certificate_end(ours.key)


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (ConnectionRefusedError(), "nobody listens"),
        (socket.gaierror(), "does not resolve"),
        (TimeoutError(), "in time"),
        (ConnectionResetError(), "hangs up"),
        (EOFError(), "hangs up"),
        (ssl.SSLError(1, "alert"), "refuses our certificate"),
        (OSError("/secret"), r"cannot connect \(OSError\)"),
    ],
)
def test_a_broken_connection_is_told_in_words(exc: Exception, words: str) -> None:
    assert re.search(words, why_not(exc))
