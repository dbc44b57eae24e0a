"""/metrics, /livez and /readyz of a process: plain HTTP on loopback, elsewhere TLS with clients'
certificates.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from fabric.config_fields import Address
from fabric.config_web import WebConfig
from fabric.metrics import watching
from fabric.model.errors import ConfigInvalid, Reason
from fabric.model.limits import PAGE_CONNECTIONS_MAX
from fabric.trace import trace
from fabric.web.listener import Listener
from fabric.web.papers import Papers

_log = logging.getLogger(__name__)
_STOP_S_MAX = 1.0
_KEEP_ALIVE_S = 75.0
_LOCAL = WebConfig()

Readiness = Callable[[], Mapping[str, str | None]]
"""Each part of a process with the reason why it is not ready, or None when it is."""


@asynccontextmanager
async def serving(
    registry: CollectorRegistry, ready: Readiness, settings: WebConfig = _LOCAL
) -> AsyncIterator[int]:
    """Serve the three pages while the block runs; yields the port of `listen`.

    Raises:
        ConfigInvalid: an address cannot be bound, or a file of TLS cannot be used.
    """
    told = _Ready(ready)
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(_running(registry, told))
        port = 0
        if settings.plain is not None:
            key = "web.listen" if settings.plain is settings.listen else "web.local"
            port = await _serve_plain(runner, key, settings.plain)
        if settings.files is not None:
            listener = _beyond(runner, Papers(settings.files))
            port = await stack.enter_async_context(listener.listening(settings.listen))
        stack.enter_context(watching(registry, told.parts))
        yield port


@asynccontextmanager
async def _running(registry: CollectorRegistry, told: "_Ready") -> AsyncIterator[web.AppRunner]:
    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(registry))
    app.router.add_get("/livez", _live)
    app.router.add_get("/readyz", told.handle)
    app.on_response_prepare.append(_hang_up)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEP_ALIVE_S,
        shutdown_timeout=_STOP_S_MAX,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


async def _serve_plain(runner: web.AppRunner, key: str, listen: Address) -> int:
    try:
        await web.TCPSite(runner, listen.host, listen.port).start()
    except OSError as exc:
        raise ConfigInvalid(
            f"{key}: {listen} cannot be bound ({exc.strerror}); choose a free address"
        ) from exc
    return int(runner.addresses[0][1])


def _beyond(runner: web.AppRunner, papers: Papers) -> Listener:
    assert runner.server is not None
    return Listener(
        runner.server,
        papers.context,
        setting="web.listen",
        connections_max=PAGE_CONNECTIONS_MAX,
    )


async def _hang_up(request: web.Request, response: web.StreamResponse) -> None:
    """A connection over TLS is for one answer: the next asks for the certificate again."""
    if request.secure:
        response.force_close()
        response.headers["Connection"] = "close"


async def _live(request: web.Request) -> web.Response:
    """The loop turns, or nobody would answer."""
    del request
    return web.json_response({"status": "live"})


class _Ready:
    def __init__(self, ready: Readiness) -> None:
        self._ready = ready

    def parts(self) -> Mapping[str, str | None]:
        """Each part with its reason; whatever goes wrong must not read as ready."""
        try:
            return dict(self._ready())
        except Exception as exc:  # noqa: BLE001  # whatever it is, it must not read as ready
            _log.error("readiness cannot be told: %s", trace(exc))
            return {"readiness": str(Reason.INTERNAL)}

    async def handle(self, request: web.Request) -> web.Response:
        """200 when every part is ready, else 503; the body names each part's reason."""
        del request
        parts = self.parts()
        waiting = {part: why for part, why in parts.items() if why is not None}
        body = {"status": "not ready" if waiting else "ready", "parts": parts}
        return web.json_response(body, status=503 if waiting else 200)
