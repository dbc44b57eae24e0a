"""The policy repository over HTTPS: plain files, for everybody, because they are public and signed.

Whoever serves them can withhold them and nothing else. Paths follow a grammar that
cannot leave the folder; connections stay open for the next file, within the listener's
limits.
"""

import asyncio
import re
from pathlib import Path

from aiohttp import web

from fabric.authority.machine import Quota
from fabric.config import PolicyConfig
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import (
    POLICY_METADATA_BYTES_MAX,
    POLICY_REQUESTS_BURST_MAX,
    POLICY_REQUESTS_PER_S_MAX,
)
from fabric.model.network import share_of
from fabric.ports import Clock

_SEGMENT = r"[A-Za-z0-9-][A-Za-z0-9._-]{0,199}"
_PATH = re.compile(rf"(metadata/{_SEGMENT}\.json|targets(/{_SEGMENT}){{1,6}})")
_NEWEST = "metadata/timestamp.json"


def folder_of(part: PolicyConfig) -> Path | None:
    """The folder that is served as the policy repository; None when another serves it."""
    where = part.repository
    return where if isinstance(where, Path) else None


class PolicyFiles:
    """Serves one repository.

    Args:
        folder: None when another serves it: every path is absent then.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._quota = Quota((POLICY_REQUESTS_PER_S_MAX, POLICY_REQUESTS_BURST_MAX))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One file.

        Raises:
            UnavailableError: OVERLOADED, the address asks too often.
            DeniedError: API_REFUSED, there is no such file.
        """
        self._quota.spend(share_of(request.remote or "unknown"), self._clock.now())
        path = request.match_info["path"]
        data = await asyncio.to_thread(self._read, path)
        if data is None:
            raise web.HTTPNotFound
        cached = "no-store" if path == _NEWEST else "public, max-age=86400, immutable"
        return web.Response(
            body=data,
            content_type="application/octet-stream",
            headers={"Cache-Control": cached, "X-Content-Type-Options": "nosniff"},
        )

    def _read(self, path: str) -> bytes | None:
        if self._folder is None or not _PATH.fullmatch(path):
            return None
        try:
            with (self._folder / path).open("rb") as file:
                data = file.read(POLICY_METADATA_BYTES_MAX + 1)
        except OSError:
            return None
        if len(data) > POLICY_METADATA_BYTES_MAX:
            raise DeniedError(Reason.API_REFUSED, "file is larger than any of a policy may be")
        return data
