"""Grants: wraps of an epoch that already runs, for recipients who came later.

A grant is an epoch start's smaller sister: the same record shape, signed by the
host that wraps: the epoch's sender, or a custodian that policy names. It says
nothing new about the epoch; everything it repeats is held against the verified
start, and the secret against the epoch's id.
Spec: docs/format.md section 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime

from fabric.attest.keys import PublicKey, Signer, Use, of_use
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason, UsageError
from fabric.model.label import Label
from fabric.model.names import HostId, Topic, part
from fabric.seal import fields, record
from fabric.seal.epoch import VerifiedStart
from fabric.seal.hpke import HpkeKey
from fabric.seal.record import Recipient, Terms
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of

KIND = "grant"
_VERSION = 1
_KEYS = 14
_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantDraft:
    """What a granter adds to what the epoch start says.

    Attributes:
        granter: this host; the epoch's sender, or a custodian of the dataset.
        result_id: the granter's current attestation result.
        policy_version: under which the recipients were judged.
        revocation_number: of the last revocation the granter has seen; admission
            refuses a stale one.
        granted: aware UTC, whole milliseconds count.
    """

    granter: HostId
    result_id: bytes
    policy_version: int
    revocation_number: int
    granted: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a grant says.

    Attributes:
        terms: of its wraps: epoch, sender, granter, topic, label, suite, policy version.
        start_hash: hash of the epoch start it belongs to.
    """

    terms: Terms
    granter: HostId
    start_hash: bytes
    result_id: bytes
    revocation_number: int
    recipients: tuple[Recipient, ...]
    granted: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedGrant:
    """A well-formed record of a grant that nobody has verified.

    Attributes:
        first: number of the recipient that the record's first wrap is for.
    """

    grant: Grant
    first: int
    wraps: tuple[bytes, ...]
    manifest: record.Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedGrant:
    """A grant whose granter signed it and which fits its epoch start.

    Attributes:
        wraps: per recipient host of this record the key's thumbprint and the wrap.
    """

    grant: Grant
    result: Result
    wraps: Mapping[HostId, tuple[bytes, bytes]]
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise UsageError(Reason.INTERNAL, "only verify_grant makes a verified grant")


def grant_key(granter: HostId, epoch: bytes) -> bytes:
    """Kafka key of a grant's record: it begins with its signer's identity."""
    return f"{granter}/grant/{epoch.hex()}".encode()


def grant(
    draft: GrantDraft,
    started: VerifiedStart,
    secret: EpochSecret,
    *,
    recipients: Sequence[tuple[HostId, PublicKey]],
    signers: Sequence[Signer],
) -> tuple[bytes, ...]:
    """Wrap a kept epoch's secret for later recipients; returns the values of its records.

    Args:
        started: the epoch's verified start.
        recipients: hosts with their current HPKE key, at most
            limits.RECIPIENTS_MAX.
        signers: exactly the suite's, in its order.

    Raises:
        UsageError: keys do not fit the suite.
        DeniedError: SUITE_REFUSED; TOO_LARGE.
    """
    start = started.start
    if tuple(signer.public.alg for signer in signers) != suite_of(start.suite).signatures:
        raise UsageError(Reason.BAD_SIGNATURE, "signing keys are not exactly the suite's")
    terms = Terms(
        suite=start.suite,
        topic=start.topic,
        epoch_id=start.id,
        epoch_number=start.number,
        sender=start.sender_id,
        granter=draft.granter.spiffe(start.trust_domain),
        trust_domain=start.trust_domain,
        label=start.label,
        policy_version=draft.policy_version,
    )
    named, wraps = record.wrap_all(terms, secret, recipients)
    content: dict[int, canonical.Value] = {
        0: _VERSION,
        1: terms.sender,
        2: terms.granter,
        3: str(terms.topic),
        4: str(terms.label),
        5: terms.suite,
        6: terms.epoch_number,
        7: terms.epoch_id,
        8: started.hash,
        9: draft.result_id,
        10: draft.policy_version,
        11: draft.revocation_number,
        12: record.write_recipients(named),
        13: fields.milliseconds(draft.granted),
    }
    return record.write(KIND, content, wraps, signers)[0]


