"""What a grants topic accepts: epoch starts of senders, grants of senders and custodians.

Spec: design sections 6, 7 and 9; docs/format.md section 6.
"""

from dataclasses import dataclass
from datetime import datetime

from fabric.admit.view import View
from fabric.attest.keys import Use, of_use
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.label import Label
from fabric.model.names import HostId, Topic
from fabric.policy import decide
from fabric.seal import epoch, grant, record
from fabric.seal.suites import suite_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """What epoch starts and grants both say."""

    kind: str
    key: bytes
    manifest: record.Manifest
    recipients: tuple[record.Recipient, ...]
    writer: str
    sender: str
    topic: Topic
    label: Label
    suite: str
    result_id: bytes
    policy_version: int
    revocation_number: int


def admit_grant(
    key: bytes, value: bytes, topic: Topic, view: View, *, host: HostId, now: datetime
) -> None:
    """Admit one record of the grants topic of `topic`, written by `host`.

    The signature is checked before anything is said about the host's rights. The
    recipients are the granter's answer to policy; whoever has the content could tell it
    to anyone, so nothing is won by judging them here.

    Raises:
        PeerError, DeniedError: see `door.admit_control`.
    """
    statement = _read(value)
    trust_domain = view.policy.trust.trust_domain
    if statement.topic != topic:
        raise PeerError(Reason.TOPIC_MISMATCH, "record is about another topic")
    if statement.writer != host.spiffe(trust_domain):
        raise PeerError(Reason.IDENTITY_MISMATCH, "record is another host's")
    if key != statement.key:
        raise PeerError(Reason.IDENTITY_MISMATCH, "record does not stand under its own key")
    current = view.members.current(host, now)
    named = view.members.result(statement.result_id)
    _check_signed(statement, named, host)
    if named.expires <= now or named.approval != current.approval:
        raise DeniedError(Reason.RESULT_EXPIRED, "result that the record names has ended")
    _check_numbers(statement, view)
    _check_rules(statement, view, current=current, now=now)


def _read(value: bytes) -> _Statement:
    kind = record.kind_of(value)
    if kind == epoch.KIND:
        opened = epoch.parse_start(value)
        start = opened.start
        return _Statement(
            kind=kind,
            key=epoch.start_key(start),
            manifest=opened.manifest,
            recipients=start.recipients,
            writer=start.sender_id,
            sender=start.sender_id,
            topic=start.topic,
            label=start.label,
            suite=start.suite,
            result_id=start.result_id,
            policy_version=start.policy_version,
            revocation_number=start.revocation_number,
        )
    if kind == grant.KIND:
        found = grant.parse_grant(value)
        terms = found.grant.terms
        return _Statement(
            kind=kind,
            key=grant.grant_key(found.grant.granter, terms.epoch_id),
            manifest=found.manifest,
            recipients=found.grant.recipients,
            writer=terms.granter,
            sender=terms.sender,
            topic=terms.topic,
            label=terms.label,
            suite=terms.suite,
            result_id=found.grant.result_id,
            policy_version=terms.policy_version,
            revocation_number=found.grant.revocation_number,
        )
    raise Malformed("record is neither an epoch start nor a grant")


def _check_signed(statement: _Statement, named: Result, host: HostId) -> None:
    if named.host != host:
        raise PeerError(Reason.IDENTITY_MISMATCH, "record names another host's result")
    suite = suite_of(statement.suite)
    keys = of_use(named.keys, Use.SIGN, suite.signatures)
    record.check_signed(statement.manifest, statement.kind, suite, keys)
    manifest = statement.manifest
    record.check_wraps(statement.recipients, manifest.first, manifest.wraps)


def _check_numbers(statement: _Statement, view: View) -> None:
    """A record made without knowing the last revocation may wrap for who was revoked."""
    if statement.policy_version > view.policy.version:
        raise DeniedError(Reason.POLICY_NEWER, "policy of the sender is newer than ours")
    seen = view.members.revocation_number
    if statement.revocation_number < seen:
        raise DeniedError(Reason.TOO_OLD, "record does not know the last revocation")
    if statement.revocation_number > seen:
        raise DeniedError(Reason.MEMBERS_STALE, "record knows a revocation that we do not")


def _check_rules(statement: _Statement, view: View, *, current: Result, now: datetime) -> None:
    dataset = decide.dataset_of(view.policy, str(statement.topic))
    if statement.label != dataset.label:
        raise DeniedError(Reason.LABEL_MISMATCH, "label is not the dataset's")
    ask = decide.publish  # a new epoch seals; a grant hands on what an older one has sealed
    if statement.kind == grant.KIND:
        ask = decide.grant if statement.writer == statement.sender else decide.custody
    why = ask(view.policy, dataset, standing(current), suite=statement.suite, now=now)
    if why is not None:
        what = "grant" if statement.kind == grant.KIND else "open epochs"
        raise DeniedError(why, f"policy does not let the host {what}: {why}")
