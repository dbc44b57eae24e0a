"""Who may read a topic now, by policy and members. Pure."""

from collections.abc import Mapping
from datetime import datetime

from fabric.agent.epoch_machine import Wanted
from fabric.attest.keys import PublicKey, Use
from fabric.attest.members import Members
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import HostId
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy
from fabric.seal.suites import suite_of


def named(policy: Policy, dataset: Dataset, members: Members) -> frozenset[HostId]:
    """Every consumer that the policy approves or the members know, attested or not."""
    known = {*policy.approvals, *members.hosts}
    return frozenset(host for host in known if decide.is_named(dataset, host))


def choose(
    policy: Policy, dataset: Dataset, members: Members, *, me: HostId | None, now: datetime
) -> tuple[Wanted, Mapping[HostId, PublicKey]]:
    """Everyone who may read `dataset` at `now`, with the key to wrap to; the sender too.

    Named consumer, clearance, effective level, and attested now: all of them, or a
    reason why not.

    Args:
        me: the sender, who need not be a consumer; None for a custodian, who must be.
    """
    keys: dict[HostId, PublicKey] = {}
    refused: dict[HostId, Reason] = {}
    for host in members.hosts:
        if host != me and not decide.is_named(dataset, host):
            refused[host] = Reason.NOT_A_CONSUMER
            continue
        try:
            keys[host] = _key(policy, dataset, members.current(host, now), me=me, now=now)
        except DeniedError as exc:
            refused[host] = exc.reason
    wanted = Wanted(
        hosts={host: key.thumbprint for host, key in keys.items()},
        refused=refused,
        retained=dataset.history == "retained",
        result_lifetime_s=decide.rule_of(policy, dataset).result_lifetime_s,
    )
    return wanted, keys


def _key(
    policy: Policy, dataset: Dataset, result: Result, *, me: HostId | None, now: datetime
) -> PublicKey:
    if result.host != me:  # the sender holds its own data in the clear anyway
        why = decide.read(policy, dataset, standing(result), now)
        if why is not None:
            raise DeniedError(why, "host may not read this dataset")
    kem = suite_of(dataset.suite).kem
    for key in result.keys:
        if key.use is Use.HPKE and key.alg == kem:
            return key
    raise DeniedError(Reason.SUITE_REFUSED, "host has no key of the suite's kind")
