"""Seal one block: the only place where a plaintext becomes an envelope.

The order of work: pack, code and pad, make the salt from header and plaintext,
derive the block's key, encrypt under the whole header, sign. One key seals one
block, because the salt depends on everything. Spec: docs/format.md section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fabric.attest import cose
from fabric.attest.keys import Signer
from fabric.model.block import Block, pack
from fabric.model.errors import DeniedError, Reason, UsageError
from fabric.model.label import Label
from fabric.model.limits import (
    BLOCK_CHANGES_MAX,
    ENVELOPE_BYTES_MAX,
    EPOCH_BLOCKS_MAX,
    HEADER_BYTES_MAX,
)
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.seal import envelope as form
from fabric.seal import plaintext
from fabric.seal.epoch import EpochStart
from fabric.seal.secret import EpochSecret, block_key, block_salt
from fabric.seal.suites import Suite, suite_of

NONCE = bytes(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingEpoch:
    """An open epoch of this host, as sealing needs it."""

    suite: Suite
    sender: str
    topic: Topic
    label: Label
    number: int
    id: bytes
    start_hash: bytes
    secret: EpochSecret

    @classmethod
    def of(cls, start: EpochStart, start_hash: bytes, secret: EpochSecret) -> "SealingEpoch":
        """The epoch that `start` opened; raises DeniedError SUITE_REFUSED."""
        return cls(
            suite=suite_of(start.suite),
            sender=start.sender_id,
            topic=start.topic,
            label=start.label,
            number=start.number,
            id=start.id,
            start_hash=start_hash,
            secret=secret,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Place of the next envelope in its stream's chain.

    Attributes:
        counter: from 0 in every epoch and partition.
        previous: hash of the stream's last acknowledged envelope, also across epochs,
            or `envelope.NO_PREVIOUS`.
    """

    counter: int
    previous: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the moment of sealing adds: trust, time, and the level's coding and padding."""

    result_id: bytes
    policy_version: int
    now: datetime
    coding: str
    padding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed block: the record value, the envelope's hash, and sizes for metrics."""

    data: bytes
    hash: bytes
    counter: int
    plaintext_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A block's padded plaintext; hidden. Make it with `prepare`.

    Attributes:
        asked: the coding and padding it was made for.
        coding: the coding that was used.
        plaintext_bytes: before coding and padding.
    """

    block: Block
    schema: RowSchema
    asked: tuple[str, bool]
    padded: bytes
    coding: str
    plaintext_bytes: int

    def __repr__(self) -> str:
        return f"Packed({self.block.stream}, {self.plaintext_bytes} bytes)"


def prepare(block: Block, schema: RowSchema, *, coding: str, padding: bool) -> Packed:
    """Do what needs no key and no place in the chain, and most of the time: pack, code, pad.

    Raises:
        DeniedError: TOO_LARGE, the block must be made smaller.
        Malformed: a row does not fit the schema.
    """
    if block.count > BLOCK_CHANGES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "block holds too many changes")
    plain = pack(block, schema)
    padded, used = plaintext.encode(plain, coding, padding)
    return Packed(
        block=block,
        schema=schema,
        asked=(coding, padding),
        padded=padded,
        coding=used,
        plaintext_bytes=len(plain),
    )


def seal(
    block: Block,
    schema: RowSchema,
    *,
    epoch: SealingEpoch,
    link: Link,
    stamp: Stamp,
    signers: Sequence[Signer],
) -> Sealed:
    """Seal one block so that only holders of the epoch's secret can open it.

    Args:
        block: of the epoch's topic; at most limits.BLOCK_BYTES_MAX bytes when coded.
        signers: this host's attested keys, exactly the suite's, in its order.

    Raises:
        UsageError: block, epoch and signers do not belong together; the epoch is used up.
        DeniedError: TOO_LARGE, the block must be made smaller.
        Malformed: a row does not fit the schema.
    """
    _check(block, epoch, link, signers)
    packed = prepare(block, schema, coding=stamp.coding, padding=stamp.padding)
    return seal_packed(packed, epoch=epoch, link=link, stamp=stamp, signers=signers)


def seal_packed(
    packed: Packed,
    *,
    epoch: SealingEpoch,
    link: Link,
    stamp: Stamp,
    signers: Sequence[Signer],
) -> Sealed:
    """Seal a block that is packed already; as `seal`.

    Raises:
        UsageError, DeniedError: as `seal`; UsageError too when it was packed for another
            coding or padding than the stamp's.
    """
    block = packed.block
    _check(block, epoch, link, signers)
    if packed.asked != (stamp.coding, stamp.padding):
        raise UsageError(Reason.INTERNAL, "block was packed for another coding or padding")
    stamp = replace(stamp, coding=packed.coding)
    header = _header(block, packed.schema, epoch=epoch, link=link, stamp=stamp)
    kdf = epoch.suite.kdf
    salt = block_salt(epoch.secret, form.without_salt(header), packed.padded, kdf=kdf)
    header = replace(header, salt=salt)
    protected = form.protect(header)
    if len(protected) > HEADER_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "header is too long")
    key = block_key(epoch.secret, form.key_info(header), salt, kdf=kdf)
    ciphertext = AESGCM(key).encrypt(NONCE, packed.padded, form.aad(protected))
    payload = form.encrypt0(ciphertext)
    data = cose.sign(form.KIND, protected, payload, signers)
    if len(data) > ENVELOPE_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "envelope is too long")
    return Sealed(
        data=data,
        hash=form.hash_of(protected, payload),
        counter=link.counter,
        plaintext_bytes=packed.plaintext_bytes,
    )


def _check(block: Block, epoch: SealingEpoch, link: Link, signers: Sequence[Signer]) -> None:
    if block.stream.topic != epoch.topic:
        raise UsageError(Reason.TOPIC_MISMATCH, "block and epoch belong to different topics")
    if tuple(signer.public.alg for signer in signers) != epoch.suite.signatures:
        raise UsageError(Reason.BAD_SIGNATURE, "signing keys are not exactly the suite's")
    if not 0 <= link.counter < EPOCH_BLOCKS_MAX:
        raise UsageError(Reason.TOO_OLD, "epoch is used up: open a new one")
    if block.count > BLOCK_CHANGES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "block holds too many changes")
    if block.after > block.upto or (block.count and block.after == block.upto):
        raise UsageError(Reason.INTERNAL, "block does not end after its start")


def _header(
    block: Block, schema: RowSchema, *, epoch: SealingEpoch, link: Link, stamp: Stamp
) -> form.Header:
    return form.Header(
        suite=epoch.suite.id,
        topic=epoch.topic,
        partition=block.stream.partition,
        label=epoch.label,
        sender=epoch.sender,
        origin=block.stream.origin,
        result_id=stamp.result_id,
        policy_version=stamp.policy_version,
        epoch_id=epoch.id,
        epoch_number=epoch.number,
        start_hash=epoch.start_hash,
        counter=link.counter,
        previous=link.previous,
        after=block.after,
        upto=block.upto,
        fingerprint=schema.fingerprint,
        count=block.count,
        coding=stamp.coding,
        sealed_at=stamp.now,
        salt=b"",
    )
