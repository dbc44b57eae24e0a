"""Wrap a secret to one recipient's key and back: HPKE (RFC 9180), base mode, single shot.

The KEM says which KDF goes with it, the AEAD is AES-256-GCM, `aad` is empty:
everything a wrap is bound to stands in `info`. Hybrid keys have no serialisation
of their own, so both parts are stored. Spec: docs/format.md sections 1 and 6.
"""

from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InternalError, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fabric.attest.keys import Kem, PublicKey, Use
from fabric.model.errors import Malformed, PeerError, Reason, UsageError
from fabric.model.limits import HPKE_KEYS_JUDGED_MAX

_Private: TypeAlias = (
    x25519.X25519PrivateKey | hpke.MLKEM768X25519PrivateKey | hpke.MLKEM1024P384PrivateKey
)
_Public: TypeAlias = (
    x25519.X25519PublicKey | hpke.MLKEM768X25519PublicKey | hpke.MLKEM1024P384PublicKey
)

_SEED_BYTES = 64  # ML-KEM: d || z of FIPS 203
_MLKEM768_PUBLIC_BYTES = 1184
_MLKEM1024_PUBLIC_BYTES = 1568
_P384_BYTES = 48
_SUITES = {
    Kem.X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    Kem.MLKEM768_X25519: hpke.Suite(
        hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM
    ),
    Kem.MLKEM1024_P384: hpke.Suite(
        hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM
    ),
}
SECRET_BYTES = 32
WRAP_BYTES = {
    Kem.X25519: 32 + SECRET_BYTES + 16,
    Kem.MLKEM768_X25519: 1120 + SECRET_BYTES + 16,
    Kem.MLKEM1024_P384: 1665 + SECRET_BYTES + 16,
}
"""Length of a wrap of an epoch secret: encapsulated key, secret, tag."""
_UNFIT = (ValueError, UnsupportedAlgorithm, InternalError)
"""Whatever the library raises about a foreign key."""
_PROBE = x25519.X25519PrivateKey.from_private_bytes(bytes(range(32)))
"""No secret: any scalar shows a point of low order, for all of them are multiples of 8."""


class HpkeKey:
    """A private key that opens wraps; it never shows itself."""

    def __init__(self, kem: Kem, data: bytes) -> None:
        self._data = data
        self._private, public = _load(kem, data)
        self.kem = kem
        self.public = PublicKey(Use.HPKE, int(kem), public)

    def __repr__(self) -> str:
        return f"HpkeKey({self.kem.name}, private=hidden)"

    @classmethod
    def generate(cls, kem: Kem) -> "HpkeKey":
        """Make a fresh key."""
        match kem:
            case Kem.X25519:
                data = x25519.X25519PrivateKey.generate().private_bytes_raw()
            case Kem.MLKEM768_X25519:
                data = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw()
                data += x25519.X25519PrivateKey.generate().private_bytes_raw()
            case Kem.MLKEM1024_P384:
                data = mlkem.MLKEM1024PrivateKey.generate().private_bytes_raw()
                scalar = ec.generate_private_key(ec.SECP384R1()).private_numbers().private_value
                data += scalar.to_bytes(_P384_BYTES)
        return cls(kem, data)

    @classmethod
    def from_private_bytes(cls, kem: Kem, data: bytes) -> "HpkeKey":
        """Undo `private_bytes`; raises Malformed."""
        try:
            return cls(kem, data)
        except ValueError as exc:
            raise Malformed("private key does not parse") from exc

    def private_bytes(self) -> bytes:
        """ML-KEM seed (64) if any, then X25519 (32) or P-384 scalar (48). For sealed state only."""
        return self._data

    def open(self, wrapped: bytes, info: bytes) -> bytes:
        """HPKE single-shot open; raises whatever the library raises, see `unwrap`."""
        return _SUITES[self.kem].decrypt(wrapped, self._private, info=info)


def wrap(public: PublicKey, secret: bytes, info: bytes) -> bytes:
    """Encrypt `secret` to `public`: encapsulated key, then ciphertext.

    Raises:
        UsageError: the key is not an HPKE key of a known KEM.
        PeerError: MALFORMED, nothing can be wrapped to the key.
    """
    kem = _kem(public)
    try:
        return _SUITES[kem].encrypt(secret, _load_public(kem, public.data), info=info)
    except _UNFIT as exc:
        raise Malformed("nothing can be wrapped to the recipient's key") from exc


