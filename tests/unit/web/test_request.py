"""One request: bounded in time and size, and every failure is one of ours."""

from pathlib import Path

import pytest
from aiohttp import web

from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.web import request as module
from fabric.web.request import request
from tests.fakes.https import Files, hanging, https, make_files


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


async def test_body_goes_out_and_answer_comes_back(files: Files) -> None:
    async def answer(got: web.Request) -> web.Response:
        assert got.content_type == "application/cbor"
        assert "Cookie" not in got.headers
        return web.Response(body=await got.read() + b"!", content_type="application/cbor")

    async with https(files, answer) as url:
        found = await request(
            "POST", url + "/x", context=files.client(), body=b"hi", answer_bytes_max=10
        )
    assert found == (200, "application/cbor", b"hi!")


@pytest.mark.parametrize("chunked", [True, False])
async def test_answer_too_large_is_refused_while_it_is_read(files: Files, chunked: bool) -> None:
    async def answer(got: web.Request) -> web.StreamResponse:
        if not chunked:
            return web.Response(body=b"x" * 1_000_000)
        stream = web.StreamResponse()
        await stream.prepare(got)
        for _ in range(1_000):
            await stream.write(b"x" * 1_000)
        return stream

    async with https(files, answer) as url:
        with pytest.raises(PeerError) as caught:
            await request("GET", url, context=files.client(), answer_bytes_max=1_000)
    assert caught.value.reason is Reason.TOO_LARGE


async def test_compressed_answer_is_not_inflated(files: Files) -> None:
    async def answer(got: web.Request) -> web.Response:
        return web.Response(body=b"bomb", headers={"Content-Encoding": "gzip"})

    async with https(files, answer) as url:
        found = await request("GET", url, context=files.client(), answer_bytes_max=10)
    assert found[2] == b"bomb"


async def test_redirect_is_not_followed(files: Files) -> None:
    async def answer(got: web.Request) -> web.Response:
        raise web.HTTPFound("https://elsewhere.example/")

    async with https(files, answer) as url:
        found = await request("GET", url, context=files.client(), answer_bytes_max=1_000)
    assert found[0] == 302


async def test_nobody_there_is_unavailable(files: Files) -> None:
    with pytest.raises(UnavailableError) as caught:
        await request("GET", "https://localhost:1", context=files.client(), answer_bytes_max=1)
    assert caught.value.reason is Reason.AUTHORITY_UNAVAILABLE


async def test_server_of_another_ca_is_unavailable(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    async def answer(got: web.Request) -> web.Response:
        return web.Response()

    async with https(make_files(other), answer) as url:
        with pytest.raises(UnavailableError):
            await request("GET", url, context=files.client(), answer_bytes_max=1)


async def test_server_that_never_answers_is_unavailable_in_time(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S_MAX", 0.2)
    async with hanging() as url:
        with pytest.raises(UnavailableError):
            await request("GET", url, context=files.client(), answer_bytes_max=1)
