"""An epoch's start: the signed manifest that opens it and names who may read it.

`bytes -> OpenedStart` (well formed) `-> VerifiedStart` (signed by the host it
names): only `verify_start` makes the trusted type. Spec: docs/format.md section 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from dataclasses import fields as fields_of
from datetime import datetime
from itertools import pairwise

from fabric.attest.keys import PublicKey, Signer, Use, of_use
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason, UsageError
from fabric.model.label import Label
from fabric.model.limits import EPOCH_BLOCKS_MAX, EPOCH_HEADS_MAX
from fabric.model.names import HostId, Origin, Topic, part
from fabric.seal import fields, record
from fabric.seal.record import Recipient, Terms
from fabric.seal.secret import EpochSecret, epoch_id
from fabric.seal.suites import claimed_suite, suite_of

KIND = "epoch-start"
_VERSION = 1
_KEYS = 15
_PARTITION_MAX = 2**31 - 1
_HISTORIES = frozenset({"from_join", "retained"})
_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A stream's last acknowledged envelope, as the epoch's sender knows it."""

    origin: Origin
    partition: int
    epoch: bytes
    counter: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDraft:
    """What a sender decides about a new epoch.

    Attributes:
        number: greater than that of every epoch this host ever opened for the topic.
        result_id: the sender's current attestation result.
        revocation_number: of the last revocation the sender has seen.
        heads: predecessors, at most one per stream of the topic.
        chain_reset: streams without a head here begin anew, with a higher generation,
            because the sender's state file was lost.
        history: the dataset's rule, `from_join` or `retained`.
        started: aware UTC, whole milliseconds count.
    """

    trust_domain: str
    sender: HostId
    topic: Topic
    label: Label
    suite: str
    number: int
    result_id: bytes
    policy_version: int
    revocation_number: int
    heads: tuple[Head, ...]
    chain_reset: bool
    history: str
    started: datetime

    @property
    def sender_id(self) -> str:
        """The sender's SPIFFE id."""
        return self.sender.spiffe(self.trust_domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStart(EpochDraft):
    """A draft with what starting it added: the epoch's id and its recipients."""

    id: bytes
    recipients: tuple[Recipient, ...]

    @property
    def terms(self) -> Terms:
        """What the wraps of this start are bound to."""
        return Terms(
            suite=self.suite,
            topic=self.topic,
            epoch_id=self.id,
            epoch_number=self.number,
            sender=self.sender_id,
            granter=self.sender_id,
            trust_domain=self.trust_domain,
            label=self.label,
            policy_version=self.policy_version,
        )

    def head_of(self, origin: Origin, partition: int) -> Head | None:
        """The predecessor this start names for a stream of its topic."""
        for head in self.heads:
            if head.partition == partition and head.origin == origin:
                return head
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A new epoch start: its records' values, and what it says.

    Attributes:
        values: one or several records with one manifest, for `start_key`, in this order.
    """

    values: tuple[bytes, ...]
    start: EpochStart
    hash: bytes

    @property
    def value(self) -> bytes:
        """The first record: manifest, and the first of the wraps."""
        return self.values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """An epoch's secret wrapped for everyone, before its manifest is signed."""

    terms: Terms
    recipients: tuple[Recipient, ...]
    wraps: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedStart:
    """A well-formed record of an epoch start that nobody has verified.

    Attributes:
        first: number of the recipient that the record's first wrap is for.
    """

    start: EpochStart
    hash: bytes
    first: int
    wraps: tuple[bytes, ...]
    manifest: record.Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStart:
    """An epoch start that its sender signed; made by `verify_start` alone.

    Attributes:
        wraps: per recipient host of this record the key's thumbprint and the wrap.
    """

    start: EpochStart
    hash: bytes
    result: Result
    wraps: Mapping[HostId, tuple[bytes, bytes]]
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise UsageError(Reason.INTERNAL, "only verify_start makes a verified start")


def start_key(start: EpochDraft) -> bytes:
    """Kafka key of the start's record: it begins with its signer's identity."""
    return f"{start.sender}/start/{start.number}".encode()


def start_epoch(
    draft: EpochDraft,
    secret: EpochSecret,
    recipients: Sequence[tuple[HostId, PublicKey]],
    *,
    signers: Sequence[Signer],
) -> Started:
    """Open an epoch: wrap its secret for every recipient and sign the manifest once.

    Raises as `wrap_start` and `sign_start`.
    """
    return sign_start(draft, wrap_start(draft, secret, recipients), signers=signers)


def wrap_start(
    draft: EpochDraft, secret: EpochSecret, recipients: Sequence[tuple[HostId, PublicKey]]
) -> Wrapped:
    """Wrap a new epoch's secret for everyone: the part that costs, and can be done ahead.

    A wrap depends on the draft's host, topic, label, suite, number and policy version;
    heads, result and time are of no account yet.

    Args:
        secret: fresh.
        recipients: hosts with their current HPKE key; the sender is one of them. At most
            limits.RECIPIENTS_MAX: `grant.grant` serves the rest.

    Raises:
        UsageError: the sender is not a recipient, or keys do not fit the suite.
        DeniedError: SUITE_REFUSED; TOO_LARGE.
    """
    if draft.sender not in {host for host, _ in recipients}:
        raise UsageError(Reason.INTERNAL, "the sender must grant to itself")
    kdf = suite_of(draft.suite).kdf
    ident = epoch_id(secret, draft.sender_id, str(draft.topic), draft.number, kdf=kdf)
    terms = _start(draft, ident, ()).terms
    named, wraps = record.wrap_all(terms, secret, recipients)
    return Wrapped(terms=terms, recipients=named, wraps=wraps)


def sign_start(draft: EpochDraft, wrapped: Wrapped, *, signers: Sequence[Signer]) -> Started:
    """Sign the manifest of an epoch whose secret is wrapped, and in the sealed state.

    Args:
        wrapped: made for this draft, or for one that differs in heads, result,
            revocation number and time alone.
        signers: exactly the suite's, in its order.

    Raises:
        UsageError: the wraps are another draft's, or keys do not fit the suite.
        DeniedError: TOO_LARGE.
    """
    if tuple(signer.public.alg for signer in signers) != suite_of(draft.suite).signatures:
        raise UsageError(Reason.BAD_SIGNATURE, "signing keys are not exactly the suite's")
    start = _start(draft, wrapped.terms.epoch_id, wrapped.recipients)
    if start.terms != wrapped.terms:
        raise UsageError(Reason.INTERNAL, "wraps were made for another epoch")
    values, digest = record.write(KIND, _content(start), wrapped.wraps, signers)
    return Started(values=values, start=start, hash=digest)


def _start(draft: EpochDraft, ident: bytes, recipients: tuple[Recipient, ...]) -> EpochStart:
    given = {field.name: getattr(draft, field.name) for field in fields_of(EpochDraft)}
    given["heads"] = tuple(sorted(draft.heads, key=_head_place))
    return EpochStart(**given, id=ident, recipients=recipients)


def parse_start(value: bytes) -> OpenedStart:
    """Read one record of an epoch start without trusting it; raises Malformed."""
    manifest = record.read(KIND, value)
    v = fields.exact_keys(manifest.content, _KEYS, "epoch start")
    if v[0] != _VERSION:
        raise Malformed("epoch start's version is unknown")
    domain, sender = fields.spiffe(v[1], "sender")
    history = fields.text(v[13], "history")
    if history not in _HISTORIES:
        raise Malformed("history is unknown")
    start = EpochStart(
        trust_domain=domain,
        sender=sender,
        topic=Topic.parse(fields.text(v[2], "topic")),
        label=Label.parse(fields.text(v[3], "label")),
        suite=part(fields.text(v[4], "suite")),
        number=fields.uint(v[5], "epoch number"),
        id=fields.octets(v[6], "epoch id"),
        result_id=fields.octets(v[7], "result id", fields.ID_BYTES),
        policy_version=fields.uint(v[8], "policy version"),
        revocation_number=fields.uint(v[9], "revocation number"),
        heads=_heads(v[10]),
        recipients=record.read_recipients(v[11]),
        chain_reset=fields.uint(v[12], "chain reset", 1) == 1,
        history=history,
        started=fields.instant(v[14], "start time"),
    )
    return OpenedStart(
        start=start,
        hash=manifest.hash,
        first=manifest.first,
        wraps=manifest.wraps,
        manifest=manifest,
    )


def bare(opened: OpenedStart) -> OpenedStart:
    """The manifest alone: enough to trust what a start says, and small enough to keep."""
    manifest = replace(opened.manifest, first=0, wraps=())
    return replace(opened, first=0, wraps=(), manifest=manifest)


def verify_start(opened: OpenedStart, result: Result, trust_domain: str) -> VerifiedStart:
    """Check that the host of `result` signed this start and that its wraps are the signed ones.

    Args:
        result: a verified result, the one the start names; who may be a recipient and
            whether the result was good then is for admission to say.

    Raises:
        PeerError: IDENTITY_MISMATCH, BAD_SIGNATURE, SUITE_REFUSED, or MALFORMED when the
            sender is not among its own recipients.
    """
    start = opened.start
    if (start.trust_domain, start.sender) != (trust_domain, result.host):
        raise PeerError(Reason.IDENTITY_MISMATCH, "epoch start is not its result's host's")
    if start.result_id != result.id:
        raise PeerError(Reason.IDENTITY_MISMATCH, "epoch start names another result")
    suite = claimed_suite(start.suite)
    keys = of_use(result.keys, Use.SIGN, suite.signatures)
    record.check_signed(opened.manifest, KIND, suite, keys)
    wraps = record.check_wraps(start.recipients, opened.first, opened.wraps)
    if start.sender not in {recipient.host for recipient in start.recipients}:
        raise Malformed("the sender is not among its recipients")
    return VerifiedStart(start=start, hash=opened.hash, result=result, wraps=wraps, proof=_PROOF)


def _content(start: EpochStart) -> dict[int, canonical.Value]:
    return {
        0: _VERSION,
        1: start.sender_id,
        2: str(start.topic),
        3: str(start.label),
        4: start.suite,
        5: start.number,
        6: start.id,
        7: start.result_id,
        8: start.policy_version,
        9: start.revocation_number,
        10: [[str(h.origin), h.partition, h.epoch, h.counter, h.hash] for h in start.heads],
        11: record.write_recipients(start.recipients),
        12: int(start.chain_reset),
        13: start.history,
        14: fields.milliseconds(start.started),
    }


def _heads(value: canonical.Value) -> tuple[Head, ...]:
    heads = tuple(_head(item) for item in fields.array(value, EPOCH_HEADS_MAX, "heads"))
    places = [_head_place(head) for head in heads]
    if any(left >= right for left, right in pairwise(places)):
        raise Malformed("heads are repeated or out of order")
    return heads


def _head(value: canonical.Value) -> Head:
    match value:
        case [str() as origin, int() as partition, bytes() as epoch, int() as counter, digest]:
            return Head(
                origin=Origin.parse(origin),
                partition=fields.uint(partition, "partition", _PARTITION_MAX),
                epoch=fields.octets(epoch, "head's epoch"),
                counter=fields.uint(counter, "head's counter", EPOCH_BLOCKS_MAX - 1),
                hash=fields.octets(digest, "head's hash"),
            )
    raise Malformed("head has a wrong shape")


def _head_place(head: Head) -> tuple[str, int]:
    return str(head.origin), head.partition
