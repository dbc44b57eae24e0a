"""Who this host is: its state file, its keys, its SVID on disk, and its TLS context.

The TLS context is one object as long as the trust anchors stand. A renewed SVID is
loaded into it, so that every new connection shows the new certificate, while
open ones end when their peer ends them. Methods here block: run them in a thread.
"""

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fabric import tls
from fabric.agent.keyring import KeyPlan, Keyring, KeySet, generate, to_records
from fabric.attest.result import Result, decode
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UsageError
from fabric.policy.types import Trust
from fabric.ports import KeyStore, Tpm
from fabric.store.files import replace
from fabric.store.sealed import SealedKey, create_state, read_sealed_key
from fabric.store.state import StateFile
from fabric.store.vault import Vault

STATE = "agent.state"
CERTIFICATE = "svid.pem"
KEY = "svid.key"
_RESULT = "result"
_REMEDY = "boot the approved state again, or move the state file away to begin a new generation"


class Identity:
    """The host's state and papers in `folder`.

    Args:
        stores: where signing keys may live, in order of preference.
    """

    def __init__(self, folder: Path, tpm: Tpm, *, ca: Path, stores: Sequence[KeyStore]) -> None:
        self._folder = folder
        self._tpm = tpm
        self._ca = ca
        self._state: StateFile | None = None
        self._sealed: SealedKey | None = None
        self._key = b""
        self._context: ssl.SSLContext | None = None
        self._end: datetime | None = None
        self._stores = tuple(stores)
        self.keyring = Keyring((), self._stores)

    @property
    def folder(self) -> Path:
        """Where it keeps its files."""
        return self._folder

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
        """The TLS context with this host's certificate; the same object until it is forgotten."""
        if self._context is None:
            raise DeniedError(Reason.NOT_ATTESTED, "this host has no certificate yet")
        return self._context

    @property
    def has_context(self) -> bool:
        """Whether there is a certificate to show."""
        return self._context is not None

    @property
    def certificate_end(self) -> datetime | None:
        """When the certificate that is shown ends, aware UTC; None while none is."""
        return self._end

    def open_existing(self) -> bool:
        """Open the state file if there is one; whether it was there.

        Raises:
            DeniedError: SEALED_STATE_LOST, with the remedy; never made anew in silence.
            UnavailableError: TPM_UNAVAILABLE; OVERLOADED, the file cannot be read now.
        """
        sealed = read_sealed_key(self._folder / STATE)
        if sealed is None:
            return False
        try:
            self._open(self._unsealed(sealed), sealed)
        except DeniedError as exc:
            raise DeniedError(
                Reason.SEALED_STATE_LOST,
                f"state file does not open here now ({exc.args[0]}); {_REMEDY}",
            ) from exc
        return True

    def _unsealed(self, sealed: SealedKey) -> bytes:
        blob = sealed.blob(self._tpm.pcr_digest(sealed.pcrs))
        if blob is None:
            raise DeniedError(Reason.SEALED_STATE_LOST, "key is sealed to other states than this")
        return self._tpm.unseal(blob)

    def create(self, pcrs: tuple[int, ...]) -> None:
        """Make a state file whose key is sealed to the current values of `pcrs`."""
        key = Vault.new_key()
        sealed = self._seal(key, pcrs, ())
        create_state(self._folder / STATE, sealed)
        self._open(key, sealed)

    def keep_sealed(self, pcrs: tuple[int, ...], accepted: Sequence[bytes] = ()) -> None:
        """Seal the key to the current state and to every other state that is approved.

        Call it after a successful attestation only: then the current state is approved. A
        planned change of the boot loses nothing when its digest is approved beforehand.

        Args:
            accepted: digests over `pcrs` that the host's approval accepts.
        """
        assert self._sealed is not None
        wanted = frozenset((self._tpm.pcr_digest(pcrs), *accepted))
        if (self._sealed.pcrs, self._sealed.digests) == (pcrs, wanted):
            return
        self._sealed = self._seal(self._key, pcrs, accepted)
        self.state.reseal(self._sealed)

    def _seal(self, key: bytes, pcrs: tuple[int, ...], accepted: Sequence[bytes]) -> SealedKey:
        digests = dict.fromkeys((self._tpm.pcr_digest(pcrs), *accepted))
        states = tuple((digest, self._tpm.seal(key, pcrs, digest)) for digest in digests)
        return SealedKey(pcrs=pcrs, states=states)

    def _open(self, key: bytes, sealed: SealedKey) -> None:
        state = StateFile(self._folder / STATE, key)
        try:
            self.keyring = Keyring(state.keys(), self._stores)
        except FabricError:  # a store does not answer: the next try opens the file again
            state.close()
            raise
        self._state, self._sealed, self._key = state, sealed, key

    def keys(self, now: datetime, plan: KeyPlan, result_life: timedelta = timedelta()) -> KeySet:
        """The set the next attestation binds; a new one when the ring says so.

        Args:
            result_life: how long the next result may live.
        """
        if self.keyring.is_due(now, plan, result_life):
            fresh = generate(now, plan, self._stores)
            self.state.save_keys(to_records(fresh))
            self.keyring.add(fresh)
        newest = self.keyring.newest
        assert newest is not None
        return newest

    def take(self, svid_pem: bytes, result: bytes, keys: KeySet) -> None:
        """Write the SVID with its key, remember the result, and show the new certificate."""
        private = load_der_private_key(keys.tls.private_bytes(), None)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace(self._folder / KEY, pem, mode=0o600)
        replace(self._folder / CERTIFICATE, svid_pem, mode=0o644)
        self.state.put(_RESULT, result)
        self._load_context()

    def erase_keys(self, now: datetime, retention: timedelta | None) -> None:
        """Erase signing keys a day old, and HPKE keys whose data the log no longer keeps.

        Args:
            now: never ahead of true time.
            retention: of the data kept longest; None keeps every HPKE key.
        """
        self.state.drop_keys(self.keyring.retire(now, retention))

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
        self._end = tls.certificate_end(certificate)

    def forget_context(self) -> None:
        """Show no certificate and trust no CA of before; the next one reads its files anew."""
        self._context = self._end = None

    def close(self) -> None:
        """Close the state file."""
        if self._state is not None:
            self._state.close()
            self._state = None
