"""Who may do what, by a policy: total functions from facts to a verdict.

A verdict is None (allowed) or the Reason of the refusal. Whatever a policy does
not allow is refused; a contradiction between facts and policy is refused too.

What a host may do now (`publish`, `grant`, `custody`, `read`) is asked twice: of its
attestation result, and of what the policy approves it for now. The lower one counts, so
an approval that is withdrawn or lowered counts with the policy that says so, and one that
is raised with the next result. What a host once did (`accept`, `accept_grant`,
`might_read`) is judged by the result of then: history outlives an approval.
"""

import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.label import Label, dominates
from fabric.model.names import HostId, Origin, Stream, piece
from fabric.policy.types import Approval, Dataset, LevelRule, Policy, SuiteRule

_USABLE = frozenset({"approved", "deprecated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an attestation result says of a host.

    Attributes:
        level: effective host level, 1..5.
        clearance: the highest label it may hold.
        evidence: evidence kind, for example `tpm2`.
        policy_version: of the policy that the result was given under; 0 when not known.
    """

    host: HostId
    level: int
    clearance: Label
    evidence: str
    policy_version: int = 0


def dataset_of(policy: Policy, topic: str) -> Dataset:
    """The dataset of a topic; raises DeniedError TOPIC_UNKNOWN."""
    found = policy.datasets.get(topic)
    if found is None:
        raise DeniedError(
            Reason.TOPIC_UNKNOWN,
            f"{piece(topic)} belongs to no dataset of the policy; correct it, or have the dataset"
            " published",
        )
    return found


def rule_of(policy: Policy, dataset: Dataset) -> LevelRule:
    """The rule of the dataset's level; raises DeniedError TOPIC_UNKNOWN."""
    rule = policy.rules.get(dataset.topic.level)
    if rule is None:
        raise DeniedError(Reason.TOPIC_UNKNOWN, "level of the dataset is not in the policy")
    return rule


def is_named(dataset: Dataset, host: HostId) -> bool:
    """Whether the dataset names the host, or its system, as a consumer."""
    names = _names(dataset.consumers)
    return f"{host.agency}/{host.system}" in names or str(host) in names


def is_custodian(dataset: Dataset, host: HostId) -> bool:
    """Whether the dataset names the host, or its system, as a custodian."""
    names = _names(dataset.custodians)
    return f"{host.agency}/{host.system}" in names or str(host) in names


@lru_cache(maxsize=1_024)
def _names(names: tuple[str, ...]) -> frozenset[str]:
    """A list of a dataset as a set: it is asked once for each of a thousand hosts."""
    return frozenset(names)


def origins_of(dataset: Dataset, host: HostId) -> tuple[Origin, ...]:
    """The dataset's producers that belong to the host's system."""
    mine = (host.agency, host.system)
    return tuple(o for o in dataset.producers if (o.agency, o.system) == mine)


def streams_of(policy: Policy, host: HostId) -> int:
    """How many streams the policy lets the host's system fill, in all datasets."""
    datasets = policy.datasets.values()
    return sum(len(origins_of(dataset, host)) * dataset.partitions for dataset in datasets)


def is_stream_of(policy: Policy, host: HostId, stream: Stream) -> bool:
    """Whether it is one of those."""
    dataset = policy.datasets.get(str(stream.topic))
    if dataset is None or stream.partition >= dataset.partitions:
        return False
    return stream.origin in origins_of(dataset, host)


def publish(
    policy: Policy, dataset: Dataset, standing: Standing, *, suite: str, now: datetime
) -> Reason | None:
    """Whether a host may send to a dataset now: for senders and the gateway.

    Args:
        suite: id of the suite that seals; empty for the open form. It must be the
            dataset's own, still approved, and its date not reached.
    """
    if suite != dataset.suite or not _may_seal(policy, dataset, suite, now):
        return _expired(policy, now) or Reason.SUITE_REFUSED
    return _send(policy, dataset, standing, now) or why_not_approved(policy, dataset, standing, now)


def accept(
    policy: Policy, dataset: Dataset, standing: Standing, *, suite: str, now: datetime
) -> Reason | None:
    """Whether what a host once sent may be opened: for readers.

    As `publish`, but history stays readable when the dataset moves to another suite:
    any suite of its level is taken, approved or deprecated, if it sealed before its date.

    Args:
        now: when it was sealed.
    """
    if not _could_seal(policy, dataset, suite, now):
        return _expired(policy, now) or Reason.SUITE_REFUSED
    return _send(policy, dataset, standing, now)


def grant(
    policy: Policy, dataset: Dataset, standing: Standing, *, suite: str, now: datetime
) -> Reason | None:
    """Whether a host may hand on the secret of an epoch that it once opened.

    As `accept`, whenever the suite's date is: who joins late gets the wraps of an old
    epoch, and what was sealed in it too late opens for nobody all the same.
    """
    if _suite(policy, dataset, suite) is None:
        return _expired(policy, now) or Reason.SUITE_REFUSED
    return _send(policy, dataset, standing, now) or why_not_approved(policy, dataset, standing, now)


def custody(
    policy: Policy, dataset: Dataset, standing: Standing, *, suite: str, now: datetime
) -> Reason | None:
    """Whether a host may grant what another has sent: a custodian that may have it itself.

    Args:
        suite: of the epoch; judged as in `grant`.
    """
    why = accept_grant(policy, dataset, standing, suite=suite, now=now)
    return why or why_not_approved(policy, dataset, standing, now)


def accept_grant(
    policy: Policy, dataset: Dataset, standing: Standing, *, suite: str, now: datetime
) -> Reason | None:
    """Whether what a custodian once granted counts: for readers.

    Args:
        suite: of the epoch; judged as in `grant`.
        now: when it was granted.
    """
    if not is_custodian(dataset, standing.host):
        return _expired(policy, now) or Reason.NOT_A_CUSTODIAN
    if _suite(policy, dataset, suite) is None:
        return _expired(policy, now) or Reason.SUITE_REFUSED
    return might_read(policy, dataset, standing, now)


def read(policy: Policy, dataset: Dataset, standing: Standing, now: datetime) -> Reason | None:
    """Whether a host may have what is in a dataset now."""
    why = might_read(policy, dataset, standing, now)
    return why or why_not_approved(policy, dataset, standing, now)


def might_read(
    policy: Policy, dataset: Dataset, standing: Standing, now: datetime
) -> Reason | None:
    """Whether a host might have what was in a dataset, by its result of then alone.

    Args:
        now: the time that counts.
    """
    if not is_named(dataset, standing.host):
        return _expired(policy, now) or Reason.NOT_A_CONSUMER
    return _expired(policy, now) or _stands(policy, dataset, standing)


def why_not_approved(
    policy: Policy, dataset: Dataset, standing: Standing, now: datetime
) -> Reason | None:
    """What keeps the policy from approving a host for a dataset now, whatever its result says.

    Where the result was given under a newer policy than ours, so may its approval be:
    that is POLICY_NEWER, and to be waited for.
    """
    try:
        approval = _approval(policy, standing.host, now)
    except DeniedError as exc:
        why: Reason | None = exc.reason
    else:
        level, clearance = approval.security_level, approval.clearance
        why = _stands(policy, dataset, replace(standing, level=level, clearance=clearance))
    is_newer = standing.policy_version > policy.version
    return Reason.POLICY_NEWER if why is not None and is_newer else why


def check_current(policy: Policy, now: datetime) -> None:
    """Stop protected work under an old policy; raises DeniedError POLICY_EXPIRED."""
    if _expired(policy, now) is not None:
        raise DeniedError(Reason.POLICY_EXPIRED, "policy has expired; publish a newer version")


def approval_of(policy: Policy, host: HostId, now: datetime) -> Approval:
    """The host's approval, valid at `now`.

    Raises:
        DeniedError: NOT_APPROVED (none, or not valid yet), APPROVAL_EXPIRED,
            POLICY_EXPIRED.
    """
    check_current(policy, now)
    return _approval(policy, host, now)


def _approval(policy: Policy, host: HostId, now: datetime) -> Approval:
    approval = policy.approvals.get(host)
    if approval is None:
        raise DeniedError(Reason.NOT_APPROVED, "host has no approval in the policy")
    if now < approval.not_before:
        raise DeniedError(Reason.NOT_APPROVED, "approval of the host does not hold yet")
    if now >= approval.not_after:
        raise DeniedError(Reason.APPROVAL_EXPIRED, "approval of the host has ended")
    return approval


def check_schema(dataset: Dataset, fingerprint: bytes) -> None:
    """Demand the dataset's own schema; raises DeniedError SCHEMA_UNKNOWN."""
    if not hmac.compare_digest(dataset.schema.fingerprint, fingerprint):
        raise DeniedError(Reason.SCHEMA_UNKNOWN, "schema is not the dataset's")


def _expired(policy: Policy, now: datetime) -> Reason | None:
    return Reason.POLICY_EXPIRED if now >= policy.expires else None


def _send(policy: Policy, dataset: Dataset, standing: Standing, now: datetime) -> Reason | None:
    if not origins_of(dataset, standing.host):
        return _expired(policy, now) or Reason.NOT_A_PRODUCER
    return _expired(policy, now) or _stands(policy, dataset, standing)


def _stands(policy: Policy, dataset: Dataset, standing: Standing) -> Reason | None:
    rule = policy.rules.get(dataset.topic.level)
    if rule is None:
        return Reason.TOPIC_UNKNOWN
    if standing.evidence not in rule.evidence:
        return Reason.EVIDENCE_REFUSED
    if standing.level < rule.host_level_min:
        return Reason.LEVEL_TOO_LOW
    try:
        is_cleared = dominates(policy.levels, standing.clearance, dataset.label)
    except Malformed:  # the clearance names a level that this policy no longer has
        is_cleared = False
    return None if is_cleared else Reason.CLEARANCE_TOO_LOW


def suites_of(policy: Policy, host: HostId) -> tuple[str, ...]:
    """Suites that a host needs keys for: of every sealed level that it may hold, in their order.

    Deprecated ones are among them, because what they sealed is still granted and opened.
    A host without an approval needs none.
    """
    approval = policy.approvals.get(host)
    if approval is None:
        return ()
    try:
        rank = policy.levels.rank(approval.clearance.level)
    except Malformed:
        return ()
    found: dict[str, None] = {}
    for name in policy.levels.names[: rank + 1]:
        rule = policy.rules.get(name)
        if rule is not None and rule.host_level_min <= approval.security_level:
            found |= dict.fromkeys(rule.suites)
    return tuple(suite for suite in found if _usable(policy, suite) is not None)


_OPEN = SuiteRule(id="", status="approved")
"""What stands for the open form: no cipher, always allowed where the level is open."""


def _may_seal(policy: Policy, dataset: Dataset, suite: str, now: datetime) -> bool:
    rule = _suite(policy, dataset, suite)
    return rule is not None and rule.status == "approved" and _is_before(rule, now)


def _could_seal(policy: Policy, dataset: Dataset, suite: str, then: datetime) -> bool:
    rule = _suite(policy, dataset, suite)
    return rule is not None and _is_before(rule, then)


def _is_before(rule: SuiteRule, when: datetime) -> bool:
    if rule.until is None:
        return rule.status == "approved"
    return when < rule.until


def _suite(policy: Policy, dataset: Dataset, suite: str) -> SuiteRule | None:
    """The rule of a suite that the dataset's level has and that is not refused."""
    rule = policy.rules.get(dataset.topic.level)
    if rule is None:
        return None
    if not rule.sealed:
        return _OPEN if suite == "" else None
    return _usable(policy, suite) if suite in rule.suites else None


def _usable(policy: Policy, suite: str) -> SuiteRule | None:
    found = policy.suites.get(suite)
    return found if found is not None and found.status in _USABLE else None
