"""The authority's client: bodies there and back, refusals with their reason."""

from pathlib import Path

import pytest
from aiohttp import web

from fabric.attest.catchup import Catchup
from fabric.attest.messages import (
    CONTENT_TYPE,
    ActivateRequest,
    AttestAnswer,
    Challenge,
    ChallengeRequest,
    EnrolChallenge,
    EnrolRequest,
    Refusal,
)
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
)
from fabric.model.names import HostId
from fabric.web.authority import AuthorityClient
from tests.fakes.https import Files, https, make_files

HOST = HostId.parse("G01/registry/host-a")
ENROL = EnrolRequest(host=HOST, ek_certificate=b"ek", ak_public=b"ak")
ENROL_CHALLENGE = EnrolChallenge(enrolment=b"e" * 16, credential=b"c", secret=b"s")
CHALLENGE = Challenge(
    session=b"s" * 16,
    nonce=b"n" * 32,
    verifier="verifier",
    pcrs=(0, 7),
    expires_ms=30_000,
    tally=b"",
    step=bytes(32),
)
ANSWER = AttestAnswer(svid_pem=b"pem", result=b"result")


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


async def test_four_calls_reach_their_paths(files: Files) -> None:
    async def answer(got: web.Request) -> web.Response:
        assert (got.method, got.content_type) == ("POST", CONTENT_TYPE)
        body = await got.read()
        if got.path == "/enrol":
            assert EnrolRequest.decode(body) == ENROL
            return web.Response(body=ENROL_CHALLENGE.encode(), content_type=CONTENT_TYPE)
        if got.path == "/enrol/activate":
            assert ActivateRequest.decode(body).secret == b"proof"
            return web.Response(status=204)
        if got.path == "/challenge":
            assert ChallengeRequest.decode(body).host == HOST
            return web.Response(body=CHALLENGE.encode(), content_type=CONTENT_TYPE)
        assert (got.path, body) == ("/attest", b"signed")
        return web.Response(body=ANSWER.encode(), content_type=CONTENT_TYPE)

    async with https(files, answer) as url:
        client = AuthorityClient(url + "/", files.client)
        assert await client.enrol(ENROL) == ENROL_CHALLENGE
        await client.activate(b"e" * 16, b"proof")
        assert await client.challenge(HOST) == CHALLENGE
        assert await client.attest(b"signed") == ANSWER


async def test_notices_are_asked_for_by_the_last_number_known(files: Files) -> None:
    told = Catchup(records=((b"key", b"value"), (b"verifier/heartbeat", b"tick")))

    async def answer(got: web.Request) -> web.Response:
        assert (got.method, got.path) == ("GET", "/notices/7")
        return web.Response(body=told.encode(), content_type=CONTENT_TYPE)

    async with https(files, answer) as url:
        assert await AuthorityClient(url, files.client).notices(7) == told


@pytest.mark.parametrize(
    ("reason", "status", "family"),
    [
        (Reason.NOT_APPROVED, 403, DeniedError),
        (Reason.STATE_REFUSED, 403, DeniedError),
        (Reason.MALFORMED, 400, DeniedError),
        (Reason.OVERLOADED, 503, UnavailableError),
        (Reason.NOT_READY, 503, UnavailableError),
    ],
)
async def test_refusal_has_the_authoritys_reason(
    files: Files, reason: Reason, status: int, family: type[FabricError]
) -> None:
    body = Refusal(reason=reason, message="because").encode()

    async def answer(got: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=CONTENT_TYPE)

    async with https(files, answer) as url:
        with pytest.raises(family) as caught:
            await AuthorityClient(url, files.client).attest(b"x")
    assert (caught.value.reason, caught.value.args[0]) == (reason, "because")


@pytest.mark.parametrize(
    ("status", "kind", "body", "family"),
    [
        (200, "text/html", b"hello", PeerError),
        (200, CONTENT_TYPE, b"garbage", PeerError),
        (200, CONTENT_TYPE, b"", PeerError),
        (204, CONTENT_TYPE, b"", PeerError),
        (302, CONTENT_TYPE, b"", PeerError),
        (403, CONTENT_TYPE, b"garbage", PeerError),
        (502, "text/html", b"bad gateway", UnavailableError),
        (404, "text/plain", b"not found", UnavailableError),
    ],
)
async def test_answer_that_is_none_is_told_apart(
    files: Files, status: int, kind: str, body: bytes, family: type[FabricError]
) -> None:
    async def answer(got: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind)

    async with https(files, answer) as url:
        with pytest.raises(family):
            await AuthorityClient(url, files.client).attest(b"x")


async def test_activation_is_acknowledged_by_an_empty_answer_alone(files: Files) -> None:
    async def answer(got: web.Request) -> web.Response:
        return web.Response(status=200, body=b"", content_type=CONTENT_TYPE)

    async with https(files, answer) as url:
        with pytest.raises(PeerError):
            await AuthorityClient(url, files.client).activate(b"e" * 16, b"x")


async def test_context_is_asked_for_with_every_request(files: Files) -> None:
    """A renewed certificate takes effect with the next request."""
    asked: list[int] = []

    async def answer(got: web.Request) -> web.Response:
        return web.Response(body=CHALLENGE.encode(), content_type=CONTENT_TYPE)

    async with https(files, answer) as url:
        client = AuthorityClient(url, lambda: asked.append(1) or files.client())
        await client.challenge(HOST)
        await client.challenge(HOST)
    assert len(asked) == 2


async def test_authority_that_is_away_is_unavailable(files: Files) -> None:
    with pytest.raises(UnavailableError) as caught:
        await AuthorityClient("https://localhost:1", files.client).challenge(HOST)
    assert caught.value.reason is Reason.AUTHORITY_UNAVAILABLE