def parse_grant(value: bytes) -> OpenedGrant:
    """Read a grant without trusting it; raises Malformed."""
    manifest = record.read(KIND, value)
    v = fields.exact_keys(manifest.content, _KEYS, "grant")
    if v[0] != _VERSION:
        raise Malformed("grant's version is unknown")
    domain, _ = fields.spiffe(v[1], "sender")
    granter_domain, granter = fields.spiffe(v[2], "granter")
    if granter_domain != domain:
        raise Malformed("sender and granter are of different trust domains")
    terms = Terms(
        suite=part(fields.text(v[5], "suite")),
        topic=Topic.parse(fields.text(v[3], "topic")),
        epoch_id=fields.octets(v[7], "epoch id"),
        epoch_number=fields.uint(v[6], "epoch number"),
        sender=fields.text(v[1], "sender"),
        granter=fields.text(v[2], "granter"),
        trust_domain=domain,
        label=Label.parse(fields.text(v[4], "label")),
        policy_version=fields.uint(v[10], "policy version"),
    )
    found = Grant(
        terms=terms,
        granter=granter,
        start_hash=fields.octets(v[8], "epoch start hash"),
        result_id=fields.octets(v[9], "result id", fields.ID_BYTES),
        revocation_number=fields.uint(v[11], "revocation number"),
        recipients=record.read_recipients(v[12]),
        granted=fields.instant(v[13], "grant time"),
    )
    return OpenedGrant(grant=found, first=manifest.first, wraps=manifest.wraps, manifest=manifest)


def verify_grant(
    opened: OpenedGrant, result: Result, started: VerifiedStart, *, custodian: bool = False
) -> VerifiedGrant:
    """Check that the host of `result` signed this grant and that it fits its epoch start.

    Args:
        result: the granter's verified result, the one the grant names.
        started: the verified start of the epoch that the grant names.
        custodian: policy lets the host of `result` grant what another host has sent.

    Raises:
        PeerError: IDENTITY_MISMATCH, it is another host's, of another epoch, or by a host
            that is neither the epoch's sender nor a custodian; BAD_SIGNATURE.
    """
    found, terms, start = opened.grant, opened.grant.terms, started.start
    said = (terms.sender, terms.suite, terms.topic, terms.label, terms.epoch_number)
    if said != (start.sender_id, start.suite, start.topic, start.label, start.number):
        raise PeerError(Reason.IDENTITY_MISMATCH, "grant does not fit its epoch start")
    if (terms.epoch_id, found.start_hash) != (start.id, started.hash):
        raise PeerError(Reason.IDENTITY_MISMATCH, "grant does not fit its epoch start")
    if (found.granter, found.result_id) != (result.host, result.id):
        raise PeerError(Reason.IDENTITY_MISMATCH, "grant is not its result's host's")
    if found.granter != start.sender and not custodian:
        raise PeerError(Reason.IDENTITY_MISMATCH, "granter is neither sender nor custodian")
    suite = suite_of(start.suite)
    record.check_signed(
        opened.manifest, KIND, suite, of_use(result.keys, Use.SIGN, suite.signatures)
    )
    wraps = record.check_wraps(found.recipients, opened.first, opened.wraps)
    return VerifiedGrant(grant=found, result=result, wraps=wraps, proof=_PROOF)


def unwrap_secret(
    verified: VerifiedStart | VerifiedGrant, host: HostId, keys: Sequence[HpkeKey]
) -> EpochSecret:
    """Open this host's wrap in a start or grant and recompute the epoch's id from it.

    Args:
        keys: every HPKE key this host still holds, old ones included.

    Raises:
        DeniedError: GRANT_MISSING, no wrap is for this host and one of these keys.
        PeerError: OPEN_FAILED, whatever the cause.
    """
    if isinstance(verified, VerifiedStart):
        return record.unwrap_one(verified.start.terms, verified.wraps, host, keys)
    return record.unwrap_one(verified.grant.terms, verified.wraps, host, keys)
