"""Time and bytes are bounded, whoever serves; TLS is checked by the configured CA."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from fabric.authority.pki import make_ca
from fabric.repository import fetch
from fabric.repository.fetch import FolderFetcher, HttpsFetcher
from fabric.tls import client_context
from tests.fakes.https import Answer, Files, hanging, https, make_files


def test_folder_gives_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    fetcher = FolderFetcher(tmp_path)
    assert fetcher.download_bytes(f"{fetcher.base}/a", 10) == b"content"


@pytest.mark.parametrize("name", ["b", "a/b"])
def test_missing_file_of_a_folder_is_as_a_servers_404(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(DownloadHTTPError) as caught:
        FolderFetcher(tmp_path).download_bytes(f"{tmp_path}/{name}", 10)
    assert caught.value.status_code == 404


@pytest.mark.parametrize("name", [".", "a\0b"])
def test_what_cannot_be_read_is_unavailable(tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError):
        FolderFetcher(tmp_path).download_bytes(f"{tmp_path}/{name}", 10)


def test_long_file_of_a_folder_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    with pytest.raises(DownloadLengthMismatchError):
        FolderFetcher(tmp_path).download_bytes(f"{tmp_path}/a", 99)


def asked(url: str, files: Files, *paths: str, ca: Path | None = None) -> list[bytes]:
    """What a process gets; it asks from a thread, as processes do."""
    fetcher = HttpsFetcher(url, client_context(files.cert, files.key, ca or files.ca))
    with fetcher.session():
        return [fetcher.download_bytes(f"{fetcher.base}/{path}", 1_000) for path in paths]


async def from_server(folder: Path, answer: Answer, *paths: str) -> list[bytes]:
    files = make_files(folder)
    async with https(files, answer) as url:
        return await asyncio.to_thread(asked, url, files, *paths)


async def test_files_are_fetched_over_one_connection(tmp_path: Path) -> None:
    peers = set()

    async def answer(request: web.Request) -> web.Response:
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=request.path.encode())

    assert await from_server(tmp_path, answer, "a", "b/c") == [b"/a", b"/b/c"]
    assert len(peers) == 1


@pytest.mark.parametrize("status", [404, 403, 500, 302])
async def test_other_answers_than_200_are_no_content(tmp_path: Path, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        del request
        return web.Response(status=status, headers={"Location": "/elsewhere"}, body=b"x")

    with pytest.raises(DownloadHTTPError) as caught:
        await from_server(tmp_path, answer, "a")
    assert caught.value.status_code == status


async def test_endless_answer_is_cut_off(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            await asyncio.sleep(0)  # a write to a peer that has left neither fails nor waits

    with pytest.raises(DownloadLengthMismatchError):
        await from_server(tmp_path, answer, "a")


async def test_slow_answer_ends_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "REQUEST_S_MAX", 0.3)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    with pytest.raises(SlowRetrievalError):
        await from_server(tmp_path, answer, "a")


async def test_the_whole_look_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "POLICY_REFRESH_S_MAX", -1.0)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=request.path.encode())

    with pytest.raises(SlowRetrievalError):
        await from_server(tmp_path, answer, "a")


async def test_server_of_another_ca_is_not_asked(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    other = tmp_path / "other.pem"
    other.write_bytes(make_ca("another").cert_pem)

    async def answer(request: web.Request) -> web.Response:
        raise AssertionError(request.path)

    async with https(files, answer) as url:
        with pytest.raises(DownloadError, match="ClientConnector"):
            await asyncio.to_thread(asked, url, files, "a", ca=other)


async def test_server_that_says_nothing_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "REQUEST_S_MAX", 0.2)
    async with hanging() as url:
        with pytest.raises(DownloadError):
            await asyncio.to_thread(asked, url, make_files(tmp_path), "a")
