"""Read what a running process says of itself, from the pages that its configuration names."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fabric.cli.samples import Page, Samples
from fabric.config import AgentConfig
from fabric.config_web import WebConfig
from fabric.model.errors import ConfigInvalid, Malformed, Reason, UnavailableError

if TYPE_CHECKING:
    import aiohttp

_ANSWER_S_MAX = 5.0
_PAGE_BYTES_MAX = 8 * 1024 * 1024
_MARK = "attestation_attempts_total"


async def read_page(config: AgentConfig, path: Path) -> Page:
    """Ask the agent of `path`, an agent.toml, for /metrics and /readyz.

    Raises:
        ConfigInvalid: the file names no port, so nobody knows where the agent answers.
        UnavailableError: NOT_READY, it does not answer; the message says how to start it.
        Malformed: something answers that is no agent.
    """
    import aiohttp  # late: no other command pays for it

    listen = config.web.plain
    if listen is None:
        raise ConfigInvalid(
            f"{path}: web.listen is not on loopback and wants a certificate; add local ="
            ' "127.0.0.1:PORT" with a free port to [web], where this machine may ask, and start'
            " the agent again"
        )
    if not listen.port:
        raise ConfigInvalid(
            f'{path}: web.listen names no port; set listen = "127.0.0.1:9101" there and start the'
            " agent again"
        )
    base = f"http://{listen}"
    try:
        async with (
            asyncio.timeout(_ANSWER_S_MAX),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        ):
            metrics = await _get(session, f"{base}/metrics")
            ready = await _get(session, f"{base}/readyz")
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        raise UnavailableError(
            Reason.NOT_READY,
            f"no agent answers at {base} ({type(exc).__name__}); start it with: fabric agent run"
            f" {path}; if it runs, see its log and [web] listen",
        ) from exc
    return parse_page(metrics, ready, datetime.now(UTC))


async def read_parts(web: WebConfig) -> Mapping[str, str | None] | None:
    """Each part of a running process with why it is not ready, as its /readyz says.

    Returns:
        None when no address is named where this machine may ask in plain HTTP.
    Raises:
        UnavailableError: NOT_READY, nobody answers there.
        Malformed: something else answers.
    """
    import aiohttp  # late: no other command pays for it

    listen = web.plain
    if listen is None or not listen.port:
        return None
    try:
        async with (
            asyncio.timeout(_ANSWER_S_MAX),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        ):
            return _parts(await _get(session, f"http://{listen}/readyz"))
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        raise UnavailableError(
            Reason.NOT_READY, f"its /readyz does not answer at {listen} ({type(exc).__name__})"
        ) from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Malformed(f"what answers at {listen} is no process of the fabric") from exc


def _parts(ready: bytes) -> dict[str, str | None]:
    parts = json.loads(ready)["parts"]
    return {str(part): None if why is None else str(why) for part, why in parts.items()}


def parse_page(metrics: bytes, ready: bytes, at: datetime) -> Page:
    """The two pages, read at `at`, as figures; raises Malformed when they are no agent's."""
    try:
        samples = Samples.parse(metrics.decode())
        told = _parts(ready)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Malformed("what answers at [web] listen is no agent of this release") from exc
    if _MARK not in samples:
        raise Malformed("what answers at [web] listen is no agent; correct the address")
    return Page(at=at, samples=samples, parts=told)


async def _get(session: "aiohttp.ClientSession", url: str) -> bytes:
    """The body of one answer, whatever its status: 503 of /readyz is an answer too."""
    async with session.get(url, allow_redirects=False) as answer:
        body = bytearray()
        async for part in answer.content.iter_any():
            body += part
            if len(body) > _PAGE_BYTES_MAX:
                raise Malformed("the page is larger than any agent's")
        return bytes(body)
