"""Why a record was refused: whichever gateway knows says it, and silence is no reason."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from fabric.model.errors import Reason
from fabric.web.refusals import RefusalsClient
from tests.fakes.https import Files, https, make_files

DIGEST = bytes(range(32))
TOPIC = "secret.G01.residents"


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


def saying(status: int, body: bytes) -> object:
    async def answer(got: web.Request) -> web.Response:
        if got.path != f"/refusals/{TOPIC}/3/{DIGEST.hex()}":
            return web.Response(status=500)
        return web.Response(status=status, body=body, content_type="application/json")

    return answer


async def asked(files: Files, *answers: tuple[int, bytes], more: str = "") -> Reason | None:
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(https(files, saying(*answer)))  # type: ignore[arg-type]
            for answer in answers
        ]
        client = RefusalsClient([*urls, *([more] if more else [])], files.client)
        return await client.reason_of(TOPIC, 3, DIGEST)


async def test_gateway_that_refused_tells_the_reason(files: Files) -> None:
    assert await asked(files, (200, b'{"reason": "replayed"}')) is Reason.REPLAYED


async def test_one_of_several_gateways_knows(files: Files) -> None:
    answers = ((404, b"{}"), (200, b'{"reason": "too_old"}'), (500, b""))
    found = await asked(files, *answers, more="https://localhost:1")
    assert found is Reason.TOO_OLD


async def test_nobody_knows(files: Files) -> None:
    assert await asked(files, (404, b"{}")) is None
    assert await asked(files, more="https://localhost:1") is None
    assert await RefusalsClient([], files.client).reason_of(TOPIC, 3, DIGEST) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"[]", b"5", b'{"reason": 5}', b'{"reason": "hacked"}', b"[" * 4_000],
    ids=lambda body: body[:20].decode(),
)
async def test_garbage_is_no_reason(files: Files, body: bytes) -> None:
    assert await asked(files, (200, body)) is None


async def test_answer_too_large_is_no_reason(files: Files) -> None:
    assert await asked(files, (200, b'{"reason": "replayed"}' + b" " * 10_000)) is None
