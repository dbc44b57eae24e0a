"""What only the writer of a policy can check: the time, and the step from the policy before.

A reader takes expired approvals, because old records are verified against them; and it
may not have seen the policy before. So these checks stand at signing and publication.
"""

from datetime import datetime

from cryptography import x509

from fabric.model.names import Topic
from fabric.policy.compatible import why_not
from fabric.policy.documents import invalid
from fabric.policy.floors import check_kept, name_of
from fabric.policy.types import Approval, Dataset, Policy, Trust

_ANOTHER = "publish a new dataset under another name, and withdraw this one when it is read"


def review(before: Policy | None, after: Policy, now: datetime) -> None:
    """Refuse a policy that must not be published.

    Args:
        before: the policy in force; None at the first publication.

    Raises:
        UsageError: POLICY_INVALID, `<file>: <key>: cause and remedy`.
    """
    for rule in after.rules.values():
        for place in rule.basis:
            if place.until is not None and now.date() >= place.until:
                raise invalid(
                    "levels.yaml",
                    f"{rule.name}.basis",
                    f"{place.act}, {place.place}, ended on {place.until}; cite what replaced it",
                )
    for host, approval in after.approvals.items():
        if now >= approval.not_after:
            raise invalid(
                f"approvals/{host}.yaml", "not_after", "has passed; renew it or remove the file"
            )
    _check_makers(after.trust)
    # By name, not by topic: a dataset that moves to another level keeps its past.
    known = {} if before is None else {_file(item.topic): item for item in before.datasets.values()}
    for dataset in after.datasets.values():
        file = _file(dataset.topic)
        if file in known:
            _check_step(file, known[file], dataset)
    if before is not None:
        check_kept(
            before.floors,
            after.floors,
            levels=after.levels,
            releases=after.releases,
            datasets=frozenset(name_of(item.topic) for item in after.datasets.values()),
        )


def later(before: Policy | None, after: Policy) -> tuple[str, ...]:
    """Changes of approvals that count only with the host's next result, a sentence each."""
    found = []
    if before is not None and _makers(before.trust) - _makers(after.trust):
        found.append(
            "policy.yaml: trust.ek_ca: a maker of TPMs is taken out: hosts with such a TPM get no"
            " new result, and lose the last one when it ends"
        )
    for host, approval in sorted(after.approvals.items()):
        known = None if before is None else before.approvals.get(host)
        if known is not None and _proof(known) != _proof(approval):
            found.append(
                f"approvals/{host}.yaml: accepted states or TPM: count with the host's next result;"
                " until then its last one stands, and only fabric authority suspend or revoke"
                " stops it"
            )
    return tuple(found)


def _makers(trust: Trust) -> frozenset[x509.Certificate]:
    return frozenset(x509.load_pem_x509_certificates(trust.ek_ca_pem))


def _check_makers(trust: Trust) -> None:
    """Without a root every TPM is of an unknown maker, and no host attests any more."""
    if not any(item.issuer == item.subject for item in _makers(trust)):
        raise invalid(
            "policy.yaml", "trust.ek_ca", "names no self-issued certificate; add a maker's root"
        )


def _proof(approval: Approval) -> tuple[object, ...]:
    """What a host must show of itself, and is not asked again before it renews."""
    states = (approval.pcrs, frozenset(approval.digests), approval.event_rules)
    return approval.ek_sha256, approval.ak_name, states


def _check_step(file: str, before: Dataset, after: Dataset) -> None:
    problem = why_not(before.schema, after.schema)
    if problem is not None:
        raise invalid(file, "schema", problem)
    # A key's changes have an order within one stream alone: readers apply what lies on the
    # partition where the key was beside what comes on the one where it is now.
    if after.partitions != before.partitions:
        raise invalid(file, "partitions", f"must stay {before.partitions}; {_ANOTHER}")
    if after.salt != before.salt:
        raise invalid(file, "salt", f"must stay as published; {_ANOTHER}")


def _file(topic: Topic) -> str:
    return f"datasets/{topic.agency}/{topic.dataset}.yaml"
