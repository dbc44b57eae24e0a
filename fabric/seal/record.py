"""The shape that epoch starts and grants share: one signed manifest, then its wraps.

A record's value is the array [signed manifest, first, [wrap, ...]]. The manifest is
signed once and holds the digest of every wrap; the wraps themselves follow unsigned,
those of the recipients from number `first` on. Where they are more than a record
holds, several records carry the same manifest, each with its share of the wraps.
Spec: docs/format.md section 6.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fabric.attest import cose
from fabric.attest.keys import PublicKey, Signer
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason, UsageError
from fabric.model.label import Label
from fabric.model.limits import (
    CBOR_ITEMS_MAX,
    CONTROL_RECORD_BYTES_MAX,
    RECIPIENTS_MAX,
    WRAPS_PER_RECORD_MAX,
)
from fabric.model.names import HostId, Topic
from fabric.seal import fields
from fabric.seal.hpke import SECRET_BYTES, HpkeKey, unwrap, wrap
from fabric.seal.secret import EpochSecret, epoch_id
from fabric.seal.suites import Suite, suite_of

_GRANT = "fabric-grant-v1"
_TYP = 16  # RFC 9596: tells an epoch start from a grant before anything is trusted
_FRAME_BYTES = 16  # heads of the array, the manifest, `first` and the list of wraps
_HEAD_BYTES = 5  # at most, of one wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One host that got a wrap, the key it was made for, and the wrap's SHA-256."""

    host: HostId
    thumbprint: bytes
    wrap_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A well-formed record of either kind; nobody has checked its signatures.

    Attributes:
        content: the payload's map, keys not yet checked.
        hash: over protected bucket and payload, never over signatures or wraps.
        first: number of the recipient whose wrap comes first.
    """

    signed: cose.Signed
    content: canonical.Value
    hash: bytes
    first: int
    wraps: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every wrap of one record is bound to, apart from its recipient.

    Attributes:
        sender: SPIFFE id of the host that opened the epoch.
        granter: SPIFFE id of the host that made the wraps.
        trust_domain: of both, and of every recipient.
    """

    suite: str
    topic: Topic
    epoch_id: bytes
    epoch_number: int
    sender: str
    granter: str
    trust_domain: str
    label: Label
    policy_version: int

    def info(self, host: HostId, thumbprint: bytes) -> bytes:
        """HPKE info of the wrap for one recipient."""
        return canonical.encode(
            [
                _GRANT,
                self.suite,
                str(self.topic),
                self.epoch_id,
                self.sender,
                self.granter,
                host.spiffe(self.trust_domain),
                thumbprint,
                str(self.label),
                self.policy_version,
            ]
        )


def wrap_all(
    terms: Terms, secret: EpochSecret, recipients: Sequence[tuple[HostId, PublicKey]]
) -> tuple[tuple[Recipient, ...], tuple[bytes, ...]]:
    """Wrap the secret for each recipient, in rising order of host name.

    Raises:
        DeniedError: TOO_LARGE, more recipients than one manifest names: grant to the rest.
        UsageError: no recipient, a host named twice, or a key of another KEM than the suite's.
    """
    if len(recipients) > RECIPIENTS_MAX:
        raise DeniedError(Reason.TOO_LARGE, "too many recipients for one manifest")
    kem = suite_of(terms.suite).kem
    ordered = sorted(recipients, key=lambda pair: str(pair[0]))
    if len({host for host, _ in ordered}) != len(ordered) or not ordered:
        raise UsageError(Reason.INTERNAL, "recipients must be hosts, each named once")
    if any(key.alg != kem for _, key in ordered):
        raise UsageError(Reason.INTERNAL, "recipient's key is not of the suite's kind")
    wraps = tuple(
        wrap(key, secret.private_bytes(), terms.info(host, key.thumbprint)) for host, key in ordered
    )
    named = tuple(
        Recipient(host=host, thumbprint=key.thumbprint, wrap_digest=_sha256(wrapped))
        for (host, key), wrapped in zip(ordered, wraps, strict=True)
    )
    return named, wraps


def write(
    kind: str,
    content: Mapping[int, canonical.Value],
    wraps: Sequence[bytes],
    signers: Sequence[Signer],
) -> tuple[tuple[bytes, ...], bytes]:
    """Sign a manifest once and put its wraps behind it: (record values, manifest's hash).

    Raises:
        DeniedError: TOO_LARGE, not even one wrap fits beside the manifest.
    """
    protected = canonical.encode({_TYP: kind})
    payload = canonical.encode(content)
    signed = cose.sign(kind, protected, payload, signers)
    shares = _shares(wraps, CONTROL_RECORD_BYTES_MAX - _FRAME_BYTES - len(signed))
    values = tuple(
        canonical.encode([signed, first, list(wraps[first:end])]) for first, end in shares
    )
    return values, _hash(kind, protected, payload)


def _shares(wraps: Sequence[bytes], room: int) -> list[tuple[int, int]]:
    """Cut the wraps into records: (first, end) of each, none longer than `room` bytes."""
    shares: list[tuple[int, int]] = []
    first, used = 0, 0
    for at, wrapped in enumerate(wraps):
        size = len(wrapped) + _HEAD_BYTES
        if size > room:
            raise DeniedError(Reason.TOO_LARGE, "record is too long")
        if used + size > room or at - first == WRAPS_PER_RECORD_MAX:
            shares.append((first, at))
            first, used = at, 0
        used += size
    return [*shares, (first, len(wraps))]


