"""Where a policy repository is fetched from: HTTPS, or a folder that somebody mirrors.

Neither is trusted. What they bound is time and bytes; what the bytes say is for
signatures to show.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from fabric.model.limits import POLICY_METADATA_BYTES_MAX, POLICY_REFRESH_S_MAX, REQUEST_S_MAX

METADATA, FILES = "metadata", "targets"
"""Folders of a repository."""
_ABSENT = 404
_OK = 200
_PART_BYTES = 64 * 1024
_HEADER_BYTES_MAX = 8_190


class Fetcher(FetcherInterface):
    """Base: `with fetcher.session():` around one look at the repository.

    Attributes:
        base: what python-tuf's names are relative to.
    """

    base = ""

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """One look: connections live as long, and its whole time is bounded."""
        yield


class FolderFetcher(Fetcher):
    """Reads a folder with the files of a repository."""

    def __init__(self, folder: Path) -> None:
        self.base = str(folder)

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with Path(url).open("rb") as file:
                data = file.read(POLICY_METADATA_BYTES_MAX + 1)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise DownloadHTTPError(f"{url} is missing", _ABSENT) from exc
        except (OSError, ValueError) as exc:
            raise DownloadError(f"{url} cannot be read") from exc
        return iter([data])


class HttpsFetcher(Fetcher):
    """Asks a server. Runs a loop of its own: call it in a thread.

    Args:
        url: base URL, `https://host:port/path`.
        context: checks the server's certificate.
    """

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self.base = url.rstrip("/")
        self._context = context
        self._runner: asyncio.Runner | None = None
        self._client: aiohttp.ClientSession | None = None
        self._deadline = 0.0

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Open a client for a while; at its end every connection is closed."""
        self._deadline = time.monotonic() + POLICY_REFRESH_S_MAX
        with asyncio.Runner() as runner:
            self._runner = runner
            self._client = runner.run(self._open())
            try:
                yield
            finally:
                runner.run(self._client.close())
                self._runner = self._client = None

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context, limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_HEADER_BYTES_MAX,
            max_field_size=_HEADER_BYTES_MAX,
            trust_env=False,
        )

    def _fetch(self, url: str) -> Iterator[bytes]:
        assert self._runner is not None
        try:
            return iter([self._runner.run(self._get(url))])
        except TimeoutError as exc:
            raise SlowRetrievalError(f"{url} took too long") from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise DownloadError(f"{url} cannot be fetched ({type(exc).__name__})") from exc

    async def _get(self, url: str) -> bytes:
        assert self._client is not None
        left = min(REQUEST_S_MAX, self._deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        async with (
            asyncio.timeout(left),
            self._client.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != _OK:
                raise DownloadHTTPError(f"{url} is answered {answer.status}", answer.status)
            data = bytearray()
            async for part in answer.content.iter_chunked(_PART_BYTES):
                data += part
                if len(data) > POLICY_METADATA_BYTES_MAX:
                    break  # more than anything may have: python-tuf says so by its own count
            return bytes(data)
