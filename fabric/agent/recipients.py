"""Who may read a topic now, by policy and members. Pure."""

from collections.abc import Mapping
from datetime import datetime

from fabric.agent.epoch_machine import Wanted
from fabric.attest.keys import Kem, PublicKey, Use
from fabric.attest.members import Members
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import HostId
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy
from fabric.seal.hpke import check_recipient
from fabric.seal.suites import suite_of


def named(policy: Policy, dataset: Dataset, members: Members) -> frozenset[HostId]:
    """Every consumer that the policy approves or the members know, attested or not."""
    known = {*policy.approvals, *members.hosts}
    return frozenset(host for host in known if decide.is_named(dataset, host))


def choose(
    policy: Policy,
    dataset: Dataset,
    members: Members,
    *,
    me: HostId | None,
    now: datetime,
    suite: str | None = None,
) -> tuple[Wanted, Mapping[HostId, PublicKey]]:
    """Everyone who may read `dataset` at `now`, with the key to wrap to; the sender too.

    Named consumer, clearance, effective level, attested now, and a key that takes a
    wrap: all of them, or a reason why not. A key that takes none costs its own host the
    dataset, and nobody else.

    Args:
        me: the sender, who need not be a consumer; None for a custodian, who must be.
        suite: of the epoch to wrap; the dataset's own when None.
    """
    kem = suite_of(dataset.suite if suite is None else suite).kem
    keys: dict[HostId, PublicKey] = {}
    refused: dict[HostId, Reason] = {}
    for host in members.hosts:
        if host != me and not decide.is_named(dataset, host):
            refused[host] = Reason.NOT_A_CONSUMER
            continue
        try:
            result = members.current(host, now)
            _check(policy, dataset, result, me=me, now=now)
            keys[host] = _key(result, kem)
        except (DeniedError, PeerError) as exc:
            refused[host] = exc.reason
    wanted = Wanted(
        hosts={host: key.thumbprint for host, key in keys.items()},
        refused=refused,
        retained=dataset.history == "retained",
        result_lifetime_s=decide.rule_of(policy, dataset).result_lifetime_s,
    )
    return wanted, keys


def _check(
    policy: Policy, dataset: Dataset, result: Result, *, me: HostId | None, now: datetime
) -> None:
    if result.host == me:  # the sender holds its own data in the clear anyway
        return
    why = decide.read(policy, dataset, standing(result), now)
    if why is not None:
        raise DeniedError(why, "host may not read this dataset")


def _key(result: Result, kem: Kem) -> PublicKey:
    for key in result.keys:
        if key.use is Use.HPKE and key.alg == kem:
            check_recipient(key)
            return key
    raise DeniedError(Reason.SUITE_REFUSED, "host has no key of the suite's kind")