def kind_of(value: bytes) -> str:
    """`epoch-start`, `grant`, or whatever else the record calls itself; raises Malformed."""
    return fields.text(_read(value)[0].protected[_TYP], "record type")


def read(kind: str, value: bytes) -> Manifest:
    """Read a record of `kind` without trusting it; raises Malformed."""
    signed, first, wraps = _read(value)
    if signed.protected[_TYP] != kind:
        raise Malformed(f"record is not of type {kind}")
    return Manifest(
        signed=signed,
        content=canonical.decode(signed.payload, items_max=CBOR_ITEMS_MAX),
        hash=_hash(kind, signed.protected_bytes, signed.payload),
        first=first,
        wraps=wraps,
    )


def read_recipients(value: canonical.Value) -> tuple[Recipient, ...]:
    """The recipients of a manifest: at least one, rising by host name; raises Malformed."""
    items = fields.array(value, RECIPIENTS_MAX, "recipients")
    recipients = tuple(_recipient(item) for item in items)
    names = [str(recipient.host) for recipient in recipients]
    if not names or any(left >= right for left, right in pairwise(names)):
        raise Malformed("recipients are missing, repeated or out of order")
    return recipients


def write_recipients(recipients: Sequence[Recipient]) -> list[canonical.Value]:
    """Undo `read_recipients`."""
    return [[str(r.host), r.thumbprint, r.wrap_digest] for r in recipients]


def check_wraps(
    recipients: Sequence[Recipient], first: int, wraps: Sequence[bytes]
) -> Mapping[HostId, tuple[bytes, bytes]]:
    """Hold a record's unsigned wraps against the signed digests.

    Args:
        first: number of the recipient that the first wrap is for.

    Returns:
        Per recipient host of this record the key's thumbprint and the wrap.

    Raises:
        PeerError: BAD_SIGNATURE.
    """
    served = recipients[first : first + len(wraps)]
    if len(wraps) != len(served) or any(
        _sha256(wrapped) != recipient.wrap_digest
        for wrapped, recipient in zip(wraps, served, strict=True)
    ):
        raise PeerError(Reason.BAD_SIGNATURE, "wraps are not the ones that were signed")
    return {
        recipient.host: (recipient.thumbprint, wrapped)
        for recipient, wrapped in zip(served, wraps, strict=True)
    }


def unwrap_one(
    terms: Terms,
    wraps: Mapping[HostId, tuple[bytes, bytes]],
    host: HostId,
    keys: Sequence[HpkeKey],
) -> EpochSecret:
    """Open this host's wrap and hold the secret against the epoch's id.

    Args:
        wraps: per host the key's thumbprint and the wrap, already verified.
        keys: this host's HPKE keys, old ones included.

    Raises:
        DeniedError: GRANT_MISSING, no wrap is for this host and one of its keys.
        PeerError: OPEN_FAILED.
    """
    thumbprint, wrapped = wraps.get(host, (b"", b""))
    key = next((key for key in keys if key.public.thumbprint == thumbprint), None)
    if key is None:
        raise DeniedError(Reason.GRANT_MISSING, "no wrap is for a key of this host")
    data = unwrap(key, wrapped, terms.info(host, thumbprint))
    if len(data) != SECRET_BYTES:
        raise PeerError(Reason.OPEN_FAILED, "wrap does not open")
    secret = EpochSecret(data)
    kdf = suite_of(terms.suite).kdf
    ident = epoch_id(secret, terms.sender, str(terms.topic), terms.epoch_number, kdf=kdf)
    if ident != terms.epoch_id:
        raise PeerError(Reason.OPEN_FAILED, "wrap does not open")
    return secret


def check_signed(manifest: Manifest, kind: str, suite: Suite, keys: Sequence[PublicKey]) -> None:
    """Verify the manifest's signatures: exactly the suite's, by `keys`."""
    if tuple(key.alg for key in keys) != suite.signatures:
        raise PeerError(Reason.BAD_SIGNATURE, "signatures are not exactly the suite's")
    cose.check(manifest.signed, kind, keys)


def _read(value: bytes) -> tuple[cose.Signed, int, tuple[bytes, ...]]:
    if len(value) > CONTROL_RECORD_BYTES_MAX:
        raise Malformed("record is too long")
    match canonical.decode(value, items_max=WRAPS_PER_RECORD_MAX + 4):
        case [bytes() as data, int() as first, list() as wraps] if (
            0 <= first < RECIPIENTS_MAX and 1 <= len(wraps) <= WRAPS_PER_RECORD_MAX
        ):
            pass
        case _:
            raise Malformed("record is not a manifest with its wraps")
    signed = cose.parse(data)
    if signed.protected.keys() != {_TYP}:
        raise Malformed("protected bucket does not hold exactly the type")
    return signed, first, tuple(_wrap(item) for item in wraps)


def _wrap(value: canonical.Value) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("wrap is not a byte string")
    return value


def _recipient(value: canonical.Value) -> Recipient:
    match value:
        case [str() as host, bytes() as thumbprint, bytes() as digest]:
            return Recipient(
                host=HostId.parse(host),
                thumbprint=fields.octets(thumbprint, "thumbprint"),
                wrap_digest=fields.octets(digest, "wrap digest"),
            )
    raise Malformed("recipient has a wrong shape")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _hash(kind: str, protected: bytes, payload: bytes) -> bytes:
    return _sha256(f"fabric-{kind}-hash-v1".encode() + _sha256(protected) + _sha256(payload))
