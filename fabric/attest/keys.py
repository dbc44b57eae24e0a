"""Keys of a host: what they are for, their algorithm, their bytes, their thumbprint.

Algorithms are named by COSE algorithm ids (signatures) and HPKE KEM ids. Private
keys never show themselves; what a state file keeps of them is `private_bytes`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Protocol, TypeAlias

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
from fabric.model.limits import KEYS_PARSED_MAX


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
    ESP384 = -51
    ML_DSA_65 = -49
    ML_DSA_87 = -50


@unique
class Kem(IntEnum):
    """Key encapsulation by HPKE id (RFC 9180; the hybrids of the post-quantum KEM draft)."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A
    MLKEM1024_P384 = 0x0051


_RAW = ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
_Private: TypeAlias = (
    ed25519.Ed25519PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
    | ec.EllipticCurvePrivateKey
)
_Check: TypeAlias = Callable[[bytes, bytes], None]
_CURVES: Mapping[int, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    Alg.ESP256: (ec.SECP256R1(), hashes.SHA256()),
    Alg.ESP384: (ec.SECP384R1(), hashes.SHA384()),
}
"""Each ECDSA algorithm's curve and hash: RFC 9864 lets nobody choose."""


@dataclass(frozen=True)
class PublicKey:
    """A public key with its use and algorithm.

    Attributes:
        data: Ed25519 and ML-DSA: raw public bytes; ESP256 and ESP384: uncompressed point;
            X25519: raw; MLKEM768-X25519: ML-KEM key then X25519 key, 1184 + 32 bytes;
            MLKEM1024-P384: ML-KEM key then uncompressed point, 1568 + 97 bytes.
    """

    use: Use
    alg: int
    data: bytes

    @cached_property
    def thumbprint(self) -> bytes:
        """SHA-256 over CBOR[use, alg, data]; the `kid` of signatures and wraps."""
        return sha256(canonical.encode([self.use.value, int(self.alg), self.data])).digest()


class Signer(Protocol):
    """Whatever signs with one key, wherever the key lives: in memory, a token or a TPM."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Sign `data`, in COSE's form; ECDSA gives r and s, as long as the curve's numbers.

        Raises:
            UnavailableError: the key's keeper does not answer.
        """


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
        match alg:
            case Alg.ED25519:
                return cls(alg, ed25519.Ed25519PrivateKey.generate(), use)
            case Alg.ML_DSA_65:
                return cls(alg, mldsa.MLDSA65PrivateKey.generate(), use)
            case Alg.ML_DSA_87:
                return cls(alg, mldsa.MLDSA87PrivateKey.generate(), use)
            case Alg.ESP256 | Alg.ESP384:
                return cls(alg, ec.generate_private_key(_CURVES[alg][0]), use)

    @classmethod
    def from_private_bytes(cls, alg: Alg, data: bytes, use: Use = Use.SIGN) -> "SigningKey":
        """Undo `private_bytes`; raises Malformed."""
        try:
            return cls(alg, _load_private(alg, data), use)
        except ValueError as exc:
            raise Malformed("private key does not parse") from exc

    def private_bytes(self) -> bytes:
        """The private key (raw, seed or PKCS#8 DER): for the sealed state file only."""
        key = self._private
        if isinstance(key, _RAW):
            return key.private_bytes_raw()
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Sign `data`; ECDSA gives r and s, 32 or 48 bytes each, as COSE writes them."""
        key = self._private
        if isinstance(key, _RAW):
            return key.sign(data)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        curve, digest = _CURVES[self.public.alg]
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return r.to_bytes(_number_bytes(curve)) + s.to_bytes(_number_bytes(curve))


def are_at_hand(signers: Sequence[Signer]) -> bool:
    """Whether all of them sign in this process, in no more than a few milliseconds."""
    return all(isinstance(signer, SigningKey) for signer in signers)


def verify(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Check one signature; raises PeerError BAD_SIGNATURE."""
    try:
        _parsed(key.alg, key.data)(signature, data)
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise PeerError(Reason.BAD_SIGNATURE, "signature does not verify") from exc


@lru_cache(KEYS_PARSED_MAX)
def _parsed(alg: int, data: bytes) -> _Check:
    """What takes signature and data; every block of a host asks for it."""
    if alg == Alg.ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(data).verify
    if alg == Alg.ML_DSA_65:
        return mldsa.MLDSA65PublicKey.from_public_bytes(data).verify
    if alg == Alg.ML_DSA_87:
        return mldsa.MLDSA87PublicKey.from_public_bytes(data).verify
    if alg not in _CURVES:
        raise PeerError(Reason.BAD_SIGNATURE, "signature algorithm is unknown")
    curve, digest = _CURVES[alg]
    point = ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
    return lambda signature, signed: point.verify(
        _ecdsa_der(signature, curve), signed, ec.ECDSA(digest)
    )


def of_use(keys: Sequence[PublicKey], use: Use, algs: Sequence[int]) -> tuple[PublicKey, ...]:
    """The keys of `use` with exactly these algorithms in this order; raises PeerError."""
    by_alg = {key.alg: key for key in keys if key.use is use}
    if any(alg not in by_alg for alg in algs):
        raise PeerError(Reason.BAD_SIGNATURE, "a key of the suite is missing")
    return tuple(by_alg[alg] for alg in algs)


def _load_private(alg: Alg, data: bytes) -> _Private:
    match alg:
        case Alg.ED25519:
            return ed25519.Ed25519PrivateKey.from_private_bytes(data)
        case Alg.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.from_seed_bytes(data)
        case Alg.ML_DSA_87:
            return mldsa.MLDSA87PrivateKey.from_seed_bytes(data)
        case Alg.ESP256 | Alg.ESP384:
            key = load_der_private_key(data, None)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or (
                key.curve.name != _CURVES[alg][0].name
            ):
                raise ValueError("key is of another curve")
            return key


def _public_bytes(private: object) -> bytes:
    if isinstance(private, _RAW):
        return private.public_key().public_bytes_raw()
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raise Malformed("private key is of an unknown kind")


def _number_bytes(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def _ecdsa_der(raw: bytes, curve: ec.EllipticCurve) -> bytes:
    size = _number_bytes(curve)
    if len(raw) != 2 * size:
        raise ValueError("signature has a wrong length")
    return encode_dss_signature(int.from_bytes(raw[:size]), int.from_bytes(raw[size:]))
