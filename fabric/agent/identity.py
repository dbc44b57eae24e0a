"""Who this host is: its state file, its keys, its SVID on disk, and its TLS context.

The TLS context is one object for the life of the process. A renewed SVID is
loaded into it, so that every new connection shows the new certificate, while
open ones end when their peer ends them. Methods here block: run them in a thread.
"""

import os
import ssl
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fabric import tls
from fabric.agent.keyring import Keyring, KeySet, generate, to_records
from fabric.attest.result import Result, decode
from fabric.model.errors import DeniedError, PeerError, Reason, UsageError
from fabric.policy.types import Trust
from fabric.ports import Tpm
from fabric.store.sealed import SealedKey, create_state, read_sealed_key
from fabric.store.state import StateFile
from fabric.store.vault import Vault

STATE = "agent.state"
CERTIFICATE = "svid.pem"
KEY = "svid.key"
_RESULT = "result"
_REMEDY = "boot the approved state again, or move the state file away to begin a new generation"


class Identity:
    """The host's state and papers in `folder`."""

    def __init__(self, folder: Path, tpm: Tpm, *, ca: Path) -> None:
        self._folder = folder
        self._tpm = tpm
        self._ca = ca
        self._state: StateFile | None = None
        self._sealed: SealedKey | None = None
        self._key = b""
        self._context: ssl.SSLContext | None = None
        self.keyring = Keyring(())

    @property
    def is_open(self) -> bool:
        """Whether the state file is open."""
        return self._state is not None

    @property
    def state(self) -> StateFile:
        """The open state file."""
        if self._state is None:
            raise UsageError(Reason.INTERNAL, "state file is used before it is open")
        return self._state

    def context(self) -> ssl.SSLContext:
        """The TLS context with this host's certificate; the same object for ever."""
        if self._context is None:
            raise DeniedError(Reason.NOT_ATTESTED, "this host has no certificate yet")
        return self._context

    @property
    def has_context(self) -> bool:
        """Whether there is a certificate to show."""
        return self._context is not None

    def open_existing(self) -> bool:
        """Open the state file if there is one; whether it was there.

        Raises:
            DeniedError: SEALED_STATE_LOST, with the remedy; never made anew in silence.
            UnavailableError: TPM_UNAVAILABLE.
        """
        sealed = read_sealed_key(self._folder / STATE)
        if sealed is None:
            return False
        try:
            self._open(self._tpm.unseal(sealed.blob), sealed)
        except DeniedError as exc:
            raise DeniedError(
                Reason.SEALED_STATE_LOST, f"state file does not open here now; {_REMEDY}"
            ) from exc
        return True

    def create(self, pcrs: tuple[int, ...]) -> None:
        """Make a state file whose key is sealed to the current values of `pcrs`."""
        key = Vault.new_key()
        sealed = self._seal(key, pcrs)
        create_state(self._folder / STATE, sealed)
        self._open(key, sealed)

    def keep_sealed(self, pcrs: tuple[int, ...]) -> None:
        """Seal the key anew when the approved state is another than it was sealed to.

        Call it after a successful attestation only: then the current state is approved.
        """
        assert self._sealed is not None
        if (self._sealed.pcrs, self._sealed.digest) == (pcrs, self._tpm.pcr_digest(pcrs)):
            return
        self._sealed = self._seal(self._key, pcrs)
        self.state.reseal(self._sealed)

    def _seal(self, key: bytes, pcrs: tuple[int, ...]) -> SealedKey:
        blob = self._tpm.seal(key, pcrs)
        return SealedKey(blob=blob, pcrs=pcrs, digest=self._tpm.pcr_digest(pcrs))

    def _open(self, key: bytes, sealed: SealedKey) -> None:
        state = StateFile(self._folder / STATE, key)
        self.keyring = Keyring(state.keys())
        self._state, self._sealed, self._key = state, sealed, key

    def keys(self, now: datetime, result_life: timedelta = timedelta()) -> KeySet:
        """The set the next attestation binds; a new one before the newest is a day old.

        Args:
            result_life: how long the next result may live.
        """
        if self.keyring.is_due(now, result_life):
            fresh = generate(now)
            self.state.save_keys(to_records(fresh))
            self.keyring.add(fresh)
        newest = self.keyring.newest
        assert newest is not None
        return newest

    def take(self, svid_pem: bytes, result: bytes, keys: KeySet) -> None:
        """Write the SVID with its key, remember the result, and show the new certificate."""
        private = load_der_private_key(keys.tls.private_bytes(), None)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(self._folder / KEY, pem, mode=0o600)
        _write(self._folder / CERTIFICATE, svid_pem, mode=0o644)
        self.state.put(_RESULT, result)
        self._load_context()

    def erase_keys(self, now: datetime, retention: timedelta | None) -> None:
        """Erase signing keys a day old, and HPKE keys whose data the log no longer keeps.

        Args:
            retention: of the data kept longest; None keeps every HPKE key.
        """
        self.state.drop_keys(self.keyring.erase(now, retention))

    def last_result(self, trust: Trust) -> Result | None:
        """The newest result of an earlier life, perhaps over by now."""
        data = self.state.get(_RESULT)
        try:
            return None if data is None else decode(data, trust)
        except PeerError:  # of another verifier: it says nothing any more
            return None

    def go_on(self, result: Result, now: datetime) -> bool:
        """Use an earlier life's certificate again, if `result` lives and binds its key."""
        newest = self.keyring.newest
        files = [self._folder / CERTIFICATE, self._folder / KEY]
        if newest is None or not all(path.exists() for path in files):
            return False
        if result.expires <= now or newest.tls.public not in result.keys:
            return False
        self._load_context()
        return True

    def _load_context(self) -> None:
        certificate, key = self._folder / CERTIFICATE, self._folder / KEY
        if self._context is None:
            self._context = tls.client_context(certificate, key, self._ca)
        else:
            self._context.load_cert_chain(certificate, key)

    def close(self) -> None:
        """Close the state file."""
        if self._state is not None:
            self._state.close()
            self._state = None


def _write(path: Path, data: bytes, *, mode: int) -> None:
    """Replace a file at once, never readable to more than `mode` says."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
