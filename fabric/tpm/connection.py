"""One connection a call: opened, cleared where slots are needed, everything made flushed.

A TPM without a resource manager has three slots for objects, and a process that died
keeps its slots. So what needs slots clears first what others left there. One process
uses a TPM's slots at a time.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fabric.model.errors import ConfigInvalid, Reason, UnavailableError, UsageError

_TCTIS = ("swtpm:", "device:", "tabrmd:")
_RC_LAYER = 0xFF_0000
_RC_TPM = 0
_RC_OURS = (0x07_0000, 0x08_0000, 0x09_0000)  # ESAPI, SAPI, marshalling: never sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A TPM that is open for one call.

    Attributes:
        tss: the module tpm2_pytss.
        esapi: the open connection.
        made: flushes what the call made when it ends.
    """

    tss: Any
    esapi: Any
    made: ExitStack

    def clear(self) -> None:
        """Flush objects and sessions that a process left behind when it died."""
        tss, esapi = self.tss, self.esapi
        for first in (tss.TPM2_HC.TRANSIENT_FIRST, tss.TPM2_HC.LOADED_SESSION_FIRST):
            _, found = esapi.get_capability(tss.TPM2_CAP.HANDLES, first, 16)
            for handle in found.data.handles:
                esapi.flush_context(esapi.tr_from_tpmpublic(handle))

    @contextmanager
    def part(self) -> Iterator["Call"]:
        """A part of the call that flushes what it made when it ends, so that slots are free."""
        with ExitStack() as made:
            yield replace(self, made=made)

    def keep(self, handle: Any) -> Any:
        """Flush an object or session that this call made when the call ends."""
        self.made.callback(self.esapi.flush_context, handle)
        return handle

    def session(self, kind: Any, salt_key: Any = None) -> Any:
        """A session that lives until the call ends; salted ones encrypt parameters."""
        tss = self.tss
        session = self.esapi.start_auth_session(
            tss.ESYS_TR.NONE if salt_key is None else salt_key,
            tss.ESYS_TR.NONE,
            kind,
            tss.TPMT_SYM_DEF.parse("null" if salt_key is None else "aes128cfb"),
            tss.TPM2_ALG.SHA256,
        )
        self.keep(session)
        attributes = tss.TPMA_SESSION.CONTINUESESSION
        if salt_key is not None:
            attributes |= tss.TPMA_SESSION.DECRYPT | tss.TPMA_SESSION.ENCRYPT
        self.esapi.trsess_set_attributes(session, attributes)
        return session


class Connection:
    """The way to the TPM that `tcti` names.

    Raises:
        ConfigInvalid: the connection string is of no known kind.
        UsageError: tpm2-pytss is not installed.
    """

    def __init__(self, tcti: str) -> None:
        if not tcti.startswith(_TCTIS):
            raise ConfigInvalid(f"tpm.tcti must begin with one of {', '.join(_TCTIS)}")
        self.tcti = tcti
        self._lock = threading.Lock()
        self.tss = _load_tss()

    @contextmanager
    def open(self) -> Iterator[Call]:
        """Open it for one call; the library's errors leave it as UnavailableError."""
        with self._lock:
            try:
                with self.tss.ESAPI(self.tcti) as esapi, ExitStack() as made:
                    yield Call(tss=self.tss, esapi=esapi, made=made)
            except self.tss.TSS2_Exception as exc:
                raise UnavailableError(Reason.TPM_UNAVAILABLE, f"TPM failed: {exc}") from exc


def is_final(exc: Any) -> bool:
    """Whether an error is about what we gave, so that the same again fails the same."""
    layer = exc.rc & _RC_LAYER
    return layer in _RC_OURS or (layer == _RC_TPM and bool(exc.fmt1))


def _load_tss() -> Any:
    # The C library writes each error it returns to stderr; expected ones come here as errors.
    os.environ.setdefault("TSS2_LOG", "all+NONE")
    try:
        import tpm2_pytss
        import tpm2_pytss.utils
    except ImportError as exc:
        raise UsageError(
            Reason.CONFIG_INVALID,
            "tpm2-pytss is missing: install Debian's libtss2-dev and libtss2-tcti-device0, "
            "then pip install 'agency-fabric[tpm]'",
        ) from exc
    return tpm2_pytss
