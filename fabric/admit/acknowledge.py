"""What the audit topic and the receipts topic accept: heads of logs, receipts of readers.

Spec: docs/format.md sections 12 and 13.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

from fabric.admit.view import View
from fabric.attest.audit_head import parse_head, verify_head
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX, DELIVERY_S_DEFAULT
from fabric.model.names import HostId
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy
from fabric.seal.receipt import Receipt, parse_receipt, receipt_key, verify_receipt

AskOfReader: TypeAlias = Callable[[Policy, Dataset, decide.Standing, datetime], Reason | None]
"""`decide.read` or `decide.might_read`."""

_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)
_HEAD_AGE = timedelta(seconds=DELIVERY_S_DEFAULT)


def admit_head(key: bytes, value: bytes, view: View, *, identity: str, now: datetime) -> None:
    """Admit one record of the audit topic, written by `identity`.

    Raises:
        PeerError: MALFORMED, IDENTITY_MISMATCH, BAD_SIGNATURE.
        DeniedError: TOO_OLD, FROM_THE_FUTURE, RESULT_UNKNOWN, RESULT_EXPIRED, or what
            `Members.current` says of a host.
    """
    opened = parse_head(key, value)
    if opened.head.component != identity:
        raise PeerError(Reason.IDENTITY_MISMATCH, "audit head is another component's")
    if opened.head.host is not None:
        _check_current(view, opened.head.host, opened.head.result_id, now)
    verify_head(opened, view.policy.trust, view.members.result)
    if now - opened.head.at > _HEAD_AGE + _SKEW:
        raise DeniedError(Reason.TOO_OLD, "audit head was signed too long ago")
    _check_not_later(opened.head.at, now)


def admit_receipt(key: bytes, value: bytes, view: View, *, host: HostId, now: datetime) -> None:
    """Admit one record of the receipts topic, written by `host`.

    Raises:
        PeerError: MALFORMED, PARTITION_MISMATCH, IDENTITY_MISMATCH, BAD_SIGNATURE,
            SUITE_REFUSED.
        DeniedError: FROM_THE_FUTURE, RESULT_UNKNOWN, RESULT_EXPIRED, TOPIC_UNKNOWN,
            NOT_A_PRODUCER, or what policy and members say of the reader.
    """
    opened = parse_receipt(value)
    receipt = opened.receipt
    if receipt.reader != host.spiffe(view.policy.trust.trust_domain):
        raise PeerError(Reason.IDENTITY_MISMATCH, "receipt is another host's")
    if key != receipt_key(host, receipt.stream):
        raise PeerError(Reason.IDENTITY_MISMATCH, "receipt does not stand under its own key")
    current = _check_current(view, host, receipt.result_id, now)
    verify_receipt(opened, view.members.result(receipt.result_id), view.policy.trust.trust_domain)
    check_reader(receipt, current, view, ask=decide.read, at=now)
    _check_not_later(receipt.applied, now)


def check_reader(
    receipt: Receipt, result: Result, view: View, *, ask: AskOfReader, at: datetime
) -> None:
    """Hold a receipt against the policy: its reader may have the stream, which exists.

    Args:
        ask: `decide.read` of a receipt that comes now, `decide.might_read` of a stored one.
        at: the time that counts.

    Raises:
        PeerError: PARTITION_MISMATCH.
        DeniedError: TOPIC_UNKNOWN, POLICY_NEWER, NOT_A_PRODUCER, NOT_A_CONSUMER, ...
    """
    policy, stream = view.policy, receipt.stream
    if receipt.policy_version > policy.version:
        raise DeniedError(Reason.POLICY_NEWER, "policy of the reader is newer than ours")
    dataset = decide.dataset_of(policy, str(stream.topic))
    if stream.partition >= dataset.partitions:
        raise PeerError(Reason.PARTITION_MISMATCH, "dataset has fewer partitions")
    if stream.origin not in dataset.producers:
        raise DeniedError(Reason.NOT_A_PRODUCER, "receipt names an origin that does not produce")
    why = ask(policy, dataset, standing(result), at)
    if why is not None:
        raise DeniedError(why, f"policy does not let the reader have this: {why}")


def _check_current(view: View, host: HostId, result_id: bytes, now: datetime) -> Result:
    """The host's current result; the named one must still run and rest on the same approval."""
    current = view.members.current(host, now)
    named = view.members.result(result_id)
    if named.expires <= now or (named.host, named.approval) != (host, current.approval):
        raise DeniedError(Reason.RESULT_EXPIRED, "result that the record names has ended")
    return current


def _check_not_later(at: datetime, now: datetime) -> None:
    if at - now > _SKEW:
        raise DeniedError(Reason.FROM_THE_FUTURE, "record was signed in the future")
