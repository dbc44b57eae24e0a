"""A TPM 2.0 through tpm2-pytss: what the port asks, one connection a call.

A TPM without a resource manager has three slots for objects, and a process that
died keeps its slots. So every call opens the TPM, clears what others left where it
needs slots itself, and flushes all it made; only the attestation key is persistent.
One process uses a TPM's slots at a time. Calls block: run them in a thread.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fabric.attest import evidence
from fabric.attest.ek import certified_name, check_key, qualified_name
from fabric.model import canonical
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    Malformed,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.ports import Quote

AK_HANDLE = 0x8101_8000
"""Persistent handle of the attestation key, in the owner's range."""
_EK = "EK-RSA2048"  # NV 0x01C00002, template L-1 of the TCG EK Credential Profile
_SEALED_BYTES_MAX = 128
_QUALIFYING_BYTES_MAX = 64
_PCRS_PER_READ = 8
_READ_TRIES_MAX = 5
_TCTIS = ("swtpm:", "device:", "tabrmd:")
_RC_HANDLE_1 = 0x18B  # TPM_RC_HANDLE, first handle: nothing is there
_RC_LAYER = 0xFF_0000
_RC_TPM = 0
_RC_OURS = (0x07_0000, 0x08_0000, 0x09_0000)  # ESAPI, SAPI, marshalling: never sent


