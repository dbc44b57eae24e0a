"""Which topics a policy calls for, and which of them a host may read. Pure.

Topics are what design section 9 demands; a host's rights follow from its newest
result, lowered to what its approval says now.
"""

from collections.abc import Sequence
from datetime import datetime

from fabric.attest.members import MemberState
from fabric.authority.ledger_rows import HostEntry
from fabric.kafka.admin import TopicSpec
from fabric.model.errors import DeniedError, Malformed
from fabric.model.limits import EPOCH_AGE_S_MAX
from fabric.model.names import AUDIT, MEMBERS, RECEIPTS, RESULTS, HostId, grants_topic
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy

_MESSAGE_BYTES_MAX = 1_048_588
"""Kafka's own default; an envelope of limits.ENVELOPE_BYTES_MAX with its batch fits."""
_MEMBERS_SEGMENT_BYTES = 8 * 1024 * 1024
"""Heartbeats are compacted once their segment is full: about 40 minutes of them."""
_REPLICAS_FOR_TWO_IN_SYNC = 3


def specs(policy: Policy, replication_factor: int) -> Sequence[TopicSpec]:
    """Every topic of the policy: control topics, then each dataset's, with their settings."""
    in_sync = 2 if replication_factor >= _REPLICAS_FOR_TWO_IN_SYNC else 1
    retention_s = max((d.retention_s for d in policy.datasets.values()), default=0)
    members = {
        **_settings(in_sync, retention_s=None),
        "segment.bytes": str(_MEMBERS_SEGMENT_BYTES),
        "min.cleanable.dirty.ratio": "0.1",
    }
    results = _settings(in_sync, retention_s=retention_s + EPOCH_AGE_S_MAX)
    found = [
        TopicSpec(name=MEMBERS, partitions=1, settings=members),
        TopicSpec(name=RESULTS, partitions=1, settings=results),
        # Evidence about the data, so kept as long as the longest of it.
        TopicSpec(name=AUDIT, partitions=1, settings=results),
        TopicSpec(name=RECEIPTS, partitions=1, settings=results),
    ]
    for name in sorted(policy.datasets):
        dataset = policy.datasets[name]
        settings = _settings(in_sync, retention_s=dataset.retention_s)
        found.append(TopicSpec(name=name, partitions=dataset.partitions, settings=settings))
        if _is_sealed(policy, dataset):
            grants = grants_topic(dataset.topic)
            # An epoch's last block is up to a day younger than its start.
            longer = _settings(in_sync, retention_s=dataset.retention_s + EPOCH_AGE_S_MAX)
            found.append(TopicSpec(name=grants, partitions=1, settings=longer))
    return found


def rights(policy: Policy, entry: HostEntry | None, now: datetime) -> frozenset[str]:
    """Topics a host may read: none unless it is attested under an approval that holds.

    A result that has ended takes nothing away: a lapse stops new grants, and only
    ciphertext stays readable.
    """
    standing = _standing(policy, entry, now)
    if standing is None:
        return frozenset()
    found = {MEMBERS, RESULTS, AUDIT}
    for name, dataset in policy.datasets.items():
        if _may_read_or_produce(policy, dataset, standing, now):
            found.add(name)
            if _is_sealed(policy, dataset):
                found |= {grants_topic(dataset.topic), RECEIPTS}
    return frozenset(found)


def host_of(principal: str) -> HostId | None:
    """The host behind a broker principal, or None for a part of the platform."""
    try:
        return HostId.parse(principal.replace(":", "/"))
    except Malformed:
        return None


def is_attested(entry: HostEntry | None) -> bool:
    """Whether the ledger's last word on a host is a good quote."""
    return entry is not None and entry.state.state is MemberState.ATTESTED


def _standing(policy: Policy, entry: HostEntry | None, now: datetime) -> decide.Standing | None:
    if entry is None or entry.standing is None or not is_attested(entry):
        return None
    try:
        decide.approval_of(policy, entry.state.host, now)
    except DeniedError:
        return None
    return entry.standing


def _may_read_or_produce(
    policy: Policy, dataset: Dataset, standing: decide.Standing, now: datetime
) -> bool:
    if decide.read(policy, dataset, standing, now) is None:
        return True
    # As a reader of its own past would judge: the topic's suite may be deprecated by now.
    return decide.grant(policy, dataset, standing, suite=dataset.suite, now=now) is None


def _is_sealed(policy: Policy, dataset: Dataset) -> bool:
    return decide.rule_of(policy, dataset).sealed


def _settings(in_sync: int, *, retention_s: int | None) -> dict[str, str]:
    settings = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact" if retention_s is None else "delete",
        "compression.type": "uncompressed",
        "max.message.bytes": str(_MESSAGE_BYTES_MAX),
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(in_sync),
    }
    if retention_s is not None:
        settings["retention.ms"] = str(retention_s * 1000)
    return settings
