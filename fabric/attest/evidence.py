"""Read what a TPM 2.0 says: public areas, quotes and signatures, strictly, byte by byte.

Parsers only: a value that comes out has the shape of TPM 2.0 Library part 2, with
no byte missing and none left over. Whether it is true is for `appraise` to say.
Only the forms the fabric uses exist here: an ECC P-256 attestation key with
ECDSA, quotes, certified NV indexes and keys; whatever else a TPM can make is refused.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from fabric.model.errors import Malformed

ALG_RSA = 0x0001
ALG_AES = 0x0006
ALG_SHA256 = 0x000B
ALG_SHA384 = 0x000C
ALG_NULL = 0x0010
ALG_ECDSA = 0x0018
ALG_ECC = 0x0023
ALG_CFB = 0x0043
CURVE_P256 = 0x0003
CURVE_P384 = 0x0004
MAGIC = 0xFF544347
"""TPM_GENERATED: a restricted key signs nothing from outside that begins with it."""
TYPE_QUOTE = 0x8018
TYPE_NV = 0x8014
TYPE_CERTIFY = 0x8017
AK_ATTRIBUTES = 0x0005_0472
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign."""

_COORDINATE_BYTES = 32
_NAME_BYTES_MAX = 66
_DATA_BYTES_MAX = 66
_NV_BYTES_MAX = 64
_SELECTIONS_MAX = 16
_SELECT_BYTES_MAX = 4
_STRUCTURE_BYTES_MAX = 4_096


class Reader:
    """Cuts big-endian fields off the front of a structure; raises Malformed at its end."""

    def __init__(self, data: bytes, what: str) -> None:
        if len(data) > _STRUCTURE_BYTES_MAX:
            raise Malformed(f"{what} is too long")
        self._data = data
        self._at = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise Malformed(f"{self._what} ends too early")
        self._at, start = end, self._at
        return self._data[start:end]

    def uint(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size))

    def sized(self, size_max: int) -> bytes:
        """A TPM2B: two bytes of length, then at most `size_max` bytes."""
        size = self.uint(2)
        if size > size_max:
            raise Malformed(f"{self._what} has a field that is too long")
        return self.take(size)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise Malformed(f"{self._what} has bytes after its end")


def sized(data: bytes) -> bytes:
    """Write a TPM2B."""
    return len(data).to_bytes(2) + data


