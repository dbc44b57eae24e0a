"""/metrics, /livez and /readyz of a process, in plain HTTP: meant for loopback."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from fabric.config_fields import Address
from fabric.metrics import watching
from fabric.model.errors import ConfigInvalid, Reason

_log = logging.getLogger(__name__)
_STOP_S_MAX = 1.0
_KEEP_ALIVE_S = 75.0
_LOCAL = Address("127.0.0.1", 0)

Readiness = Callable[[], Mapping[str, str | None]]
"""Each part of a process with the reason why it is not ready, or None when it is."""


@asynccontextmanager
async def serving(
    registry: CollectorRegistry, ready: Readiness, listen: Address = _LOCAL
) -> AsyncIterator[int]:
    """Serve the three pages while the block runs; yields the bound port.

    Raises:
        ConfigInvalid: the address cannot be bound.
    """
    told = _Ready(ready)
    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(registry))
    app.router.add_get("/livez", _live)
    app.router.add_get("/readyz", told.handle)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEP_ALIVE_S,
        shutdown_timeout=_STOP_S_MAX,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port)
        try:
            await site.start()
        except OSError as exc:
            raise ConfigInvalid(
                f"web.listen: {listen} cannot be bound ({exc.strerror}); choose a free address"
            ) from exc
        with watching(registry, told.parts):
            yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


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
        except Exception:  # noqa: BLE001  # whatever it is, it must not read as ready
            _log.exception("readiness cannot be told")
            return {"readiness": str(Reason.INTERNAL)}

    async def handle(self, request: web.Request) -> web.Response:
        """200 when every part is ready, else 503; the body names each part's reason."""
        del request
        parts = self.parts()
        waiting = {part: why for part, why in parts.items() if why is not None}
        body = {"status": "not ready" if waiting else "ready", "parts": parts}
        return web.json_response(body, status=503 if waiting else 200)