class TpmDevice:
    """The TPM that `tcti` names, for example `device:/dev/tpmrm0` or `swtpm:path=SOCKET`.

    Raises:
        ConfigInvalid: the connection string is of no known kind.
        UsageError: tpm2-pytss is not installed.
    """

    def __init__(self, tcti: str) -> None:
        if not tcti.startswith(_TCTIS):
            raise ConfigInvalid(f"tpm.tcti must begin with one of {', '.join(_TCTIS)}")
        self._tcti = tcti
        self._lock = threading.Lock()
        self._tss = _load_tss()

    def __repr__(self) -> str:
        return f"TpmDevice({self._tcti})"

    def ek_certificate(self) -> bytes:
        """DER of the RSA 2048 endorsement key's certificate, padding cut off.

        Raises:
            UsageError: EVIDENCE_REFUSED, the TPM holds no such certificate.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._open() as esapi:
            return self._certificate_and_template(esapi)[0]

    def ak_public(self) -> bytes:
        """Marshalled TPM2B_PUBLIC of the attestation key; made and persisted on first use.

        Raises:
            ConfigInvalid: the handle holds a key that is not ours, or no child of the
                endorsement key.
            PeerError: IDENTITY_MISMATCH, the EK's certificate is another key's; MALFORMED.
            DeniedError: EVIDENCE_REFUSED, the EK is of a kind that is not supported.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._open() as esapi:
            ak, public = self._ak(esapi)
            certificate, _ = self._certificate_and_template(esapi)
            _, name, qualified = esapi.read_public(ak)
            if bytes(qualified) != qualified_name(certified_name(certificate), bytes(name)):
                raise _foreign("a key that is not the endorsement key's child")
            return public

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """TPM2_ActivateCredential of marshalled TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.

        Raises:
            DeniedError: ACTIVATION_FAILED, the credential is not for this EK and AK.
            UnavailableError: TPM_UNAVAILABLE.
        """
        tss = self._tss
        with self._open() as esapi, ExitStack() as made:
            try:
                blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential)
                encrypted, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            except tss.TSS2_Exception as exc:
                raise DeniedError(Reason.ACTIVATION_FAILED, "credential does not parse") from exc
            ak, _ = self._ak(esapi)
            self._clear(esapi)
            ek = self._make_ek(esapi, made)
            session = self._ek_session(esapi, made)
            try:
                return bytes(esapi.activate_credential(ak, ek, blob, encrypted, session2=session))
            except tss.TSS2_Exception as exc:
                if exc.parameter == 0 and not self._is_well_after(exc, esapi):
                    raise
                raise DeniedError(
                    Reason.ACTIVATION_FAILED, "credential is not for this TPM's keys"
                ) from exc

    def quote(self, pcrs: Sequence[int], qualifying: bytes) -> Quote:
        """Quote the SHA-256 bank over exactly `pcrs` with at most 64 bytes of `qualifying`."""
        if len(qualifying) > _QUALIFYING_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "qualifying data must be at most 64 bytes")
        with self._open() as esapi:
            ak, _ = self._ak(esapi)
            attest, signature = esapi.quote(ak, _selection(pcrs), qualifying)
            return Quote(attest=bytes(attest), signature=signature.marshal())

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        """SHA-256 over the current values of `pcrs`, as a quote would carry it.

        Raises:
            UnavailableError: TPM_UNAVAILABLE, also when the PCRs do not stand still.
        """
        with self._open() as esapi:
            for _ in range(_READ_TRIES_MAX):
                counters, values = _read_pcrs(esapi, sorted(pcrs))
                if len(counters) == 1:
                    return hashlib.sha256(b"".join(values)).digest()
        raise UnavailableError(Reason.TPM_UNAVAILABLE, "PCRs change while they are read")

    def seal(self, data: bytes, pcrs: Sequence[int]) -> bytes:
        """Seal at most 128 bytes to this TPM while `pcrs` have their current values.

        The blob holds all that `unseal` needs but the TPM.
        """
        if not 1 <= len(data) <= _SEALED_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "sealed data must be 1 to 128 bytes")
        tss = self._tss
        with self._open() as esapi, ExitStack() as made:
            self._clear(esapi)
            primary = self._make_storage(esapi, made)
            trial = self._session(esapi, made, tss.TPM2_SE.TRIAL, tss.ESYS_TR.NONE)
            esapi.policy_pcr(trial, b"", _selection(pcrs))
            template = tss.TPM2B_PUBLIC.parse(
                "keyedhash",
                objectAttributes=tss.TPMA_OBJECT.FIXEDTPM
                | tss.TPMA_OBJECT.FIXEDPARENT
                | tss.TPMA_OBJECT.NODA,
                authPolicy=bytes(esapi.policy_get_digest(trial)),
            )
            sensitive = tss.TPM2B_SENSITIVE_CREATE(
                sensitive=tss.TPMS_SENSITIVE_CREATE(data=tss.TPM2B_SENSITIVE_DATA(buffer=data))
            )
            # The salted session hides the data from whoever listens on the TPM's bus.
            hidden = self._session(esapi, made, tss.TPM2_SE.HMAC, primary)
            private, public, *_ = esapi.create(primary, sensitive, template, session2=hidden)
            return canonical.encode([sorted(pcrs), private.marshal(), public.marshal()])

    def unseal(self, blob: bytes) -> bytes:
        """Undo `seal`.

        Raises:
            DeniedError: SEALED_STATE_LOST, the PCRs or the TPM are others, or the blob is
                not whole.
            UnavailableError: TPM_UNAVAILABLE.
        """
        tss = self._tss
        with self._open() as esapi, ExitStack() as made:
            pcrs, private, public = self._read_blob(blob)
            self._clear(esapi)
            primary = self._make_storage(esapi, made)
            session = self._session(esapi, made, tss.TPM2_SE.POLICY, primary)
            try:
                item = esapi.load(primary, private, public)
                made.callback(esapi.flush_context, item)
                esapi.policy_pcr(session, b"", _selection(pcrs))
                return bytes(esapi.unseal(item, session1=session))
            except tss.TSS2_Exception as exc:
                if not _is_final(exc):
                    raise
                raise _lost() from exc

    def unsafe_extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank: for demo and tests, as firmware would."""
        tss = self._tss
        value = tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=digest))
        with self._open() as esapi:
            esapi.pcr_extend(tss.ESYS_TR(pcr), tss.TPML_DIGEST_VALUES([value]))

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """A connection for one call; the library's errors leave it as UnavailableError."""
        with self._lock:
            try:
                with self._tss.ESAPI(self._tcti) as esapi:
                    yield esapi
            except self._tss.TSS2_Exception as exc:
                raise UnavailableError(Reason.TPM_UNAVAILABLE, f"TPM failed: {exc}") from exc

    def _is_well_after(self, exc: Any, esapi: Any) -> bool:
        """Whether a TPM that said FAILURE still serves, so that it meant the credential.

        libtpms says FAILURE, not VALUE, of a secret that is encrypted to another RSA key.
        """
        return exc.rc == self._tss.TPM2_RC.FAILURE and len(esapi.get_random(1)) == 1

    def _clear(self, esapi: Any) -> None:
        """Flush objects and sessions that a process left behind when it died."""
        tss = self._tss
        for first in (tss.TPM2_HC.TRANSIENT_FIRST, tss.TPM2_HC.LOADED_SESSION_FIRST):
            _, found = esapi.get_capability(tss.TPM2_CAP.HANDLES, first, 16)
            for handle in found.data.handles:
                esapi.flush_context(esapi.tr_from_tpmpublic(handle))

    def _ak(self, esapi: Any) -> tuple[Any, bytes]:
        """The persistent attestation key and its public area; made when there is none."""
        try:
            ak = esapi.tr_from_tpmpublic(AK_HANDLE)
        except self._tss.TSS2_Exception as exc:
            if exc.rc != _RC_HANDLE_1:
                raise
            ak = self._make_ak(esapi)
        public: bytes = esapi.read_public(ak)[0].marshal()
        try:
            attributes = evidence.parse_ak(public).attributes
        except Malformed:
            attributes = 0
        if attributes != evidence.AK_ATTRIBUTES:
            raise _foreign("another key")
        return ak, public

    def _make_ak(self, esapi: Any) -> Any:
        tss = self._tss
        with ExitStack() as made:
            self._clear(esapi)
            ek = self._make_ek(esapi, made)
            template = tss.TPM2B_PUBLIC.parse(
                "ecc256:ecdsa-sha256:null", objectAttributes=evidence.AK_ATTRIBUTES
            )
            private, public, *_ = esapi.create(
                ek, None, template, session1=self._ek_session(esapi, made)
            )
            ak = esapi.load(ek, private, public, session1=self._ek_session(esapi, made))
            made.callback(esapi.flush_context, ak)
            return esapi.evict_control(tss.ESYS_TR.OWNER, ak, AK_HANDLE)

    def _certificate_and_template(self, esapi: Any) -> tuple[bytes, Any]:
        tss = self._tss
        certificate, template = tss.utils.create_ek_template(_EK, tss.utils.NVReadEK(esapi))
        if certificate is None:
            raise UsageError(
                Reason.EVIDENCE_REFUSED,
                "TPM holds no certificate of an RSA 2048 endorsement key (NV 0x01c00002)",
            )
        return _cut_der(certificate), template

    def _make_ek(self, esapi: Any, made: ExitStack) -> Any:
        certificate, template = self._certificate_and_template(esapi)
        ek, public, *_ = esapi.create_primary(None, template, self._tss.ESYS_TR.ENDORSEMENT)
        made.callback(esapi.flush_context, ek)
        key = load_pem_public_key(public.to_pem())
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        check_key(certificate, key)
        return ek

    def _make_storage(self, esapi: Any, made: ExitStack) -> Any:
        """The owner's storage key: the same template gives the same key each time."""
        primary, *_ = esapi.create_primary(None, "ecc256:aes128cfb", self._tss.ESYS_TR.OWNER)
        made.callback(esapi.flush_context, primary)
        return primary

    def _ek_session(self, esapi: Any, made: ExitStack) -> Any:
        """A policy session that satisfies the EK template's policy, for one use."""
        tss = self._tss
        session = self._session(esapi, made, tss.TPM2_SE.POLICY, tss.ESYS_TR.NONE)
        esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
        return session

    def _session(self, esapi: Any, made: ExitStack, kind: Any, salt_key: Any) -> Any:
        """A session that lives until the call ends; salted ones encrypt parameters."""
        tss = self._tss
        salted = salt_key != tss.ESYS_TR.NONE
        session = esapi.start_auth_session(
            salt_key,
            tss.ESYS_TR.NONE,
            kind,
            tss.TPMT_SYM_DEF.parse("aes128cfb" if salted else "null"),
            tss.TPM2_ALG.SHA256,
        )
        made.callback(esapi.flush_context, session)
        attributes = tss.TPMA_SESSION.CONTINUESESSION
        if salted:
            attributes |= tss.TPMA_SESSION.DECRYPT | tss.TPMA_SESSION.ENCRYPT
        esapi.trsess_set_attributes(session, attributes)
        return session

    def _read_blob(self, blob: bytes) -> tuple[list[int], Any, Any]:
        tss = self._tss
        try:
            match canonical.decode(blob):
                case [list() as pcrs, bytes() as private, bytes() as public]:
                    numbers = [pcr for pcr in pcrs if isinstance(pcr, int) and 0 <= pcr <= 23]
                    if len(numbers) == len(pcrs):
                        return (
                            numbers,
                            tss.TPM2B_PRIVATE.unmarshal(private)[0],
                            tss.TPM2B_PUBLIC.unmarshal(public)[0],
                        )
        except (Malformed, tss.TSS2_Exception) as exc:
            raise _lost() from exc
        raise _lost()


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


