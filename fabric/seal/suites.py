"""The cryptographic suites: which algorithms a suite id stands for.

A suite id travels in every header and manifest; whether a suite may be used is
policy's word, not this table's. Absent from the table means refused.
Spec: docs/format.md section 1.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes

from fabric.attest.keys import Alg, Kem
from fabric.model.errors import DeniedError, PeerError, Reason


@unique
class Kdf(StrEnum):
    """How everything is derived from an epoch's secret: HKDF and HMAC with this hash."""

    HKDF_SHA256 = "sha256"
    HKDF_SHA384 = "sha384"

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The hash, as HKDF wants it."""
        return hashes.SHA256() if self is Kdf.HKDF_SHA256 else hashes.SHA384()

    def digest(self, data: bytes) -> bytes:
        """The hash of `data`, 32 or 48 bytes."""
        return hashlib.new(self.value, data).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite; the content cipher is AES-256-GCM in all of them.

    Thumbprints, hashes of envelopes and manifests and digests of wraps are SHA-256 in all
    of them too: they stand in fields of 32 bytes, and nobody but a signer could profit
    from two texts with one hash.

    Attributes:
        id: name in headers, manifests and policy.
        kem: how a wrap reaches its recipient's key.
        kdf: how epoch ids, salts and block keys come from the epoch's secret.
        signatures: algorithms of the signatures, all of them needed, in this order.
    """

    id: str
    kem: Kem
    kdf: Kdf
    signatures: tuple[Alg, ...]


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.id: suite
        for suite in (
            Suite(
                id="classic",
                kem=Kem.X25519,
                kdf=Kdf.HKDF_SHA256,
                signatures=(Alg.ED25519,),
            ),
            Suite(
                id="hybrid",
                kem=Kem.MLKEM768_X25519,
                kdf=Kdf.HKDF_SHA256,
                signatures=(Alg.ED25519, Alg.ML_DSA_65),
            ),
            Suite(
                id="hybrid-tpm",  # in Ed25519's place a P-256 key that lives in the TPM
                kem=Kem.MLKEM768_X25519,
                kdf=Kdf.HKDF_SHA256,
                signatures=(Alg.ESP256, Alg.ML_DSA_65),
            ),
            Suite(
                id="hybrid-top",
                kem=Kem.MLKEM1024_P384,
                kdf=Kdf.HKDF_SHA384,
                signatures=(Alg.ESP384, Alg.ML_DSA_87),
            ),
        )
    }
)


def suite_of(suite_id: str) -> Suite:
    """Look a suite up; raises DeniedError SUITE_REFUSED when this build has none of that name."""
    suite = SUITES.get(suite_id)
    if suite is None:
        raise DeniedError(Reason.SUITE_REFUSED, "suite is not known here")
    return suite


def claimed_suite(suite_id: str) -> Suite:
    """The suite that foreign bytes claim before their signatures are checked.

    Raises:
        PeerError: SUITE_REFUSED; not a denial, since anyone may have written the name.
    """
    suite = SUITES.get(suite_id)
    if suite is None:
        raise PeerError(Reason.SUITE_REFUSED, "suite is not known here")
    return suite