@dataclass(frozen=True, slots=True, kw_only=True)
class AkPublic:
    """An attestation key's public area.

    Attributes:
        name: TPM name, algorithm id and SHA-256 of the public area; computed here.
        attributes: TPMA_OBJECT.
    """

    name: bytes
    attributes: int
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """A TPMS_ATTEST in the form of a quote.

    Attributes:
        magic: MAGIC when a TPM made it.
        type: TYPE_QUOTE for a quote.
        signer: qualified name of the key that signed.
        extra: the qualifying data.
        clock: milliseconds that the TPM has been on.
        safe: the clock is certainly above every value it showed before.
        selection: (hash algorithm, PCRs) of each bank, in order.
        pcr_digest: hash over the selected values.
    """

    magic: int
    type: int
    signer: bytes
    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    firmware: int
    selection: tuple[tuple[int, frozenset[int]], ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NvAttest:
    """A TPMS_ATTEST in the form of TPM2_NV_Certify.

    Attributes:
        magic: MAGIC when a TPM made it.
        type: TYPE_NV for the contents of an NV index.
        signer: qualified name of the key that signed.
        extra: the qualifying data.
        index: TPM name of the NV index, a hash over its public area.
        offset: where in the index `contents` begin.
    """

    magic: int
    type: int
    signer: bytes
    extra: bytes
    index: bytes
    offset: int
    contents: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyAttest:
    """A TPMS_ATTEST in the form of TPM2_Certify.

    Attributes:
        magic: MAGIC when a TPM made it.
        type: TYPE_CERTIFY for a loaded key.
        signer: qualified name of the key that signed.
        extra: the qualifying data.
        name: TPM name of the certified key, a hash over its public area.
    """

    magic: int
    type: int
    signer: bytes
    extra: bytes
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A TPMT_SIGNATURE of an elliptic curve key; the algorithms are not judged here."""

    algorithm: int
    hash: int
    r: int
    s: int


def parse_ak(data: bytes) -> AkPublic:
    """Read a TPM2B_PUBLIC of an ECC P-256 key that signs with ECDSA and SHA-256.

    Raises:
        Malformed: any other key, a point not on the curve, or not exactly one structure.
    """
    outer = Reader(data, "attestation key")
    area = outer.sized(_STRUCTURE_BYTES_MAX)
    outer.end()
    reader = Reader(area, "attestation key")
    kind = (reader.uint(2), reader.uint(2))
    attributes = reader.uint(4)
    reader.sized(_DATA_BYTES_MAX)  # a policy cannot weaken a restricted key's signatures
    parameters = tuple(reader.uint(2) for _ in range(5))
    point = reader.sized(_COORDINATE_BYTES), reader.sized(_COORDINATE_BYTES)
    reader.end()
    if kind != (ALG_ECC, ALG_SHA256) or parameters != (
        ALG_NULL,  # no symmetric algorithm: not a storage key
        ALG_ECDSA,
        ALG_SHA256,
        CURVE_P256,
        ALG_NULL,  # no key derivation
    ):
        raise Malformed("attestation key is not ECDSA on P-256 with SHA-256")
    return AkPublic(name=name_of(area), attributes=attributes, key=_p256(*point))


def name_of(area: bytes) -> bytes:
    """TPM name of a TPMT_PUBLIC whose name algorithm is SHA-256."""
    return ALG_SHA256.to_bytes(2) + hashlib.sha256(area).digest()


def parse_attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST that has the form of a quote; raises Malformed."""
    reader = Reader(data, "quote")
    head = _head(reader)
    selection = _selection(reader)
    digest = reader.sized(_DATA_BYTES_MAX)
    reader.end()
    return Attest(
        magic=head.magic,
        type=head.type,
        signer=head.signer,
        extra=head.extra,
        clock=head.clock,
        resets=head.resets,
        restarts=head.restarts,
        safe=head.safe,
        firmware=head.firmware,
        selection=selection,
        pcr_digest=digest,
    )


def parse_nv(data: bytes) -> NvAttest:
    """Read a TPMS_ATTEST that has the form of TPM2_NV_Certify; raises Malformed."""
    reader = Reader(data, "tally")
    head = _head(reader)
    index = reader.sized(_NAME_BYTES_MAX)
    offset = reader.uint(2)
    contents = reader.sized(_NV_BYTES_MAX)
    reader.end()
    return NvAttest(
        magic=head.magic,
        type=head.type,
        signer=head.signer,
        extra=head.extra,
        index=index,
        offset=offset,
        contents=contents,
    )


def parse_certify(data: bytes) -> CertifyAttest:
    """Read a TPMS_ATTEST that has the form of TPM2_Certify; raises Malformed."""
    reader = Reader(data, "key certificate")
    head = _head(reader)
    name = reader.sized(_NAME_BYTES_MAX)
    reader.sized(_NAME_BYTES_MAX)  # the qualified name; its parent is not known here
    reader.end()
    return CertifyAttest(
        magic=head.magic, type=head.type, signer=head.signer, extra=head.extra, name=name
    )


def parse_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE with two numbers (ECDSA's form); raises Malformed."""
    reader = Reader(data, "signature")
    algorithm, digest = reader.uint(2), reader.uint(2)
    r, s = reader.sized(_DATA_BYTES_MAX), reader.sized(_DATA_BYTES_MAX)
    reader.end()
    return Signature(algorithm=algorithm, hash=digest, r=int.from_bytes(r), s=int.from_bytes(s))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What every TPMS_ATTEST begins with."""

    magic: int
    type: int
    signer: bytes
    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    firmware: int


def _head(reader: Reader) -> _Head:
    magic, kind = reader.uint(4), reader.uint(2)
    signer = reader.sized(_NAME_BYTES_MAX)
    extra = reader.sized(_DATA_BYTES_MAX)
    clock, resets, restarts = reader.uint(8), reader.uint(4), reader.uint(4)
    safe = reader.uint(1)
    if safe > 1:
        raise Malformed("TPM's statement has a truth value that is neither")
    return _Head(
        magic=magic,
        type=kind,
        signer=signer,
        extra=extra,
        clock=clock,
        resets=resets,
        restarts=restarts,
        safe=bool(safe),
        firmware=reader.uint(8),
    )


def _selection(reader: Reader) -> tuple[tuple[int, frozenset[int]], ...]:
    count = reader.uint(4)
    if count > _SELECTIONS_MAX:
        raise Malformed("quote selects too many banks")
    banks = []
    for _ in range(count):
        algorithm = reader.uint(2)
        size = reader.uint(1)
        if size > _SELECT_BYTES_MAX:
            raise Malformed("quote selects too many PCRs")
        bits = int.from_bytes(reader.take(size), "little")
        banks.append((algorithm, frozenset(n for n in range(8 * size) if bits >> n & 1)))
    return tuple(banks)


def _p256(x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicNumbers(
            int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()
        ).public_key()
    except ValueError as exc:
        raise Malformed("attestation key is not a point of its curve") from exc