def _selection(pcrs: Sequence[int]) -> str:
    return f"sha256:{','.join(str(pcr) for pcr in sorted(pcrs))}"


def _read_pcrs(esapi: Any, pcrs: Sequence[int]) -> tuple[set[int], list[bytes]]:
    """Values in order, and the update counters seen: more than one means they changed."""
    counters: set[int] = set()
    values: list[bytes] = []
    for start in range(0, len(pcrs), _PCRS_PER_READ):
        part = pcrs[start : start + _PCRS_PER_READ]
        counter, _, digests = esapi.pcr_read(_selection(part))
        if len(digests) != len(part):
            raise UnavailableError(Reason.TPM_UNAVAILABLE, "TPM has no SHA-256 bank of PCRs")
        counters.add(counter)
        values.extend(bytes(digest) for digest in digests)
    return counters, values


def _cut_der(data: bytes) -> bytes:
    """The first DER element: some makers pad the certificate's NV index."""
    if len(data) < 4 or data[0] != 0x30 or data[1] != 0x82:
        return data
    return data[: 4 + int.from_bytes(data[2:4])]


def _foreign(what: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"persistent handle 0x{AK_HANDLE:08x} holds {what}: move it away (tpm2_evictcontrol) "
        "and start again"
    )


def _is_final(exc: Any) -> bool:
    """Whether an error is about what we gave, so that the same again fails the same."""
    layer = exc.rc & _RC_LAYER
    return layer in _RC_OURS or (layer == _RC_TPM and bool(exc.fmt1))


def _lost() -> DeniedError:
    return DeniedError(
        Reason.SEALED_STATE_LOST, "sealed data does not open in this state of this TPM"
    )
