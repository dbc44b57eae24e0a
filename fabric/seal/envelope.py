"""The envelope: one clear header and one ciphertext, well formed but not yet trusted.

`parse` is the only way from bytes to an Envelope, `header_map` the only way back
from a Header to what is signed. Nothing here knows a key.
Spec: docs/format.md section 5.
"""

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from datetime import datetime

from fabric.attest import cose
from fabric.model import canonical
from fabric.model.change import Sequence
from fabric.model.errors import Malformed
from fabric.model.label import Label
from fabric.model.limits import (
    BLOCK_CHANGES_MAX,
    ENVELOPE_BYTES_MAX,
    EPOCH_BLOCKS_MAX,
    HEADER_BYTES_MAX,
)
from fabric.model.names import HostId, Origin, Topic, part
from fabric.seal import fields

KIND = "envelope"
FORMAT_VERSION = 1
CODINGS = frozenset({"zstd", "none"})
NO_PREVIOUS = bytes(32)
"""`previous` of the first envelope of a chain, where there is no hash to name."""

_HEADER_LABEL = -65537
"""COSE's first private-use label: the smaller ones (alg, crit, kid, IV) are not ours to use."""
_KEYS = 22
_SALT = 21
_PARTITION_MAX = 2**31 - 1
_HASH_DOMAIN = b"fabric-envelope-hash-v1"
_ENCRYPT0_TAG = b"\xd0"
_ENCRYPT0_PROTECTED = canonical.encode({1: 3})  # alg: A256GCM
_ENCRYPT0_HEAD = _ENCRYPT0_TAG + b"\x83" + canonical.encode(_ENCRYPT0_PROTECTED) + b"\xa0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything that is said in the clear about a block; covered by AEAD and signatures.

    Attributes:
        sender: SPIFFE id of the sealing host.
        start_hash: hash of the epoch start that opened the epoch.
        counter: number of the block in its epoch and partition, from 0.
        previous: hash of the stream's previous envelope, or NO_PREVIOUS.
        after: the block holds every change of its stream later than this ...
        upto: ... and not later than this; its generation is the block's.
        fingerprint: SHA-256 of the schema's canonical form.
        count: number of changes, 0 for a sign of life.
        coding: content coding of the plaintext, `zstd` or `none`.
        sealed_at: aware UTC, whole milliseconds.
        salt: 32 bytes that make the block's key; see seal/secret.py.
    """

    version: int = FORMAT_VERSION
    suite: str
    topic: Topic
    partition: int
    label: Label
    sender: str
    origin: Origin
    result_id: bytes
    policy_version: int
    epoch_id: bytes
    epoch_number: int
    start_hash: bytes
    counter: int
    previous: bytes
    after: Sequence
    upto: Sequence
    fingerprint: bytes
    count: int
    coding: str
    sealed_at: datetime
    salt: bytes

    @property
    def generation(self) -> int:
        """Life of the source that every change of the block belongs to."""
        return self.upto.generation

    @property
    def host(self) -> HostId:
        """The sealing host."""
        return fields.spiffe(self.sender, "sender")[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A well-formed envelope; nobody has checked its signatures. Make it with `parse`.

    Attributes:
        header_bytes: COSE_Sign's protected bucket, as it was signed.
        payload: the tagged COSE_Encrypt0.
        ciphertext: what the payload carries, tag included.
        hash: over header_bytes and payload, never over signatures.
    """

    header: Header
    header_bytes: bytes
    payload: bytes
    ciphertext: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    hash: bytes

    @property
    def signed(self) -> cose.Signed:
        """The same as the COSE layer sees it."""
        return cose.Signed(
            protected={},
            protected_bytes=self.header_bytes,
            payload=self.payload,
            signatures=self.signatures,
        )


def header_map(header: Header) -> dict[int, canonical.Value]:
    """The header as integer keys 0..21; drop the last one for the salt's input."""
    return {
        0: header.version,
        1: header.suite,
        2: str(header.topic),
        3: header.partition,
        4: str(header.label),
        5: header.sender,
        6: str(header.origin),
        7: header.result_id,
        8: header.policy_version,
        9: header.epoch_id,
        10: header.epoch_number,
        11: header.start_hash,
        12: header.counter,
        13: header.previous,
        14: header.upto.generation,
        15: list(header.after),
        16: list(header.upto[1:]),
        17: header.fingerprint,
        18: header.count,
        19: header.coding,
        20: fields.milliseconds(header.sealed_at),
        _SALT: header.salt,
    }


def without_salt(header: Header) -> bytes:
    """The canonical header map without its salt: what the salt is computed from."""
    content = header_map(header)
    del content[_SALT]
    return canonical.encode(content)


def protect(header: Header) -> bytes:
    """The protected bucket that carries the whole header."""
    return canonical.encode({_HEADER_LABEL: header_map(header)})


def encrypt0(ciphertext: bytes) -> bytes:
    """The payload: a tagged COSE_Encrypt0 around `ciphertext`."""
    return _ENCRYPT0_HEAD + canonical.encode(ciphertext)


def aad(header_bytes: bytes) -> bytes:
    """COSE's Enc_structure: the AEAD covers the whole header."""
    return canonical.encode(["Encrypt0", _ENCRYPT0_PROTECTED, header_bytes])


