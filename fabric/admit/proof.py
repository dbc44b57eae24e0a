"""What the log proves about one block: who sealed it, why it was allowed, who has it. Pure.

Every step is named, and the first that does not hold ends the proof with its name. A
proof trusts the policy and what the verifier signed; broker, gateway and the hosts it
is about prove nothing by saying so. Spec: docs/format.md sections 5, 6, 12 and 13.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from fabric.admit.acknowledge import check_reader
from fabric.admit.door import check_place, check_rules, parse_sealed
from fabric.admit.reader import admit_read
from fabric.admit.view import Place, View
from fabric.attest.result import standing
from fabric.model.errors import DeniedError, FabricError, Malformed, PeerError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.model.names import HostId
from fabric.policy import decide
from fabric.seal.epoch import VerifiedStart, parse_start, verify_start
from fabric.seal.grant import OpenedGrant, parse_grant, verify_grant
from fabric.seal.receipt import Receipt, parse_receipt, receipt_key, verify_receipt
from fabric.seal.record import Recipient
from fabric.seal.verify import VerifiedEnvelope, verify

_T = TypeVar("_T")
_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)


class Unproved(PeerError):
    """One step of a proof does not hold.

    Attributes:
        step: record, result, signatures, trust, policy, time, anchor, epoch or receipt.
    """

    def __init__(self, step: str, reason: Reason, message: str) -> None:
        super().__init__(reason, f"{step} does not hold: {message}")
        self.step = step


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """One reader's verified word.

    Attributes:
        by_hash: it names this very envelope; else its range covers the envelope's.
        offset: of the receipt on its topic.
    """

    reader: HostId
    receipt: Receipt
    by_hash: bool
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What holds of a block. Its receipts are those that were given, oldest first.

    Attributes:
        granted: who was given its epoch's secret, at the epoch's start and later.
    """

    verified: VerifiedEnvelope
    start: VerifiedStart
    granted: tuple[HostId, ...]
    receipts: tuple[Acknowledged, ...]


def prove_block(value: bytes, place: Place, view: View, *, appended: datetime) -> VerifiedEnvelope:
    """Check everything a reader checks, step by step.

    Args:
        appended: when the broker says that it stored the record.

    Raises:
        Unproved: the first step that does not hold.
    """
    envelope = _step("record", lambda: parse_sealed(value))
    _step("record", lambda: check_place(envelope, place))
    header, domain = envelope.header, view.policy.trust.trust_domain
    result = _step("result", lambda: view.members.result(header.result_id))
    verified = _step("signatures", lambda: verify(envelope, result, domain))
    why = view.members.was_trusted(result, header.sealed_at)
    if why is not None:
        raise Unproved("trust", why, "sender was not trusted when it sealed")
    at = header.sealed_at
    _step("policy", lambda: check_rules(verified, view, ask=decide.accept, at=at))
    return _step("time", lambda: admit_read(value, place, view, appended=appended))


def prove_start(
    verified: VerifiedEnvelope, records: Sequence[tuple[bytes, bytes]], view: View
) -> VerifiedStart:
    """Find the signed start of the block's epoch in the grants topic.

    Args:
        records: keys and values of the grants topic.

    Raises:
        Unproved: there is none that verifies and says the same as the header.
    """
    header = verified.envelope.header
    why: FabricError = DeniedError(Reason.EPOCH_START_MISSING, "grants topic holds no such start")
    for _, value in records:
        try:
            opened = parse_start(value)
        except FabricError:
            continue
        if opened.hash != header.start_hash:
            continue
        try:
            result = view.members.result(opened.start.result_id)
            found = verify_start(opened, result, view.policy.trust.trust_domain)
        except FabricError as exc:
            why = exc  # the hash covers no signature: a good copy may follow
            continue
        start = found.start
        said = (start.id, start.number, start.sender_id, start.topic, start.label, start.suite)
        if said != (
            header.epoch_id, header.epoch_number, header.sender, header.topic, header.label,
            header.suite,
        ):  # fmt: skip
            raise Unproved("epoch", Reason.FORK, "epoch start says other than the header")
        return found
    raise Unproved("epoch", why.reason, str(why.args[0]))


def prove_grants(
    start: VerifiedStart, records: Sequence[tuple[bytes, bytes]], view: View
) -> tuple[HostId, ...]:
    """Hosts that an epoch's secret was granted to, each once: by its start, then by later grants.

    A grant counts when its granter, the sender or a custodian, was trusted then and signed
    it. What is none, or does not verify, says nothing.

    Args:
        records: keys and values of the grants topic.
    """
    hosts = dict.fromkeys(recipient.host for recipient in start.start.recipients)
    for _, value in records:
        try:
            opened = parse_grant(value)
            if opened.grant.start_hash == start.hash:
                found = _granted(opened, start, view)
                hosts |= dict.fromkeys(recipient.host for recipient in found)
        except FabricError:
            continue
    return tuple(hosts)


def _granted(opened: OpenedGrant, start: VerifiedStart, view: View) -> Sequence[Recipient]:
    """Recipients of a grant that holds; raises FabricError."""
    grant = opened.grant
    result = view.members.result(grant.result_id)
    why = view.members.was_trusted(result, grant.granted)
    is_senders = grant.granter == start.start.sender
    if why is None and not is_senders:
        dataset = decide.dataset_of(view.policy, str(start.start.topic))
        suite, at = start.start.suite, grant.granted
        why = decide.accept_grant(view.policy, dataset, standing(result), suite=suite, now=at)
    if why is not None:
        raise DeniedError(why, "grant is not by a host that might give it")
    return verify_grant(opened, result, start, custodian=not is_senders).grant.recipients


def prove_receipt(
    key: bytes,
    value: bytes,
    verified: VerifiedEnvelope,
    view: View,
    *,
    offset: int,
    stored: datetime,
) -> Acknowledged | None:
    """Check a record of the receipts topic, if it says that a reader has this block.

    Args:
        offset, stored: where the record stands, and when the broker says it was stored.

    Returns:
        None for what is no receipt, or one of other blocks.

    Raises:
        Unproved: it claims this block, and is not what an attested consumer signed.
    """
    header = verified.envelope.header
    try:
        opened = parse_receipt(value)
    except FabricError:
        return None
    receipt = opened.receipt
    stream = receipt.stream
    if (stream.topic, stream.partition, stream.origin) != (
        header.topic, header.partition, header.origin,
    ):  # fmt: skip
        return None
    if not receipt.covers(header.upto, verified.envelope.hash):
        return None
    reader = _step("receipt", lambda: _check_receipt(key, value, view, stored))
    by_hash = verified.envelope.hash in {block.hash for block in receipt.blocks}
    return Acknowledged(reader=reader, receipt=receipt, by_hash=by_hash, offset=offset)


def _check_receipt(key: bytes, value: bytes, view: View, stored: datetime) -> HostId:
    opened = parse_receipt(value)
    receipt = opened.receipt
    result = view.members.result(receipt.result_id)
    verify_receipt(opened, result, view.policy.trust.trust_domain)
    if key != receipt_key(result.host, receipt.stream):
        raise Malformed("receipt does not stand under its own key")
    # What was applied may be older than the result that signs: it is the signing that counts.
    why = view.members.was_trusted(result, stored - _SKEW)
    if why is not None:
        raise DeniedError(why, "reader was not trusted when its receipt was stored")
    check_reader(receipt, result, view, ask=decide.might_read, at=receipt.applied)
    return result.host


def _step(name: str, check: Callable[[], _T]) -> _T:
    try:
        return check()
    except FabricError as exc:
        raise Unproved(name, exc.reason, str(exc.args[0])) from exc