def check_recipient(public: PublicKey) -> None:
    """Find out ahead whether `wrap` would take a key; cheap for a key that was asked of before.

    Raises:
        UsageError: the key is not an HPKE key of a known KEM.
        PeerError: MALFORMED, its bytes are no key, or its curve's point is of low order.
    """
    if not _is_fit(_kem(public), public.data):
        raise Malformed("nothing can be wrapped to the recipient's key")


def unwrap(key: HpkeKey, wrapped: bytes, info: bytes) -> bytes:
    """Undo `wrap`; raises PeerError OPEN_FAILED, whatever the cause."""
    try:
        return key.open(wrapped, info)
    except (InvalidTag, ValueError, TypeError) as exc:
        raise PeerError(Reason.OPEN_FAILED, "wrap does not open") from exc


def _kem(public: PublicKey) -> Kem:
    if public.use is not Use.HPKE or public.alg not in frozenset(Kem):
        raise UsageError(Reason.INTERNAL, "recipient's key is not an HPKE key")
    return Kem(public.alg)


@lru_cache(HPKE_KEYS_JUDGED_MAX)
def _is_fit(kem: Kem, data: bytes) -> bool:
    """Parse, look for a low order, encapsulate; kept, as every look at recipients asks.

    Some builds of the library take any bytes for an ML-KEM key and check its coefficients
    (FIPS 203, section 7.2) when something is encapsulated to it.
    """
    try:
        _load_public(kem, data)
        match kem:
            case Kem.X25519:
                _check_order(data)
            case Kem.MLKEM768_X25519:
                lattice, curve = data[:_MLKEM768_PUBLIC_BYTES], data[_MLKEM768_PUBLIC_BYTES:]
                mlkem.MLKEM768PublicKey.from_public_bytes(lattice).encapsulate()
                _check_order(curve)
            case Kem.MLKEM1024_P384:
                # Every point of P-384 but the one at infinity has the group's order.
                lattice = data[:_MLKEM1024_PUBLIC_BYTES]
                mlkem.MLKEM1024PublicKey.from_public_bytes(lattice).encapsulate()
    except _UNFIT:
        return False
    return True


def _check_order(point: bytes) -> None:
    """Raise ValueError for a point with which every private key agrees on zeros (RFC 7748)."""
    _PROBE.exchange(x25519.X25519PublicKey.from_public_bytes(point))


def _load(kem: Kem, data: bytes) -> tuple[_Private, bytes]:
    match kem:
        case Kem.X25519:
            plain = x25519.X25519PrivateKey.from_private_bytes(data)
            return plain, plain.public_key().public_bytes_raw()
        case Kem.MLKEM768_X25519:
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(data[:_SEED_BYTES])
            curve = x25519.X25519PrivateKey.from_private_bytes(data[_SEED_BYTES:])
            public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
            return hpke.MLKEM768X25519PrivateKey(lattice, curve), public
        case Kem.MLKEM1024_P384:
            return _load_top(data)


def _load_top(data: bytes) -> tuple[hpke.MLKEM1024P384PrivateKey, bytes]:
    if len(data) != _SEED_BYTES + _P384_BYTES:
        raise ValueError("private key has a wrong length")
    lattice = mlkem.MLKEM1024PrivateKey.from_seed_bytes(data[:_SEED_BYTES])
    point = ec.derive_private_key(int.from_bytes(data[_SEED_BYTES:]), ec.SECP384R1())
    public = lattice.public_key().public_bytes_raw() + point.public_key().public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )
    return hpke.MLKEM1024P384PrivateKey(lattice, point), public


def _load_public(kem: Kem, data: bytes) -> _Public:
    match kem:
        case Kem.X25519:
            return x25519.X25519PublicKey.from_public_bytes(data)
        case Kem.MLKEM768_X25519:
            return hpke.MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(data[:_MLKEM768_PUBLIC_BYTES]),
                x25519.X25519PublicKey.from_public_bytes(data[_MLKEM768_PUBLIC_BYTES:]),
            )
        case Kem.MLKEM1024_P384:
            return hpke.MLKEM1024P384PublicKey(
                mlkem.MLKEM1024PublicKey.from_public_bytes(data[:_MLKEM1024_PUBLIC_BYTES]),
                ec.EllipticCurvePublicKey.from_encoded_point(
                    ec.SECP384R1(), data[_MLKEM1024_PUBLIC_BYTES:]
                ),
            )
