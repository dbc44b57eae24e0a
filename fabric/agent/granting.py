"""Write starts and grants to a topic's grants topic, as its sender or as a custodian.

The same bytes go out until they are acknowledged. A grant that admission refuses
because the world has moved on (a new revocation, a newer policy) is no failure of
its dataset: the next look makes it anew. A sweep for late recipients takes a while,
so each grant says by which numbers its recipients were chosen, and none is made when
those are no longer the view's: whoever was chosen may be revoked by now.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.agent.host import Host
from fabric.agent.refusal_machine import pause_s
from fabric.agent.view import WorldView
from fabric.attest.keys import PublicKey
from fabric.attest.result import Result
from fabric.model.errors import (
    DeniedError,
    PeerError,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.model.limits import EPOCH_AGE_S_MAX, RECIPIENTS_MAX
from fabric.model.names import HostId, Topic, grants_topic
from fabric.policy.types import Dataset
from fabric.seal.epoch import VerifiedStart
from fabric.seal.grant import GrantDraft, grant, grant_key
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of

_APPEND_TRIES_MAX = 30
_LOUD = frozenset({ReasonClass.HOLD, ReasonClass.NEVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What recipients are chosen by; take it before choosing them.

    Attributes:
        policy_version: of the view's policy.
        revocation_number: of the last notice in the view.
    """

    dataset: Dataset
    policy_version: int
    revocation_number: int

    @classmethod
    def of(cls, view: WorldView, dataset: Dataset) -> "Asked":
        """The view's numbers now, beside the dataset that recipients are chosen for."""
        return cls(
            dataset=dataset,
            policy_version=view.policy.version,
            revocation_number=view.members.revocation_number,
        )

    def check(self, view: WorldView, now: datetime) -> None:
        """Ask again, right before secrets are given out.

        Raises:
            DeniedError: TOO_OLD, recipients were chosen before the last notice or policy;
                MEMBERS_STALE, no tick has come for too long.
        """
        dataset = view.dataset(self.dataset.topic)
        if dataset is None or self != Asked.of(view, dataset):
            raise DeniedError(
                Reason.TOO_OLD, "recipients were chosen before the last notice or policy"
            )
        view.check_grants(dataset, now)


def keep_from(dataset: Dataset, now: datetime) -> datetime:
    """Epochs that began before this have no data left: the last block came within their age."""
    return now - timedelta(seconds=dataset.retention_s + EPOCH_AGE_S_MAX)


async def append(host: Host, topic: Topic, key: bytes, values: Sequence[bytes]) -> None:
    """Send records one after the other until all are acknowledged.

    Raises:
        PeerError, DeniedError: refused for good.
        UnavailableError: not acknowledged yet.
    """
    for value in values:
        await _append(host, topic, key, value)


async def _append(host: Host, topic: Topic, key: bytes, value: bytes) -> None:
    for attempt in range(_APPEND_TRIES_MAX):
        try:
            await host.log.append(grants_topic(topic), 0, [(key, value)])
            return
        except UnavailableError as exc:
            host.telemetry.held(topic, exc.reason, str(exc.args[0]))
            await host.view.changed.wait(pause_s(attempt))
    raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "epoch start or grant is not acknowledged")


async def send_grants(
    host: Host,
    result: Result,
    started: VerifiedStart,
    *,
    secret: EpochSecret,
    keys: Mapping[HostId, PublicKey],
    asked: Asked,
) -> frozenset[tuple[HostId, bytes]]:
    """Grant an epoch to hosts; the (host, key thumbprint) pairs that were acknowledged.

    Args:
        result: this host's own, current.
        keys: whom to serve, with the key to wrap to.
        asked: what they were chosen by.
    """
    topic, served = started.start.topic, frozenset[tuple[HostId, bytes]]()
    hosts = sorted(keys)
    for at in range(0, len(hosts), RECIPIENTS_MAX):
        part = {name: keys[name] for name in hosts[at : at + RECIPIENTS_MAX]}
        try:
            await _send(host, result, started, secret=secret, keys=part, asked=asked)
        except (PeerError, DeniedError, UnavailableError) as exc:
            host.telemetry.refused(topic, exc.reason, loud=class_of(exc.reason) in _LOUD)
            return served
        served |= {(name, key.thumbprint) for name, key in part.items()}
        host.telemetry.granted(topic, len(part))
    return served


async def _send(
    host: Host,
    result: Result,
    started: VerifiedStart,
    *,
    secret: EpochSecret,
    keys: Mapping[HostId, PublicKey],
    asked: Asked,
) -> None:
    asked.check(host.view, host.clock.now())
    draft = GrantDraft(
        granter=host.view.me,
        result_id=result.id,
        policy_version=asked.policy_version,
        revocation_number=asked.revocation_number,
        granted=host.clock.now(),
    )
    signers = host.identity.keyring.signers(result, suite_of(started.start.suite))
    values = await asyncio.to_thread(
        grant, draft, started, secret, recipients=[*keys.items()], signers=signers
    )
    asked.check(host.view, host.clock.now())  # wrapping for many takes a while
    await append(host, started.start.topic, grant_key(host.view.me, started.start.id), values)
