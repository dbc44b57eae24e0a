"""The epoch secret and everything derived from it: epoch id, salts, block keys.

One secret never leaves this type but through `private_bytes` (sealed state and
wraps). Spec: docs/format.md sections 5 and 6.
"""

import hmac
import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.seal.hpke import SECRET_BYTES
from fabric.seal.suites import Kdf

_EPOCH = "fabric-epoch-v1"
_BLOCK = "fabric-block-v1"
SALT_BYTES = 32
_SALT = b"salt"  # cannot meet the CBOR arrays of the other infos, which begin 0x84 and 0x87


class EpochSecret:
    """32 random bytes of one sender for one topic; hidden, compared in constant time."""

    __slots__ = ("_data", "_salt_keys")

    def __init__(self, data: bytes) -> None:
        if len(data) != SECRET_BYTES:
            raise Malformed("epoch secret must be 32 bytes")
        self._data = data
        self._salt_keys: dict[Kdf, bytes] = {}

    def __repr__(self) -> str:
        return "EpochSecret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpochSecret) and hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key

    @classmethod
    def generate(cls) -> "EpochSecret":
        """Draw a fresh secret from the system's generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    def private_bytes(self) -> bytes:
        """The secret itself: for the sealed state file and for wraps only."""
        return self._data

    def derive(self, info: bytes, kdf: Kdf) -> bytes:
        """32 bytes of HKDF (no salt) under `info`."""
        return HKDF(kdf.algorithm, 32, None, info).derive(self._data)

    def salt_key(self, kdf: Kdf) -> bytes:
        """Key of the salt's HMAC, the same for every block of the epoch."""
        if kdf not in self._salt_keys:
            self._salt_keys[kdf] = self.derive(_SALT, kdf)
        return self._salt_keys[kdf]


def epoch_id(secret: EpochSecret, sender: str, topic: str, number: int, *, kdf: Kdf) -> bytes:
    """The 32 bytes that commit to a secret: nobody can hand out two secrets under one id.

    Args:
        sender: SPIFFE id of the host that opened the epoch.
        topic: name of the data topic.
        number: the sender's epoch number for the topic.
        kdf: the suite's.
    """
    return secret.derive(canonical.encode([_EPOCH, sender, topic, number]), kdf)


def block_salt(secret: EpochSecret, header: bytes, padded: bytes, *, kdf: Kdf) -> bytes:
    """Salt of one block, 32 bytes: depends on the whole header and plaintext.

    Args:
        header: the canonical header without its salt.
        padded: the padded plaintext.
    """
    data = kdf.digest(header) + kdf.digest(padded)
    return hmac.digest(secret.salt_key(kdf), data, kdf.value)[:SALT_BYTES]


def block_key(
    secret: EpochSecret, info: Sequence[canonical.Value], salt: bytes, *, kdf: Kdf
) -> bytes:
    """AES-256 key of one block.

    Args:
        info: [suite, epoch id, topic, partition, counter].
    """
    return secret.derive(canonical.encode([_BLOCK, *info, salt]), kdf)
