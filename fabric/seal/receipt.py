"""Receipts: a reader's signed word that blocks of a stream are in its database.

A receipt is a COSE_Sign of kind `receipt`. It says that everything the stream holds in
`(after, upto]` was committed to the reader's target, and names the envelopes it came in.
Receipts of one stream follow each other; a lost one is made good by the next, whose
`after` lies before it. Spec: docs/format.md section 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fabric.attest import cose
from fabric.attest.fields import milliseconds
from fabric.attest.keys import Signer, Use, of_use
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import (
    EPOCH_BLOCKS_MAX,
    RECEIPT_BLOCKS_MAX,
    RECEIPT_BYTES_MAX,
    RECEIPT_ITEMS_MAX,
)
from fabric.model.names import HostId, Origin, Stream, Topic, part
from fabric.seal import fields
from fabric.seal.suites import claimed_suite, suite_of

KIND = "receipt"
_VERSION = 1
_TYP = 16  # RFC 9596
_PROTECTED = canonical.encode({_TYP: KIND})
_RESULT_ID = 16
_PARTITION_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One applied envelope: its epoch's id, its counter and hash."""

    epoch_id: bytes
    counter: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a reader acknowledges.

    Attributes:
        reader: SPIFFE id of the host whose target holds the changes.
        result_id: the reader's attestation result, whose keys sign.
        suite: the suite whose signatures it carries: the dataset's.
        after, upto: everything of the stream after the one and up to the other is applied.
        blocks: in the order in which they were applied; at least one. After a restart
            the oldest may lack; `after` tells.
        applied: when the last one was committed, by the reader's clock.
        policy_version: the reader's policy.
    """

    reader: str
    result_id: bytes
    suite: str
    stream: Stream
    after: ChangeSequence
    upto: ChangeSequence
    blocks: tuple[Received, ...]
    applied: datetime
    policy_version: int

    def covers(self, upto: ChangeSequence, digest: bytes) -> bool:
        """Whether it acknowledges the envelope with this hash that ends at `upto`."""
        return self.after < upto <= self.upto or digest in {block.hash for block in self.blocks}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedReceipt:
    """A well-formed receipt; nobody has checked its signatures."""

    receipt: Receipt
    signed: cose.Signed


def receipt_key(reader: HostId, stream: Stream) -> bytes:
    """The record's key: it begins with the reader's identity."""
    return f"{reader}/receipt/{stream}".encode()


def write_receipt(receipt: Receipt, signers: Sequence[Signer]) -> bytes:
    """Sign a receipt with the reader's keys of its suite.

    Raises:
        Malformed: it breaks its own rules.
        DeniedError: SUITE_REFUSED.
    """
    payload = canonical.encode(_content(receipt))
    _read(payload)
    if tuple(signer.public.alg for signer in signers) != suite_of(receipt.suite).signatures:
        raise PeerError(Reason.BAD_SIGNATURE, "signing keys are not exactly the suite's")
    return cose.sign(KIND, _PROTECTED, payload, signers)


def parse_receipt(value: bytes) -> OpenedReceipt:
    """Read a receipt without trusting it; raises Malformed."""
    if len(value) > RECEIPT_BYTES_MAX:
        raise Malformed("receipt is too long")
    signed = cose.parse(value)
    if signed.protected_bytes != _PROTECTED:
        raise Malformed("record is not a receipt")
    return OpenedReceipt(receipt=_read(signed.payload), signed=signed)


def verify_receipt(opened: OpenedReceipt, result: Result, trust_domain: str) -> Receipt:
    """Check reader and signatures.

    Args:
        result: a verified result, the one the receipt names.

    Raises:
        PeerError: IDENTITY_MISMATCH, BAD_SIGNATURE; SUITE_REFUSED, this build does not
            know the suite.
    """
    receipt = opened.receipt
    if receipt.reader != result.host.spiffe(trust_domain) or receipt.result_id != result.id:
        raise PeerError(Reason.IDENTITY_MISMATCH, "reader is not the result's host")
    keys = of_use(result.keys, Use.SIGN, claimed_suite(receipt.suite).signatures)
    cose.check(opened.signed, KIND, keys)
    return receipt


def _content(receipt: Receipt) -> dict[int, canonical.Value]:
    return {
        0: _VERSION,
        1: receipt.reader,
        2: receipt.result_id,
        3: receipt.suite,
        4: str(receipt.stream.topic),
        5: receipt.stream.partition,
        6: str(receipt.stream.origin),
        7: list(receipt.after),
        8: list(receipt.upto),
        9: [[b.epoch_id, b.counter, b.hash] for b in receipt.blocks],
        10: milliseconds(receipt.applied),
        11: receipt.policy_version,
    }


def _read(payload: bytes) -> Receipt:
    given = canonical.decode(payload, items_max=RECEIPT_ITEMS_MAX)
    content = fields.exact_keys(given, 12, "receipt")
    if content[0] != _VERSION:
        raise Malformed("receipt is of an unknown version")
    reader = fields.text(content[1], "reader")
    fields.spiffe(reader, "reader")
    topic = Topic.parse(fields.text(content[4], "topic"))
    origin = Origin.parse(fields.text(content[6], "origin"))
    partition = fields.uint(content[5], "partition", _PARTITION_MAX)
    receipt = Receipt(
        reader=reader,
        result_id=fields.octets(content[2], "result id", _RESULT_ID),
        suite=part(fields.text(content[3], "suite")),
        stream=Stream(origin, topic, partition),
        after=_sequence(content[7]),
        upto=_sequence(content[8]),
        blocks=tuple(
            _block(item) for item in fields.array(content[9], RECEIPT_BLOCKS_MAX, "blocks")
        ),
        applied=fields.instant(content[10], "time"),
        policy_version=fields.uint(content[11], "policy version"),
    )
    if receipt.after > receipt.upto or not receipt.blocks:
        raise Malformed("receipt acknowledges nothing, or ends before it begins")
    return receipt


def _sequence(value: canonical.Value) -> ChangeSequence:
    match value:
        case [generation, position, ordinal]:
            return ChangeSequence(
                fields.uint(generation, "generation"),
                fields.uint(position, "position"),
                fields.uint(ordinal, "ordinal"),
            )
    raise Malformed("sequence has a wrong shape")


def _block(value: canonical.Value) -> Received:
    match value:
        case [epoch_id, counter, digest]:
            return Received(
                epoch_id=fields.octets(epoch_id, "epoch id"),
                counter=fields.uint(counter, "counter", EPOCH_BLOCKS_MAX - 1),
                hash=fields.octets(digest, "hash"),
            )
    raise Malformed("block of a receipt has a wrong shape")
