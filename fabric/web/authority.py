"""The authority's HTTPS interface as a host sees it: enrol, attest, catch up with notices."""

import ssl
from collections.abc import Callable

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
    Malformed,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.model.limits import REQUEST_BYTES_MAX
from fabric.model.names import HostId
from fabric.web.request import request

_OK, _EMPTY, _REFUSED_FROM = 200, 204, 400


class AuthorityClient:
    """Asks the authority.

    Every method raises UnavailableError AUTHORITY_UNAVAILABLE when it does not answer or
    says that it cannot now, DeniedError with the authority's reason when it refuses, and
    PeerError when the answer is no answer.

    Args:
        url: base URL, `https://host:port`.
        context: gives the current TLS context.
    """

    def __init__(self, url: str, context: Callable[[], ssl.SSLContext]) -> None:
        self._url = url.rstrip("/")
        self._context = context

    async def enrol(self, body: EnrolRequest) -> EnrolChallenge:
        """Show the TPM; the challenge that only this TPM can answer."""
        return EnrolChallenge.decode(await self._post("/enrol", body.encode()))

    async def activate(self, enrolment: bytes, secret: bytes) -> None:
        """Answer the enrolment's challenge."""
        body = ActivateRequest(enrolment=enrolment, secret=secret).encode()
        await self._post("/enrol/activate", body, expected=_EMPTY)

    async def challenge(self, host: HostId) -> Challenge:
        """Begin an attestation."""
        return Challenge.decode(
            await self._post("/challenge", ChallengeRequest(host=host).encode())
        )

    async def attest(self, body: bytes) -> AttestAnswer:
        """Send a signed AttestRequest."""
        return AttestAnswer.decode(await self._post("/attest", body))

    async def notices(self, after: int) -> Catchup:
        """The notices above number `after`, or the first of them, and the last tick."""
        status, kind, data = await request(
            "GET",
            f"{self._url}/notices/{after}",
            context=self._context(),
            answer_bytes_max=REQUEST_BYTES_MAX,
        )
        return Catchup.decode(_answer(status, kind, data))

    async def _post(self, path: str, body: bytes, *, expected: int = _OK) -> bytes:
        status, kind, data = await request(
            "POST",
            self._url + path,
            context=self._context(),
            body=body,
            answer_bytes_max=REQUEST_BYTES_MAX,
        )
        return _answer(status, kind, data, expected=expected)


def _answer(status: int, kind: str, data: bytes, *, expected: int = _OK) -> bytes:
    if status == expected and (status == _EMPTY or kind == CONTENT_TYPE):
        return data
    if status >= _REFUSED_FROM:
        raise _refusal(status, kind, data)
    raise Malformed(f"authority answered with status {status} and type {kind[:40]!r}")


def _refusal(status: int, kind: str, data: bytes) -> DeniedError | UnavailableError:
    if kind != CONTENT_TYPE:  # a proxy or a crash, not the authority's word
        return UnavailableError(Reason.AUTHORITY_UNAVAILABLE, f"authority answered {status}")
    refusal = Refusal.decode(data)
    if class_of(refusal.reason) is ReasonClass.WAIT:
        return UnavailableError(refusal.reason, refusal.message)
    return DeniedError(refusal.reason, refusal.message)
