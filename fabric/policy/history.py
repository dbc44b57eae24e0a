"""Which blocks a newer policy makes unreadable: what its writers must know before they sign.

Readers judge a block by the policy in force when they come to it, not by the one that it
was sealed under (docs/adr/0028-history-is-judged-by-the-policy-in-force.md). So a step that
demands more also refuses what lies in the log already, to everyone who has not read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from fabric.model.names import HostId
from fabric.policy.decide import origins_of
from fabric.policy.types import Dataset, LevelRule, Policy, SuiteRule

REMEDY = (
    "first bring the senders to the new rule, or stop them; publish once fabric lag shows 0 records"
    " of the dataset on every consumer's host (docs/policy.md, A policy that refuses what lies"
    " in the log). Who is behind then gets the rows only when the sender's source is read anew"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One rule by which blocks of one dataset cannot be read any more.

    Attributes:
        topic: of the dataset.
        rule: file and key, and how it changes.
        hosts: of its producers, as the policy before approves them, whose blocks it
            refuses; none where only what was sent under an earlier approval can be.
    """

    topic: str
    rule: str
    hosts: tuple[HostId, ...]

    def __str__(self) -> str:
        whose = ", ".join(map(str, self.hosts)) or "hosts under earlier approvals"
        return (
            f"{self.topic}: {self.rule}: blocks of {whose} that are in the log become unreadable"
            " for those who have not read them"
        )

    def fields(self) -> dict[str, object]:
        """For programs."""
        return {"dataset": self.topic, "rule": self.rule, "hosts": [*map(str, self.hosts)]}


def cuts(before: Policy | None, after: Policy, now: datetime) -> tuple[Cut, ...]:
    """What the step from one policy to the next makes unreadable, by dataset.

    Args:
        before: the policy in force; None at the first publication.
        now: when the step is looked at; a suite's date that is to come refuses nothing yet.
    """
    found = []
    for topic, dataset in sorted(before.datasets.items() if before is not None else ()):
        assert before is not None
        senders = tuple(sorted(host for host in before.approvals if origins_of(dataset, host)))
        for rule, hosts in _of_dataset(before, after, dataset, senders, now):
            found.append(Cut(topic=topic, rule=rule, hosts=hosts))
    return tuple(found)


_Found = Iterator[tuple[str, tuple[HostId, ...]]]


def _of_dataset(
    before: Policy, after: Policy, dataset: Dataset, senders: tuple[HostId, ...], now: datetime
) -> _Found:
    topic = dataset.topic
    file = f"datasets/{topic.agency}/{topic.dataset}.yaml"
    kept = after.datasets.get(str(topic))
    if kept is None:
        yield f"{file}: is withdrawn or moves to another level", senders
        return
    for origin in dataset.producers:
        if origin not in kept.producers:
            system = (origin.agency, origin.system)
            hosts = tuple(host for host in senders if (host.agency, host.system) == system)
            yield f"{file}: producers: {origin} is taken out", hosts
    if kept.schema.fingerprint != dataset.schema.fingerprint:
        yield f"{file}: schema: changes", senders
    was, is_sealed = (policy.rules[topic.level].sealed for policy in (before, after))
    if was is not is_sealed:
        yield f"levels.yaml: {topic.level}.sealed: becomes {str(is_sealed).lower()}", senders
    elif is_sealed:
        yield from _of_trust(before, after, senders)
        yield from _of_sealed(file, dataset, kept, senders)
        yield from _of_level(before, after, dataset, senders)
        yield from _of_suites(before, after, dataset, senders, now)
    elif kept.schema_id != dataset.schema_id:
        yield f"{file}: schema_id: {dataset.schema_id} becomes {kept.schema_id}", senders


def _of_trust(before: Policy, after: Policy, senders: tuple[HostId, ...]) -> _Found:
    """Results are signed by exactly the verifier's keys or those of before, in its domain."""
    count = {after.trust.verifier_keys, after.trust.former_keys}
    if before.trust.verifier_keys not in count:
        yield "policy.yaml: trust.verifier.keys: are others", senders
    if before.trust.former_keys and before.trust.former_keys not in count:
        yield "policy.yaml: trust.verifier.former: loses keys", senders
    if before.trust.trust_domain != after.trust.trust_domain:
        yield "policy.yaml: trust.trust_domain: is another", senders


def _of_sealed(file: str, dataset: Dataset, kept: Dataset, senders: tuple[HostId, ...]) -> _Found:
    """What an envelope names of its dataset, and who may have granted its epoch."""
    if kept.label != dataset.label:
        yield f"{file}: label: {dataset.label} becomes {kept.label}", senders
    for name in dataset.custodians:
        system = "/".join(name.split("/")[:2])
        if not {name, system} & {*kept.custodians}:
            yield f"{file}: custodians: {name} is taken out, with what it granted", senders


def _of_level(
    before: Policy, after: Policy, dataset: Dataset, senders: tuple[HostId, ...]
) -> _Found:
    level = dataset.topic.level
    old, new = before.rules[level], after.rules[level]
    if new.host_level_min > old.host_level_min:
        low = (h for h in senders if before.approvals[h].security_level < new.host_level_min)
        change = f"rises from {old.host_level_min} to {new.host_level_min}"
        yield f"levels.yaml: {level}.host_level_min: {change}", tuple(low)
    for kind in sorted(old.evidence - new.evidence):
        yield f"levels.yaml: {level}.evidence: {kind} is taken out", senders
    if new.delivery_s < old.delivery_s:
        change = f"falls from {old.delivery_s} to {new.delivery_s}"
        yield f"levels.yaml: {level}.delivery_s: {change}", senders


def _of_suites(
    before: Policy, after: Policy, dataset: Dataset, senders: tuple[HostId, ...], now: datetime
) -> _Found:
    level = dataset.topic.level
    old, new = before.rules[level], after.rules[level]
    for suite in old.suites:
        was, stays = _opens(before, old, suite), _opens(after, new, suite)
        if was is None:
            continue
        if stays is None:
            rule = f"suites.yaml, levels.yaml: {suite} opens nothing at level {level} any more"
            yield rule, senders
        elif _ends_sooner(was, stays) and _has_ended(stays, now):
            # Also one that the dataset has left: when it did is known to nobody here.
            yield f"suites.yaml: {suite}.until: {stays.until} has passed", senders


def _ends_sooner(was: SuiteRule, stays: SuiteRule) -> bool:
    return stays.until is not None and (was.until is None or stays.until < was.until)


def _has_ended(rule: SuiteRule, now: datetime) -> bool:
    return rule.until is not None and rule.until < now


def _opens(policy: Policy, rule: LevelRule, suite: str) -> SuiteRule | None:
    """The rule of a suite that opens something at a level."""
    found = policy.suites.get(suite)
    if suite not in rule.suites or found is None or found.status == "refused":
        return None
    return found
