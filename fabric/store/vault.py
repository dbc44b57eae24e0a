"""Encrypt what the state file keeps secret, under a key that only the TPM gives back.

AES-256-GCM with a random 96-bit nonce; the name of the thing is authenticated
with it, so that one secret cannot be put in another's place. A state file holds
thousands of secrets at most, far below the bound for random nonces.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fabric.model.errors import DeniedError, Reason

KEY_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    """Encrypts and decrypts named secrets; never shows its key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise DeniedError(Reason.SEALED_STATE_LOST, "state key has a wrong length")
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "Vault(key=hidden)"

    @staticmethod
    def new_key() -> bytes:
        """32 fresh random bytes, to be sealed to the TPM."""
        return os.urandom(KEY_BYTES)

    def lock(self, name: str, data: bytes) -> bytes:
        """Encrypt `data` under `name`: nonce, then ciphertext."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, name.encode())

    def unlock(self, name: str, box: bytes) -> bytes:
        """Undo `lock`; raises DeniedError SEALED_STATE_LOST."""
        try:
            return self._cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as exc:
            raise DeniedError(
                Reason.SEALED_STATE_LOST, f"state file's {name.partition(':')[0]} does not open"
            ) from exc
