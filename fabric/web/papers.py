"""The TLS context of an address that other machines reach, made of files that are renewed.

The files are looked at when a connection comes: whoever renews a certificate, or takes a CA
away, tells nobody and restarts nothing.
"""

import logging
import ssl
from pathlib import Path
from typing import TypeAlias

from fabric.model.errors import ConfigInvalid
from fabric.tls import server_context

_log = logging.getLogger(__name__)
_Seen: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Papers:
    """A server's certificate, its key and the CAs of its clients, as the files have them now.

    Args:
        files: certificate, key, CAs of clients, PEM.

    Raises:
        ConfigInvalid: they cannot be used.
    """

    def __init__(self, files: tuple[Path, Path, Path]) -> None:
        self._files = files
        self._seen = self._look()
        self._context: ssl.SSLContext | None = self._made()

    def context(self) -> ssl.SSLContext:
        """What the next connection is served with.

        Raises:
            ConfigInvalid: the files were changed and cannot be used: nobody is let in by the
                old ones, which may hold a CA that was taken away.
        """
        seen = self._look()
        if seen == self._seen and self._context is not None:
            return self._context
        is_news, self._seen, self._context = seen != self._seen, seen, None
        try:
            self._context = self._made()
        except ConfigInvalid as exc:
            if is_news:  # once for each change, however many connections come
                _log.error("pages: nobody is served until their files fit: %s", exc)
            raise
        _log.info("pages: certificate and CAs are read anew")
        return self._context

    def _made(self) -> ssl.SSLContext:
        certificate, key, client_ca = self._files
        return server_context(certificate, key, client_ca, ca_setting="web.client_ca")

    def _look(self) -> _Seen:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
