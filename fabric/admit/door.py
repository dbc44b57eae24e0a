"""What the gateway lets in: sealed envelopes, open records, control records.

`authenticate` says whose envelope it is, `permit` whether it may stand in its
topic now; between the two the gateway asks its replay memory. `check_rules` is
shared with admit/reader.py, so that gateway and readers judge alike. Everything
raises; nothing returns a verdict that could be overlooked. Whether the view
itself is fresh enough to judge by is for the gateway to ask first.
Spec: design section 9.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from fabric.admit.acknowledge import admit_head, admit_receipt
from fabric.admit.grants import admit_grant
from fabric.admit.view import Place, View
from fabric.attest.members import Members
from fabric.attest.result import standing
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX, ENVELOPE_BYTES_MAX, OPEN_RECORD_BYTES_MAX
from fabric.model.names import (
    AUDIT,
    AUTHORITY,
    GRANTS_PREFIX,
    MEMBERS,
    RECEIPTS,
    RESULTS,
    HostId,
    Topic,
)
from fabric.policy import decide
from fabric.policy.types import LevelRule, Policy
from fabric.seal import envelope as form
from fabric.seal.envelope import Envelope
from fabric.seal.verify import VerifiedEnvelope, verify

Ask: TypeAlias = Callable[..., Reason | None]
"""`decide.publish` or `decide.accept`."""

_SEALED_TAG = b"\xd8\x62"  # CBOR tag 98: a COSE_Sign
_MAGIC = b"\0"  # Confluent wire format: magic byte, then a schema id of four bytes
_FRAMING_BYTES = 5
_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)


def parse_sealed(value: bytes) -> Envelope:
    """Read what a sealed topic takes.

    Raises:
        PeerError: NOT_SEALED, it is something else; MALFORMED.
        DeniedError: TOO_LARGE.
    """
    if not value.startswith(_SEALED_TAG):
        raise PeerError(Reason.NOT_SEALED, "record is not a sealed envelope")
    if len(value) > ENVELOPE_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "envelope is too long")
    return form.parse(value)


def check_place(envelope: Envelope, place: Place) -> None:
    """Hold the header against where the record stands; raises PeerError."""
    header = envelope.header
    if str(header.topic) != place.topic:
        raise PeerError(Reason.TOPIC_MISMATCH, "header names another topic")
    if header.partition != place.partition:
        raise PeerError(Reason.PARTITION_MISMATCH, "header names another partition")


def check_rules(verified: VerifiedEnvelope, view: View, *, ask: Ask, at: datetime) -> None:
    """Hold an envelope against the policy, its sender standing as the named result says.

    Args:
        ask: `decide.publish` at the door, `decide.accept` for a reader.
        at: the time that counts: now at the door, the time of sealing for a reader.

    Raises:
        DeniedError: POLICY_NEWER (wait), TOPIC_UNKNOWN, NOT_A_PRODUCER, LABEL_MISMATCH,
            SCHEMA_UNKNOWN, or what `ask` says.
        PeerError: PARTITION_MISMATCH.
    """
    header, result, policy = verified.envelope.header, verified.result, view.policy
    if max(header.policy_version, result.policy_version) > policy.version:
        raise DeniedError(Reason.POLICY_NEWER, "policy of the sender is newer than ours")
    dataset = decide.dataset_of(policy, str(header.topic))
    if not decide.rule_of(policy, dataset).sealed:
        raise DeniedError(Reason.SUITE_REFUSED, "topic takes open records")
    if header.partition >= dataset.partitions:
        raise PeerError(Reason.PARTITION_MISMATCH, "dataset has fewer partitions")
    if header.origin not in decide.origins_of(dataset, result.host):
        raise DeniedError(Reason.NOT_A_PRODUCER, "origin is not a producer of this host's system")
    if header.label != dataset.label:
        raise DeniedError(Reason.LABEL_MISMATCH, "label is not the dataset's")
    decide.check_schema(dataset, header.fingerprint)
    refuse(ask(policy, dataset, standing(result), suite=header.suite, now=at))


def refuse(why: Reason | None) -> None:
    """Turn a verdict of policy into the error it stands for."""
    if why is not None:
        raise DeniedError(why, f"policy does not let the host publish: {why}")


def authenticate(
    value: bytes, place: Place, view: View, *, identity: HostId, now: datetime
) -> VerifiedEnvelope:
    """Find out that `identity`, a member now, sealed this envelope for this place.

    Raises:
        PeerError: NOT_SEALED, MALFORMED, TOPIC_MISMATCH, PARTITION_MISMATCH,
            IDENTITY_MISMATCH, BAD_SIGNATURE.
        DeniedError: TOO_LARGE, RESULT_UNKNOWN, SUITE_REFUSED, or what
            `Members.current` says.
    """
    envelope = parse_sealed(value)
    check_place(envelope, place)
    trust_domain = view.policy.trust.trust_domain
    if envelope.header.sender != identity.spiffe(trust_domain):
        raise PeerError(Reason.IDENTITY_MISMATCH, "sender is not the connection's identity")
    view.members.current(identity, now)
    return verify(envelope, view.members.result(envelope.header.result_id), trust_domain)


def permit(verified: VerifiedEnvelope, view: View, *, now: datetime) -> None:
    """Ask whether an authentic envelope may enter its topic now.

    The host is judged by its current result, and the envelope by the one it names,
    which must still run and rest on the same approval.

    Raises:
        DeniedError, PeerError: as `check_rules`; RESULT_EXPIRED, TOO_OLD,
            FROM_THE_FUTURE.
    """
    header, named = verified.envelope.header, verified.result
    current = view.members.current(named.host, now)
    if named.expires <= now or named.approval != current.approval:
        raise DeniedError(Reason.RESULT_EXPIRED, "result that the header names has ended")
    check_rules(verified, view, ask=decide.publish, at=now)
    dataset = decide.dataset_of(view.policy, str(header.topic))
    suite = header.suite
    refuse(decide.publish(view.policy, dataset, standing(current), suite=suite, now=now))
    check_age(header.sealed_at, decide.rule_of(view.policy, dataset), now=now)


def check_age(sealed_at: datetime, rule: LevelRule, *, now: datetime) -> None:
    """Raise DeniedError TOO_OLD or FROM_THE_FUTURE unless sealed within the delivery time."""
    if now - sealed_at > timedelta(seconds=rule.delivery_s):
        raise DeniedError(Reason.TOO_OLD, "envelope was sealed too long ago")
    if sealed_at - now > _SKEW:
        raise DeniedError(Reason.FROM_THE_FUTURE, "envelope was sealed in the future")


def admit_sealed(
    value: bytes, place: Place, view: View, *, identity: HostId, now: datetime
) -> VerifiedEnvelope:
    """Admit one record of a sealed topic, replays apart; raises as authenticate and permit."""
    verified = authenticate(value, place, view, identity=identity, now=now)
    permit(verified, view, now=now)
    return verified


@dataclass(frozen=True, slots=True)
class OpenTerms:
    """How every record of one open topic by one host must begin.

    Attributes:
        framing: magic byte and schema id.
        prefixes: framing and one of the host's origins as an Avro string.
    """

    framing: bytes
    prefixes: tuple[bytes, ...]

    def check(self, value: bytes) -> None:
        """Check one record: framing, schema id, origin; raises PeerError or DeniedError."""
        if value.startswith(self.prefixes):
            if len(value) > OPEN_RECORD_BYTES_MAX:
                raise DeniedError(Reason.TOO_LARGE, "record is too long")
            return
        if len(value) <= _FRAMING_BYTES or not value.startswith(_MAGIC):
            raise Malformed("record is not in Confluent's wire format")
        if not value.startswith(self.framing):
            raise DeniedError(Reason.SCHEMA_UNKNOWN, "schema id is not the dataset's")
        raise DeniedError(Reason.NOT_A_PRODUCER, "record's origin is not this host's system's")


def open_terms(place: Place, view: View, *, identity: HostId, now: datetime) -> OpenTerms:
    """What `identity` may write to an open topic: asked once a batch, not once a record.

    Raises:
        DeniedError: TOPIC_UNKNOWN, NOT_A_PRODUCER, POLICY_EXPIRED and others of
            `decide.publish`, or what `Members.current` says.
        PeerError: PARTITION_MISMATCH.
    """
    dataset = decide.dataset_of(view.policy, place.topic)
    if place.partition >= dataset.partitions:
        raise PeerError(Reason.PARTITION_MISMATCH, "dataset has fewer partitions")
    origins = decide.origins_of(dataset, identity)
    if not origins:
        raise DeniedError(Reason.NOT_A_PRODUCER, "host's system has no origin in this dataset")
    current = view.members.current(identity, now)
    refuse(decide.publish(view.policy, dataset, standing(current), suite=dataset.suite, now=now))
    framing = _MAGIC + dataset.schema_id.to_bytes(4)
    prefixes = tuple(framing + _avro_string(str(origin)) for origin in origins)
    return OpenTerms(framing=framing, prefixes=prefixes)


def _avro_string(text: str) -> bytes:
    """Avro's encoding: zigzag varint of the length in bytes, then the bytes."""
    data = text.encode()
    rest, out = len(data) << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out) + data


