"""Signing keys in software: made here, kept in the sealed state file, gone with it.

The one store that knows every algorithm of every suite but the P-256 key, which a
suite asks for only where it lives in a TPM.
"""

from fabric.attest.keys import Alg, SigningKey


class FileKeys:
    """A `KeyStore` whose references are the private keys themselves."""

    name = "file"
    algs = frozenset({Alg.ED25519, Alg.ESP384, Alg.ML_DSA_65, Alg.ML_DSA_87})

    def make(self, alg: Alg) -> tuple[SigningKey, bytes]:
        """A fresh key, and the bytes that `load` needs: for the sealed state file only."""
        key = SigningKey.generate(alg)
        return key, key.private_bytes()

    def load(self, alg: Alg, reference: bytes) -> SigningKey:
        """Undo `make`; raises Malformed."""
        return SigningKey.from_private_bytes(alg, reference)

    def drop(self, alg: Alg, reference: bytes) -> None:
        """Nothing is left to do once the state file has forgotten the reference."""
