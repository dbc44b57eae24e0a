"""Make a credential that only the endorsement key's TPM can activate, and only if it
holds the named attestation key (TPM 2.0 Library part 1, sections 24 and B.10, C.6).

The verifier's half of TPM2_ActivateCredential, in software: a fresh seed is
encrypted to the endorsement key; keys derived from it encrypt the secret and
authenticate it together with the attestation key's name.
"""

import secrets
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from fabric.attest.ek import EkKey
from fabric.attest.evidence import sized
from fabric.model.errors import Reason, UsageError

_LABEL = b"IDENTITY\0"
_SECRET_BYTES_MAX = 32
_AES_BLOCK_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Kind:
    """Algorithms of a storage key's protection: name hash and AES key size, bytes."""

    hash: hashes.HashAlgorithm
    aes_bytes: int


_RSA = _Kind(hashes.SHA256(), 16)
_ECC = _Kind(hashes.SHA384(), 32)


def make_credential(ek_public: EkKey, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Protect `secret` for the TPM that holds both keys. Draws a fresh seed.

    Args:
        ek_public: RSA 2048 (template L-1) or P-384 (template H-3).
        ak_name: TPM name of the attestation key.
        secret: 1 to 32 bytes.
    Returns:
        Marshalled TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
    """
    if not 1 <= len(secret) <= _SECRET_BYTES_MAX:
        raise UsageError(Reason.INTERNAL, "secret must be 1 to 32 bytes")
    kind = _RSA if isinstance(ek_public, rsa.RSAPublicKey) else _ECC
    if isinstance(ek_public, rsa.RSAPublicKey):
        seed, encrypted = _rsa_seed(ek_public)
    else:
        seed, encrypted = _ecc_seed(ek_public)
    key = _kdfa(kind, seed, b"STORAGE", ak_name, kind.aes_bytes)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(_AES_BLOCK_BYTES))).encryptor()
    identity = encryptor.update(sized(secret)) + encryptor.finalize()
    mac = hmac.HMAC(_kdfa(kind, seed, b"INTEGRITY", b"", kind.hash.digest_size), kind.hash)
    mac.update(identity + ak_name)
    return sized(sized(mac.finalize()) + identity), sized(encrypted)


def _rsa_seed(public: rsa.RSAPublicKey) -> tuple[bytes, bytes]:
    seed = secrets.token_bytes(_RSA.hash.digest_size)
    mask = padding.MGF1(_RSA.hash)
    return seed, public.encrypt(seed, padding.OAEP(mask, _RSA.hash, _LABEL))


def _ecc_seed(public: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    """One-pass Diffie-Hellman with a fresh key, then KDFe over both x coordinates."""
    ephemeral = ec.generate_private_key(public.curve)
    size = (public.curve.key_size + 7) // 8
    own, other = ephemeral.public_key().public_numbers(), public.public_numbers()
    x, y = own.x.to_bytes(size), own.y.to_bytes(size)
    info = _LABEL + x + other.x.to_bytes(size)
    shared = ephemeral.exchange(ec.ECDH(), public)
    seed = ConcatKDFHash(_ECC.hash, _ECC.hash.digest_size, info).derive(shared)
    return seed, sized(x) + sized(y)


def _kdfa(kind: _Kind, seed: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa is SP 800-108 in counter mode: 32-bit counter before, 32-bit length after."""
    return KBKDFHMAC(
        kind.hash,
        Mode.CounterMode,
        size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)
