"""The authority's HTTPS interface: who may call what, how large, how often, for how long.

Bodies towards hosts are canonical CBOR; the schema registry and the administrator's
answers are JSON. Every refusal has a body that names its reason. One request a
connection (but for the policy's files), so that a connection has an end whatever its client does.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from fabric.attest.members import NoticeKind
from fabric.attest.messages import CONTENT_TYPE, Refusal
from fabric.authority import admin_messages, registry_api
from fabric.authority.callers import Caller, caller_of
from fabric.authority.machine import Quota
from fabric.authority.policy_files import PolicyFiles
from fabric.authority.service import Authority
from fabric.metrics import AuthorityMetrics
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
)
from fabric.model.limits import REQUEST_BYTES_EACH, REQUEST_BYTES_MAX, REQUEST_S_MAX
from fabric.policy.types import Policy
from fabric.ports import Clock
from fabric.trace import trace

_log = logging.getLogger(__name__)
_POLICY = "/policy/"
_OK = 200
_STATUS: Mapping[Reason, int] = {
    Reason.OVERLOADED: 429,
    Reason.ENROLMENT_CONFLICT: 409,
    Reason.TOO_LARGE: 413,
}


class Routes:
    """The routes of one authority.

    Args:
        policy: the policy in force.
        repository: folder of the policy repository, to be served to everybody.
    """

    def __init__(
        self,
        authority: Authority,
        policy: Callable[[], Policy],
        *,
        clock: Clock,
        metrics: AuthorityMetrics,
        repository: Path | None = None,
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._quota = Quota()
        self._files = PolicyFiles(repository, clock)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[self._last_word])
        authority, registry = self._authority, registry_api
        for path, name, operation in (
            ("/enrol", "enrol", authority.enrol),
            ("/enrol/activate", "activate", authority.activate),
            ("/challenge", "challenge", authority.challenge),
            ("/attest", "attest", authority.attest),
        ):
            app.router.add_post(path, self._for(self._operation(name, operation)))
        app.router.add_get(r"/notices/{after:\d{1,18}}", self._for(self._catch_up))
        app.router.add_get("/admin/enrolments", self._for(_listing(authority.enrolments)))
        app.router.add_get("/admin/hosts", self._for(_listing(authority.hosts)))
        app.router.add_post("/admin/{verb:suspend|revoke|forget}", self._for(self._decide))
        app.router.add_get(f"{_POLICY}{{path:.+}}", self._files.handle)
        for path, look in (
            ("/subjects", registry.subjects),
            ("/schemas/ids/{ident}", registry.schema),
            ("/subjects/{subject}/versions", registry.versions),
            ("/subjects/{subject}/versions/{number}", registry.version),
        ):
            app.router.add_get(path, self._for(self._registry(look)))
        return app

    @web.middleware
    async def _last_word(self, request: web.Request, handler: "_Handler") -> web.StreamResponse:
        """Turn every error into a refusal, and end the connection after the answer.

        Files of the policy come many at a time: only they share a connection.
        """
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                response = await handler(request)
        except FabricError as exc:
            response = _refuse(exc)
        except web.HTTPRequestEntityTooLarge:
            response = _refuse(PeerError(Reason.TOO_LARGE, "request is too large"))
        except web.HTTPException as exc:
            denied = DeniedError(Reason.API_REFUSED, f"no such route ({exc.status})")
            response = _refuse(denied, exc.status)
        except TimeoutError:
            response = _refuse(UnavailableError(Reason.OVERLOADED, "request took too long"), 503)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it must not read as consent, and be seen
            _log.error("request to %s failed: %s", request.path, trace(exc))
            response = _refuse(PeerError(Reason.INTERNAL, "internal error"), 500)
        if not (request.path.startswith(_POLICY) and response.status == _OK):
            response.force_close()
        return response

    def _for(self, handle: "_CallerHandler") -> "_Handler":
        """Say who calls, and count it against the caller's share, before anything else."""

        async def admit(request: web.Request) -> web.StreamResponse:
            tls = request.get_extra_info("ssl_object")
            certificate = tls.getpeercert(binary_form=True) if tls is not None else None
            trust_domain = self._policy().trust.trust_domain
            caller = caller_of(certificate, request.remote or "unknown", trust_domain)
            self._quota.spend(caller.share, self._clock.now())
            return await handle(request, caller)

        return admit

    def _operation(self, name: str, operation: "_Operation") -> "_CallerHandler":
        async def handle(request: web.Request, caller: Caller) -> web.StreamResponse:
            began, outcome = time.monotonic(), "unavailable"
            try:
                body = await _body(request)
                self._charge(body, caller)
                answer = await operation(body, caller)
                outcome = "ok"
            except (PeerError, DeniedError) as exc:
                outcome = "refused"
                if name == "attest":
                    self._metrics.attestation_refused(exc.reason)
                raise
            finally:
                self._metrics.request(name, outcome, time.monotonic() - began)
            if answer is None:
                return web.Response(status=204)
            return web.Response(body=answer, content_type=CONTENT_TYPE)

        return handle

    def _charge(self, body: bytes, caller: Caller) -> None:
        """What a stranger's body costs to read counts, not only that there is one."""
        cost = len(body) // REQUEST_BYTES_EACH
        if cost and not caller.has_certificate:
            self._quota.spend(caller.share, self._clock.now(), cost)

    async def _catch_up(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        began, outcome = time.monotonic(), "unavailable"

        def charge(cost: int) -> None:
            self._quota.spend(caller.share, self._clock.now(), cost)

        try:
            answer = await self._authority.catch_up(int(request.match_info["after"]), charge)
            outcome = "ok"
        finally:
            self._metrics.request("notices", outcome, time.monotonic() - began)
        return web.Response(body=answer, content_type=CONTENT_TYPE)

    async def _decide(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        _demand_admin(caller)
        asked = admin_messages.Decision.decode(await _body(request))
        verb = request.match_info["verb"]
        if verb == "forget":
            forgotten = await self._authority.forget(asked.who.host, why=asked.why, caller=caller)
            return web.json_response(forgotten)
        kind = NoticeKind.REVOCATION if verb == "revoke" else NoticeKind.SUSPENSION
        done = await self._authority.decide(asked.who, kind, why=asked.why, caller=caller)
        return web.json_response(done)

    def _registry(self, look: Callable[..., registry_api.Answer]) -> "_CallerHandler":
        async def handle(request: web.Request, caller: Caller) -> web.StreamResponse:
            if not caller.has_certificate:
                raise DeniedError(
                    Reason.API_REFUSED, "schema registry asks for a client certificate"
                )
            answer = look(self._policy(), **request.match_info)
            text = json.dumps(answer.document, ensure_ascii=False)
            kind = registry_api.CONTENT_TYPE
            return web.Response(text=text, status=answer.status, content_type=kind)

        return handle


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CallerHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
_Operation = Callable[[bytes, Caller], Awaitable[bytes | None]]


def _listing(operation: Callable[[], Awaitable[list[dict[str, str | int]]]]) -> _CallerHandler:
    async def handle(_request: web.Request, caller: Caller) -> web.StreamResponse:
        _demand_admin(caller)
        return web.json_response(await operation())

    return handle


def _demand_admin(caller: Caller) -> None:
    if not caller.is_admin:
        raise DeniedError(Reason.API_REFUSED, "only the platform's administrator may do this")


async def _body(request: web.Request) -> bytes:
    if request.content_type != CONTENT_TYPE or "Content-Encoding" in request.headers:
        raise PeerError(Reason.MALFORMED, f"content type must be {CONTENT_TYPE}, not encoded")
    with contextlib.suppress(ValueError):
        if int(request.headers.get("Content-Length", "0")) > REQUEST_BYTES_MAX:
            raise PeerError(Reason.TOO_LARGE, "request is too large")
    return await request.read()


def _refuse(error: FabricError, status: int | None = None) -> web.Response:
    if status is None:
        status = _STATUS.get(error.reason, _family_status(error))
    body = Refusal(reason=error.reason, message=str(error.args[0])).encode()
    return web.Response(body=body, status=status, content_type=CONTENT_TYPE)


def _family_status(error: FabricError) -> int:
    if isinstance(error, PeerError):
        return 400
    return 403 if isinstance(error, DeniedError) else 503
