"""A TPM 2.0 through tpm2-pytss: what the port asks, one connection a call.

Calls block: run them in a thread. What a call does stands in `keys`, `nv`,
`resident` and `sealing`; how it reaches the TPM, in `connection`.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.ports import Quote, ResidentKey
from fabric.tpm import keys, nv, resident, sealing
from fabric.tpm.connection import Connection
from fabric.tpm.sealing import selection

_SEALED_BYTES_MAX = 128
_QUALIFYING_BYTES_MAX = 64
_PCRS_PER_READ = 8
_READ_TRIES_MAX = 5


class TpmDevice:
    """The TPM that `tcti` names, for example `device:/dev/tpmrm0` or `swtpm:path=SOCKET`.

    Raises:
        ConfigInvalid: the connection string is of no known kind.
        UsageError: tpm2-pytss is not installed.
    """

    def __init__(self, tcti: str) -> None:
        self._connection = Connection(tcti)

    def __repr__(self) -> str:
        return f"TpmDevice({self.tcti})"

    @property
    def tcti(self) -> str:
        """The connection string."""
        return self._connection.tcti

    def ek_certificate(self) -> bytes:
        """DER of the RSA 2048 endorsement key's certificate, padding cut off.

        Raises:
            UsageError: EVIDENCE_REFUSED, the TPM holds no such certificate.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._connection.open() as call:
            return keys.ek_certificate(call)

    def ak_public(self) -> bytes:
        """Marshalled TPM2B_PUBLIC of the attestation key; made and persisted on first use.

        Raises:
            ConfigInvalid: the handle holds a key that is not ours, or no child of the
                endorsement key.
            PeerError: IDENTITY_MISMATCH, the EK's certificate is another key's; MALFORMED.
            DeniedError: EVIDENCE_REFUSED, the EK is of a kind that is not supported.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._connection.open() as call:
            ak, public = keys.load_ak(call)
            keys.check_parent(call, ak)
            return public

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """TPM2_ActivateCredential of marshalled TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.

        Raises:
            DeniedError: ACTIVATION_FAILED, the credential is not for this EK and AK.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._connection.open() as call:
            return keys.activate(call, credential, secret)

    def quote(self, pcrs: Sequence[int], qualifying: bytes) -> Quote:
        """Quote the SHA-256 bank over exactly `pcrs` with at most 64 bytes of `qualifying`."""
        _check_qualifying(qualifying)
        with self._connection.open() as call:
            ak, _ = keys.load_ak(call)
            attest, signature = call.esapi.quote(ak, selection(pcrs), qualifying)
            return Quote(attest=bytes(attest), signature=signature.marshal())

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        """SHA-256 over the current values of `pcrs`, as a quote would carry it.

        Raises:
            UnavailableError: TPM_UNAVAILABLE, also when the PCRs do not stand still.
        """
        with self._connection.open() as call:
            for _ in range(_READ_TRIES_MAX):
                counters, values = _read_pcrs(call.esapi, sorted(pcrs))
                if len(counters) == 1:
                    return hashlib.sha256(b"".join(values)).digest()
        raise UnavailableError(Reason.TPM_UNAVAILABLE, "PCRs change while they are read")

    def tally(self) -> bytes:
        """Value of the tally, 32 bytes; its NV index is defined on first use.

        Raises:
            ConfigInvalid: another index has its place.
            UnavailableError: TPM_UNAVAILABLE, also when there is no room for the index.
        """
        with self._connection.open() as call:
            return nv.value(call)

    def extend_tally(self, step: bytes) -> None:
        """Extend the tally by `step`, 32 bytes."""
        with self._connection.open() as call:
            nv.extend(call, step)

    def certify_tally(self, qualifying: bytes) -> Quote:
        """TPM2_NV_Certify of the whole tally by the attestation key."""
        _check_qualifying(qualifying)
        with self._connection.open() as call:
            return nv.certify(call, qualifying)

    def make_key(self) -> ResidentKey:
        """A fresh P-256 key that signs and that cannot leave this TPM."""
        with self._connection.open() as call:
            return resident.make(call)

    def sign_with(self, key: ResidentKey, digest: bytes) -> bytes:
        """ECDSA over a SHA-256 digest, r and s of 32 bytes each.

        Raises:
            DeniedError: SEALED_STATE_LOST, the key is not of this TPM, or not whole.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._connection.open() as call:
            return resident.sign(call, key, digest)

    def certify_key(self, key: ResidentKey, qualifying: bytes) -> Quote:
        """TPM2_Certify of a key by the attestation key; raises DeniedError as `sign_with`."""
        _check_qualifying(qualifying)
        with self._connection.open() as call:
            return resident.certify(call, key, qualifying)

    def seal(self, data: bytes, pcrs: Sequence[int], digest: bytes | None = None) -> bytes:
        """Seal at most 128 bytes to this TPM while `pcrs` give `digest`.

        The blob holds all that `unseal` needs but the TPM.

        Args:
            digest: of a state now or to come, as `pcr_digest` gives it; None for now.
        """
        if not 1 <= len(data) <= _SEALED_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "sealed data must be 1 to 128 bytes")
        with self._connection.open() as call:
            return sealing.seal(call, data, pcrs, digest or b"")

    def unseal(self, blob: bytes) -> bytes:
        """Undo `seal`.

        Raises:
            DeniedError: SEALED_STATE_LOST, the PCRs or the TPM are others, or the blob is
                not whole.
            UnavailableError: TPM_UNAVAILABLE.
        """
        with self._connection.open() as call:
            return sealing.unseal(call, blob)

    def unsafe_extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank: for demo and tests, as firmware would."""
        with self._connection.open() as call:
            tss = call.tss
            value = tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=digest))
            call.esapi.pcr_extend(tss.ESYS_TR(pcr), tss.TPML_DIGEST_VALUES([value]))


def _check_qualifying(data: bytes) -> None:
    if len(data) > _QUALIFYING_BYTES_MAX:
        raise UsageError(Reason.INTERNAL, "qualifying data must be at most 64 bytes")


def _read_pcrs(esapi: Any, pcrs: Sequence[int]) -> tuple[set[int], list[bytes]]:
    """Values in order, and the update counters seen: more than one means they changed."""
    counters: set[int] = set()
    values: list[bytes] = []
    for start in range(0, len(pcrs), _PCRS_PER_READ):
        part = pcrs[start : start + _PCRS_PER_READ]
        counter, _, digests = esapi.pcr_read(selection(part))
        if len(digests) != len(part):
            raise UnavailableError(Reason.TPM_UNAVAILABLE, "TPM has no SHA-256 bank of PCRs")
        counters.add(counter)
        values.extend(bytes(digest) for digest in digests)
    return counters, values