def admit_open(value: bytes, place: Place, view: View, *, identity: HostId, now: datetime) -> None:
    """Admit one record of an open topic; raises as `open_terms` and `OpenTerms.check`."""
    open_terms(place, view, identity=identity, now=now).check(value)


def is_control(topic: str) -> bool:
    """Whether a topic carries the fabric's own statements."""
    return topic in (MEMBERS, RESULTS, AUDIT, RECEIPTS) or topic.startswith(GRANTS_PREFIX)


def is_sealed(policy: Policy, topic: str) -> bool:
    """Whether a data topic takes envelopes; raises DeniedError TOPIC_UNKNOWN."""
    return decide.rule_of(policy, decide.dataset_of(policy, topic)).sealed


def is_authoritys(topic: str) -> bool:
    """Whether only the authority writes to a topic."""
    return topic in (MEMBERS, RESULTS)


def admit_control(
    key: bytes | None, value: bytes, topic: str, view: View, *, identity: str, now: datetime
) -> None:
    """Admit one record of a control topic.

    The authority's records are judged by signature alone: they must pass before the
    members' heartbeat is fresh, or nothing could ever start.

    Args:
        identity: `verifier`, or a host as `agency/system/host`.

    Raises:
        PeerError: IDENTITY_MISMATCH, MALFORMED, BAD_SIGNATURE, TOPIC_MISMATCH.
        DeniedError: RESULT_EXPIRED, RESULT_UNKNOWN, TOO_OLD, MEMBERS_STALE, and what
            policy and members say of the host.
    """
    if key is None or not key.startswith(f"{identity}/".encode()):
        raise PeerError(Reason.IDENTITY_MISMATCH, "key does not begin with the writer's identity")
    if is_authoritys(topic):
        if identity != AUTHORITY:
            raise PeerError(Reason.IDENTITY_MISMATCH, "topic is the authority's alone")
        Members(view.policy.trust).feed(topic, key, value)
        return
    if topic == AUDIT:
        admit_head(key, value, view, identity=identity, now=now)
        return
    if topic == RECEIPTS and identity != AUTHORITY:
        admit_receipt(key, value, view, host=HostId.parse(identity), now=now)
        return
    if not topic.startswith(GRANTS_PREFIX) or identity == AUTHORITY:
        raise PeerError(Reason.IDENTITY_MISMATCH, "topic is not this identity's to write")
    data_topic = Topic.parse(topic.removeprefix(GRANTS_PREFIX))
    admit_grant(key, value, data_topic, view, host=HostId.parse(identity), now=now)


__all__ = [
    "OpenTerms",
    "Place",
    "View",
    "admit_control",
    "admit_open",
    "admit_sealed",
    "authenticate",
    "is_authoritys",
    "is_control",
    "is_sealed",
    "open_terms",
    "permit",
]