def key_info(header: Header) -> list[canonical.Value]:
    """What a block's key is bound to, besides its salt."""
    return [header.suite, header.epoch_id, str(header.topic), header.partition, header.counter]


def hash_of(header_bytes: bytes, payload: bytes) -> bytes:
    """Hash of an envelope; both parts are hashed first, so that no border can move."""
    head, body = hashlib.sha256(header_bytes).digest(), hashlib.sha256(payload).digest()
    return hashlib.sha256(_HASH_DOMAIN + head + body).digest()


def parse(data: bytes) -> Envelope:
    """Read an envelope without trusting it.

    Raises:
        Malformed: too long, not canonical, not a COSE_Sign around a COSE_Encrypt0, or a
            header field is missing, unknown, or of a wrong type, range or length.
    """
    if len(data) > ENVELOPE_BYTES_MAX:
        raise Malformed("envelope is too long")
    signed = cose.parse(data)
    if len(signed.protected_bytes) > HEADER_BYTES_MAX:
        raise Malformed("header is too long")
    if signed.protected.keys() != {_HEADER_LABEL}:
        raise Malformed("protected bucket does not hold exactly the header")
    return Envelope(
        header=_header(signed.protected[_HEADER_LABEL]),
        header_bytes=signed.protected_bytes,
        payload=signed.payload,
        ciphertext=_ciphertext(signed.payload),
        signatures=signed.signatures,
        hash=hash_of(signed.protected_bytes, signed.payload),
    )


def _ciphertext(payload: bytes) -> bytes:
    if not payload.startswith(_ENCRYPT0_HEAD):
        raise Malformed("payload is not the expected COSE_Encrypt0")
    ciphertext = canonical.decode(payload[len(_ENCRYPT0_HEAD) :])
    if not isinstance(ciphertext, bytes) or len(ciphertext) < 16:
        raise Malformed("ciphertext is not a byte string or shorter than its tag")
    return ciphertext


def _header(value: canonical.Value) -> Header:
    v = fields.exact_keys(value, _KEYS, "header")
    if v[0] != FORMAT_VERSION:
        raise Malformed("format version is unknown")
    coding = fields.text(v[19], "content coding")
    if coding not in CODINGS:
        raise Malformed("content coding is unknown")
    fields.spiffe(v[5], "sender")
    after, upto = _range(v)
    return Header(
        suite=part(fields.text(v[1], "suite")),
        topic=Topic.parse(fields.text(v[2], "topic")),
        partition=fields.uint(v[3], "partition", _PARTITION_MAX),
        label=Label.parse(fields.text(v[4], "label")),
        sender=fields.text(v[5], "sender"),
        origin=Origin.parse(fields.text(v[6], "origin")),
        result_id=fields.octets(v[7], "result id", fields.ID_BYTES),
        policy_version=fields.uint(v[8], "policy version"),
        epoch_id=fields.octets(v[9], "epoch id"),
        epoch_number=fields.uint(v[10], "epoch number"),
        start_hash=fields.octets(v[11], "epoch start hash"),
        counter=fields.uint(v[12], "counter", EPOCH_BLOCKS_MAX - 1),
        previous=fields.octets(v[13], "previous hash"),
        after=after,
        upto=upto,
        fingerprint=fields.octets(v[17], "schema fingerprint"),
        count=fields.uint(v[18], "change count", BLOCK_CHANGES_MAX),
        coding=coding,
        sealed_at=fields.instant(v[20], "sealed-at"),
        salt=fields.octets(v[_SALT], "salt"),
    )


def _range(value: Mapping[int, canonical.Value]) -> tuple[Sequence, Sequence]:
    after = Sequence(*_numbers(value[15], 3, "after"))
    position, ordinal = _numbers(value[16], 2, "upto")
    upto = Sequence(fields.uint(value[14], "generation"), position, ordinal)
    if after > upto or (value[18] != 0 and after == upto):
        raise Malformed("block does not end after its start")
    return after, upto


def _numbers(value: canonical.Value, count: int, what: str) -> Many[int]:
    items = fields.array(value, count, what)
    if len(items) != count:
        raise Malformed(f"{what} has a wrong length")
    return [fields.uint(item, what) for item in items]


def describe(envelope: Envelope) -> dict[str, str | int]:
    """The header in words for people; no secret is in it and nothing of the plaintext."""
    header = envelope.header
    return {
        "version": header.version,
        "suite": header.suite,
        "topic": str(header.topic),
        "partition": header.partition,
        "label": str(header.label),
        "sender": header.sender,
        "origin": str(header.origin),
        "result": header.result_id.hex(),
        "policy_version": header.policy_version,
        "epoch": header.epoch_id.hex(),
        "epoch_number": header.epoch_number,
        "epoch_start": header.start_hash.hex(),
        "counter": header.counter,
        "previous": header.previous.hex(),
        "generation": header.generation,
        "after": "/".join(str(n) for n in header.after),
        "upto": "/".join(str(n) for n in header.upto),
        "schema": header.fingerprint.hex(),
        "changes": header.count,
        "coding": header.coding,
        "sealed_at": header.sealed_at.isoformat(timespec="milliseconds"),
        "salt": header.salt.hex(),
        "hash": envelope.hash.hex(),
        "ciphertext_bytes": len(envelope.ciphertext),
        "signatures": len(envelope.signatures),
    }
