"""One bounded HTTPS request: a deadline, a size limit, no redirects, no cookies."""

import asyncio
import ssl

import aiohttp

from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX

_HEADER_BYTES_MAX = 8_190


async def request(
    method: str,
    url: str,
    *,
    context: ssl.SSLContext,
    body: bytes | None = None,
    answer_bytes_max: int,
) -> tuple[int, str, bytes]:
    """Send one request on a connection of its own; status, content type and body.

    A connection of its own, because contexts change with every renewed certificate and
    requests come once in minutes.

    Raises:
        PeerError: TOO_LARGE, the answer is larger than `answer_bytes_max`.
        UnavailableError: AUTHORITY_UNAVAILABLE; nobody answered in time, or TLS failed.
    """
    headers = {"Content-Type": "application/cbor"} if body is not None else {}
    try:
        async with (
            asyncio.timeout(REQUEST_S_MAX),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX),
                auto_decompress=False,
                max_line_size=_HEADER_BYTES_MAX,
                max_field_size=_HEADER_BYTES_MAX,
                trust_env=False,
            ) as session,
            session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as answer,
        ):
            data = await _bounded(answer.content, answer_bytes_max)
            return answer.status, answer.content_type, data
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        raise UnavailableError(
            Reason.AUTHORITY_UNAVAILABLE, f"{url} does not answer ({type(exc).__name__})"
        ) from exc


async def _bounded(stream: aiohttp.StreamReader, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in stream.iter_any():
        size += len(part)
        if size > bytes_max:
            raise PeerError(Reason.TOO_LARGE, "answer is larger than allowed")
        parts.append(part)
    return b"".join(parts)
