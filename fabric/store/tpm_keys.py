"""Signing keys in the TPM, as a store: P-256, and nothing else that suites ask for.

The reference holds the key as the TPM wrapped it. It is of use to this TPM alone, and
kept in the sealed state file all the same, so that it is used in the approved state only.
"""

from hashlib import sha256

from fabric.attest.keys import Alg, PublicKey, Use
from fabric.attest.resident import ResidentReport, point_of
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.ports import ResidentKey, Tpm


class TpmSigner:
    """Signs with one key of the TPM."""

    def __init__(self, tpm: Tpm, key: ResidentKey) -> None:
        self._tpm = tpm
        self._key = key
        self.public = PublicKey(Use.SIGN, Alg.ESP256, point_of(key.public))

    def __repr__(self) -> str:
        return f"TpmSigner({Alg(self.public.alg).name}, private=hidden)"

    def sign(self, data: bytes) -> bytes:
        """Sign `data`; as `SigningKey.sign`.

        Raises:
            DeniedError: SEALED_STATE_LOST, the TPM was cleared.
            UnavailableError: TPM_UNAVAILABLE.
        """
        return self._tpm.sign_with(self._key, sha256(data).digest())


class TpmKeys:
    """A `KeyStore` in the TPM."""

    name = "tpm"
    algs = frozenset({Alg.ESP256})

    def __init__(self, tpm: Tpm) -> None:
        self._tpm = tpm

    def make(self, alg: Alg) -> tuple[TpmSigner, bytes]:
        """A fresh key, and its reference."""
        assert alg in self.algs
        key = self._tpm.make_key()
        return TpmSigner(self._tpm, key), canonical.encode([key.public, key.private])

    def load(self, alg: Alg, reference: bytes) -> TpmSigner:
        """The key of a reference; whether the TPM still takes it shows when it signs.

        Raises:
            Malformed: the reference is none.
        """
        if alg not in self.algs:
            raise Malformed("reference is not that of a TPM's key")
        return TpmSigner(self._tpm, _key(reference))

    def drop(self, alg: Alg, reference: bytes) -> None:
        """Nothing is left to do once the state file has forgotten the reference."""

    def certify(self, reference: bytes, qualifying: bytes) -> ResidentReport:
        """Proof for the verifier that the key lives in this TPM.

        Raises:
            Malformed, DeniedError, UnavailableError: as `load` and `sign`.
        """
        key = _key(reference)
        quote = self._tpm.certify_key(key, qualifying)
        return ResidentReport(attest=quote.attest, signature=quote.signature, public=key.public)


def _key(reference: bytes) -> ResidentKey:
    match canonical.decode(reference):
        case [bytes() as public, bytes() as private]:
            return ResidentKey(public=public, private=private)
    raise Malformed("reference is not that of a TPM's key")
