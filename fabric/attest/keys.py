"""Keys of a host: what they are for, their algorithm, their bytes, their thumbprint.

Algorithms are named by COSE algorithm ids (signatures) and HPKE KEM ids. Private
keys never show themselves; what a state file keeps of them is `private_bytes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique
from functools import cached_property
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason


@unique
class Use(StrEnum):
    """What a bound key is for."""

    SIGN = "sign"
    HPKE = "hpke"
    TLS = "tls"


@unique
class Alg(IntEnum):
    """Signature algorithms by COSE id (RFC 9864; ML-DSA for COSE)."""

    ED25519 = -19
    ESP256 = -9
    ML_DSA_65 = -49


@unique
class Kem(IntEnum):
    """Key encapsulation by HPKE id (RFC 9180; MLKEM768-X25519 of the hybrid KEM draft)."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A


@dataclass(frozen=True)
class PublicKey:
    """A public key with its use and algorithm.

    Attributes:
        data: Ed25519 and ML-DSA: raw public bytes; ESP256: uncompressed point;
            X25519: raw; MLKEM768-X25519: ML-KEM key then X25519 key, 1184 + 32 bytes.
    """

    use: Use
    alg: int
    data: bytes

    @cached_property
    def thumbprint(self) -> bytes:
        """SHA-256 over CBOR[use, alg, data]; the `kid` of signatures and wraps."""
        return sha256(canonical.encode([self.use.value, int(self.alg), self.data])).digest()


class SigningKey:
    """A software signing key of one of the algorithms above."""

    def __init__(self, alg: Alg, private: object, use: Use = Use.SIGN) -> None:
        self._private = private
        self.public = PublicKey(use, alg, _public_bytes(private))

    def __repr__(self) -> str:
        return f"SigningKey({Alg(self.public.alg).name}, private=hidden)"

    @classmethod
    def generate(cls, alg: Alg, use: Use = Use.SIGN) -> "SigningKey":
        """Make a fresh key."""
        if alg is Alg.ED25519:
            return cls(alg, ed25519.Ed25519PrivateKey.generate(), use)
        if alg is Alg.ML_DSA_65:
            return cls(alg, mldsa.MLDSA65PrivateKey.generate(), use)
        return cls(alg, ec.generate_private_key(ec.SECP256R1()), use)

    @classmethod
    def from_private_bytes(cls, alg: Alg, data: bytes, use: Use = Use.SIGN) -> "SigningKey":
        """Undo `private_bytes`; raises Malformed."""
        try:
            if alg is Alg.ED25519:
                return cls(alg, ed25519.Ed25519PrivateKey.from_private_bytes(data), use)
            if alg is Alg.ML_DSA_65:
                return cls(alg, mldsa.MLDSA65PrivateKey.from_seed_bytes(data), use)
            return cls(alg, load_der_private_key(data, None), use)
        except ValueError as exc:
            raise Malformed("private key does not parse") from exc

    def private_bytes(self) -> bytes:
        """The private key (raw, seed or PKCS#8 DER): for the sealed state file only."""
        key = self._private
        if isinstance(key, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey):
            return key.private_bytes_raw()
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Sign `data`; ESP256 gives r and s of 32 bytes each, as COSE writes them."""
        key = self._private
        if isinstance(key, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey):
            return key.sign(data)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return _ecdsa_raw(key.sign(data, ec.ECDSA(hashes.SHA256())))


def verify(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Check one signature; raises PeerError BAD_SIGNATURE."""
    try:
        if key.alg == Alg.ED25519:
            ed25519.Ed25519PublicKey.from_public_bytes(key.data).verify(signature, data)
        elif key.alg == Alg.ML_DSA_65:
            mldsa.MLDSA65PublicKey.from_public_bytes(key.data).verify(signature, data)
        elif key.alg == Alg.ESP256:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.data)
            point.verify(_ecdsa_der(signature), data, ec.ECDSA(hashes.SHA256()))
        else:
            raise PeerError(Reason.BAD_SIGNATURE, "signature algorithm is unknown")
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise PeerError(Reason.BAD_SIGNATURE, "signature does not verify") from exc


def of_use(keys: Sequence[PublicKey], use: Use, algs: Sequence[int]) -> tuple[PublicKey, ...]:
    """The keys of `use` with exactly these algorithms in this order; raises PeerError."""
    by_alg = {key.alg: key for key in keys if key.use is use}
    if any(alg not in by_alg for alg in algs):
        raise PeerError(Reason.BAD_SIGNATURE, "a key of the suite is missing")
    return tuple(by_alg[alg] for alg in algs)


def _public_bytes(private: object) -> bytes:
    if isinstance(private, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey):
        return private.public_key().public_bytes_raw()
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raise Malformed("private key is of an unknown kind")


def _ecdsa_raw(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32) + s.to_bytes(32)


def _ecdsa_der(raw: bytes) -> bytes:
    if len(raw) != 64:
        raise ValueError("signature has a wrong length")
    return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
