"""The authority's HTTPS interface: who may call what, how large, how often, for how long.

Bodies towards hosts are canonical CBOR; the schema registry and the administrator's
answers are JSON. Every refusal has a body that names its reason. One request a
connection, so that a connection has an end whatever its client does.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from fabric.attest.members import NoticeKind
from fabric.attest.messages import CONTENT_TYPE, Refusal
from fabric.authority import admin_messages, registry_api
from fabric.authority.callers import caller_of
from fabric.authority.machine import Quota
from fabric.authority.service import Authority, Caller
from fabric.metrics import AuthorityMetrics
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
)
from fabric.model.limits import REQUEST_BYTES_MAX, REQUEST_S_MAX
from fabric.policy.types import Policy
from fabric.ports import Clock

_log = logging.getLogger(__name__)
_Operation = Callable[[bytes, Caller], Awaitable[bytes | None]]
_STATUS: Mapping[Reason, int] = {
    Reason.OVERLOADED: 429,
    Reason.ENROLMENT_CONFLICT: 409,
    Reason.TOO_LARGE: 413,
}


class Routes:
    """The routes of one authority.

    Args:
        policy: the policy in force.
    """

    def __init__(
        self,
        authority: Authority,
        policy: Callable[[], Policy],
        *,
        clock: Clock,
        metrics: AuthorityMetrics,
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._quota = Quota()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(
            client_max_size=REQUEST_BYTES_MAX, middlewares=[self._last_word, self._admit]
        )
        app.add_routes(
            [
                web.post("/enrol", self._operation("enrol", self._authority.enrol)),
                web.post("/enrol/activate", self._operation("activate", self._authority.activate)),
                web.post("/challenge", self._operation("challenge", self._authority.challenge)),
                web.post("/attest", self._operation("attest", self._authority.attest)),
                web.get("/admin/enrolments", self._admin_list(self._authority.enrolments)),
                web.get("/admin/hosts", self._admin_list(self._authority.hosts)),
                web.post("/admin/{verb:suspend|revoke|forget}", self._admin_decide),
                web.get("/subjects", self._subjects),
                web.get("/schemas/ids/{id}", self._schema),
                web.get("/subjects/{subject}/versions", self._versions),
                web.get("/subjects/{subject}/versions/{version}", self._version),
            ]
        )
        return app

    @web.middleware
    async def _last_word(self, request: web.Request, handler: "_Handler") -> web.StreamResponse:
        """Turn every error into a refusal, and end the connection after the answer."""
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
        except Exception:  # noqa: BLE001  # whatever it is, it must not read as consent, and be seen
            _log.exception("request to %s failed", request.path)
            response = _refuse(PeerError(Reason.INTERNAL, "internal error"), 500)
        response.force_close()
        return response

    @web.middleware
    async def _admit(self, request: web.Request, handler: "_Handler") -> web.StreamResponse:
        """Say who calls, and count it against the caller's share."""
        tls = request.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        trust_domain = self._policy().trust.trust_domain
        caller = caller_of(certificate, request.remote or "unknown", trust_domain)
        self._quota.spend(caller.name, self._clock.now())
        request["caller"] = caller
        return await handler(request)

    def _operation(self, name: str, operation: _Operation) -> "_Handler":
        async def handle(request: web.Request) -> web.StreamResponse:
            began, outcome = time.monotonic(), "unavailable"
            try:
                answer = await operation(await _body(request), _caller(request))
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

    def _admin_list(
        self, operation: Callable[[], Awaitable[list[dict[str, str | int]]]]
    ) -> "_Handler":
        async def handle(request: web.Request) -> web.StreamResponse:
            _demand_admin(_caller(request))
            return web.json_response(await operation())

        return handle

    async def _admin_decide(self, request: web.Request) -> web.StreamResponse:
        caller = _demand_admin(_caller(request))
        asked = admin_messages.Decision.decode(await _body(request))
        match request.match_info["verb"]:
            case "forget":
                done = await self._authority.forget(asked.host, why=asked.why, caller=caller)
            case verb:
                kind = NoticeKind.REVOCATION if verb == "revoke" else NoticeKind.SUSPENSION
                done = await self._authority.decide(asked.host, kind, why=asked.why, caller=caller)
        return web.json_response(done)

    async def _subjects(self, request: web.Request) -> web.StreamResponse:
        return self._registry(request, registry_api.subjects)

    async def _schema(self, request: web.Request) -> web.StreamResponse:
        ident = request.match_info["id"]
        return self._registry(request, lambda policy: registry_api.schema(policy, ident))

    async def _versions(self, request: web.Request) -> web.StreamResponse:
        subject = request.match_info["subject"]
        return self._registry(request, lambda policy: registry_api.versions(policy, subject))

    async def _version(self, request: web.Request) -> web.StreamResponse:
        subject, number = request.match_info["subject"], request.match_info["version"]
        return self._registry(request, lambda policy: registry_api.version(policy, subject, number))

    def _registry(
        self, request: web.Request, look: Callable[[Policy], registry_api.Answer]
    ) -> web.StreamResponse:
        if not _caller(request).has_certificate:
            raise DeniedError(Reason.API_REFUSED, "schema registry asks for a client certificate")
        answer = look(self._policy())
        text = json.dumps(answer.document, ensure_ascii=False)
        return web.Response(text=text, status=answer.status, content_type=registry_api.CONTENT_TYPE)


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _caller(request: web.Request) -> Caller:
    caller: Caller = request["caller"]
    return caller


def _demand_admin(caller: Caller) -> Caller:
    if not caller.is_admin:
        raise DeniedError(Reason.API_REFUSED, "only the platform's administrator may do this")
    return caller


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
